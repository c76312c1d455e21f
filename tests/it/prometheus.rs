//! `/metrics` as its readers see it: the negotiated format, Prometheus, which scrapes each role in
//! each state in both formats, and promtool, which reads the classic text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::{http, http_get, wait_at_interval};
use keyvault_csi_e2e::prometheus::{Prometheus, promtool, start_pages, start_proxy_without_headers};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::harness;
use crate::metric_states::{refusing, states};
use crate::plugin;

trials! { "prometheus":
    the_format_is_negotiated,
    prometheus_and_promtool_read_every_role_in_every_state,
}

/// The check of what all tests before it saw.
pub(crate) fn last() -> Vec<Trial> {
    vec![crate::trial("prometheus::promtool_reads_what_all_tests_saw", promtool_reads_what_all_tests_saw)]
}

const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

/// What promtool finds in the names, and why they stay.
const FINDINGS: &[(&str, &str)] = &[
    (
        "rotation_reconcile_duration_sec metric names should not contain abbreviated units",
        "upstream's driver has this name (docs/reference/csi-driver.md#metrics)",
    ),
    (
        "sync_k8s_secret_duration_sec metric names should not contain abbreviated units",
        "upstream's driver has this name (docs/reference/csi-driver.md#metrics)",
    ),
];

const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The table of all headers is in `src/server/admin/accept.rs`.
fn the_format_is_negotiated() -> Result<()> {
    let (node, fixture) = (harness().node()?, plugin::Fixture::new(&[])?);
    node.refused(&harness().vault().volume("absent"))?;
    fixture.driver.version()?;
    let port = fixture.provider.setup().ports[1];
    for (address, counted) in [
        (format!("{}:8095", node.setup().address), "node_publish_error"),
        (format!("127.0.0.1:{port}"), "grpc_request"),
    ] {
        let request = |method: &str, headers: &str| -> Result<(String, String)> {
            let response = http(&address, &format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n{headers}\r\n"))?;
            let (head, body) = response.split_once("\r\n\r\n").context("no head")?;
            Ok((head.to_ascii_lowercase(), body.to_owned()))
        };
        for (headers, openmetrics) in [
            ("", false),
            ("Accept: */*\r\n", false),
            ("Accept: \u{fc}\r\n", false),
            ("Accept: application/openmetrics-text; version=1.0.0, */*;q=0.1\r\n", true),
            ("Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text;q=0.6\r\n", true),
            ("Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text;q=0.4\r\n", false),
        ] {
            let (head, body) = request("GET", headers)?;
            let content_type = if openmetrics { OPENMETRICS } else { CLASSIC };
            ensure!(head.starts_with("http/1.1 200 "), "{headers}: {head}");
            ensure!(head.contains(&format!("\r\ncontent-type: {content_type}")), "{headers}: {head}");
            assert_eq!(body.ends_with("# EOF\n"), openmetrics, "{headers}: {body}");
            let info = if openmetrics { "# TYPE target info\n" } else { "# TYPE target_info gauge\n" };
            ensure!(body.contains(info) && body.contains(counted), "{headers}: {body}");
            let counter = "# TYPE node_publish_error_total counter\n";
            assert_eq!(body.contains(counter), !openmetrics && counted.starts_with("node"), "{body}");
            // The same head without a body.
            let (only_head, nothing) = request("HEAD", headers)?;
            ensure!(only_head.contains(&format!("\r\ncontent-type: {content_type}")) && nothing.is_empty());
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let (head, _) = request(method, "Content-Length: 0\r\n")?;
            ensure!(head.starts_with("http/1.1 405 ") && head.contains("\r\nallow: get,head"), "{method}: {head}");
        }
    }
    Ok(())
}

/// Pages with mistakes that Prometheus must report, so that the search for them is known to work.
const PLANTED: &[(&str, &str)] = &[
    ("/not-parsed", "calls{cause=\"a} 1\n"),
    ("/twice", "calls 1\ncalls 2\nother 1\n"),
    ("/twice-the-same", "calls 1\ncalls 1\nother 1\n"),
    ("/old", "calls 1 1000\n"),
];

fn prometheus_and_promtool_read_every_role_in_every_state() -> Result<()> {
    let (refusing, states) = (refusing()?, states()?);
    let refusing_address = format!("{}:8095", refusing.setup().address);
    let live: Vec<(&str, &str)> = states
        .iter()
        .map(|state| (state.name, state.address.as_str()))
        .chain([("refusing", &*refusing_address)])
        .collect();
    let setup = harness().setup();
    let at = |port: u16| format!("{}:{port}", setup.address);
    start_proxy_without_headers(&at(8080))?;
    start_pages(&at(8081), PLANTED)?;
    let rules = setup.folder.join("rules.yaml");
    fs::write(&rules, documented_rules()?)?;
    let (sound, report) = promtool(&["check", "rules", &rules.display().to_string()], "")?;
    ensure!(sound, "docs/operations.md: {report}");
    let configuration = configuration(&live, &rules, &at(8080), &at(8081));
    let prometheus = Prometheus::start(&setup.folder.join("prometheus"), &at(9090), &configuration)?;
    every_target_is_up(&prometheus, 2 * live.len())?;
    the_formats_have_the_same_families(&prometheus)?;
    // A failure after the first scrape is an increase.
    refusing.refused(&harness().vault().volume("absent"))?;
    the_documented_alerts_work(&prometheus)?;
    only_planted_mistakes_are_found(&prometheus, &at(8081))?;
    let mut findings = BTreeSet::new();
    for (name, address) in live {
        findings.extend(lint(&http_get(address, "/metrics")?.1).with_context(|| name.to_owned())?);
    }
    let known: BTreeSet<String> = FINDINGS.iter().map(|(finding, _)| (*finding).to_owned()).collect();
    assert_eq!(findings, known, "a finding is new, or FINDINGS has one that is mended");
    Ok(())
}

fn configuration(live: &[(&str, &str)], rules: &Path, proxy: &str, pages: &str) -> Value {
    let targets: Vec<Value> =
        live.iter().map(|(name, address)| json!({ "targets": [address], "labels": { "state": name } })).collect();
    let planted: Vec<Value> = PLANTED
        .iter()
        .map(|(path, _)| json!({ "targets": [pages], "labels": { "__metrics_path__": path, "state": path } }))
        .collect();
    json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
        "rule_files": [rules],
        "scrape_configs": [
            { "job_name": "openmetrics", "static_configs": targets },
            // This version has no `scrape_protocols`, and asks for OpenMetrics first.
            { "job_name": "classic", "static_configs": targets, "proxy_url": format!("http://{proxy}") },
            { "job_name": "planted", "static_configs": planted },
        ],
    })
}

/// Waits until each target was scraped twice, and each of the product is up.
fn every_target_is_up(prometheus: &Prometheus, count: usize) -> Result<()> {
    let up = wait_at_interval("all targets are up", PATIENCE, PAUSE, || {
        let scraped = prometheus.query("count_over_time(up[10m]) >= 2")?.len();
        let up = prometheus.query("up{job!=\"planted\"} == 1 and scrape_samples_scraped > 0")?.len();
        Ok(scraped == count + PLANTED.len() && up == count)
    });
    up.or_else(|error| {
        let targets = prometheus.api("targets", &[("state", "active")])?["activeTargets"].take();
        let targets = targets.as_array().cloned().unwrap_or_default();
        let errors = targets.iter().map(|target| format!("{} {}", target["labels"], target["lastError"]));
        Err(error.context(errors.collect::<Vec<_>>().join("\n")))
    })
}

/// Type and help of each family of a job, by name.
fn families(prometheus: &Prometheus, job: &str) -> Result<BTreeMap<String, (String, String)>> {
    let target = format!("{{job=\"{job}\"}}");
    let metadata = prometheus.api("targets/metadata", &[("match_target", &target)])?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("not a text");
    let mut families = BTreeMap::new();
    for family in metadata.as_array().context("not a list")? {
        let described = (text(&family["type"])?, text(&family["help"])?);
        let name = text(&family["metric"])?;
        let before = families.insert(name.clone(), described.clone());
        ensure!(before.is_none_or(|before| before == described), "{name} differs between states");
    }
    Ok(families)
}

/// The states together show each family that the product registers, in both formats.
fn the_formats_have_the_same_families(prometheus: &Prometheus) -> Result<()> {
    let (openmetrics, classic) = (families(prometheus, "openmetrics")?, families(prometheus, "classic")?);
    assert_eq!(openmetrics.keys().cloned().collect::<BTreeSet<_>>(), registered_families()?);
    let renamed = openmetrics.into_iter().map(|(name, (kind, help))| match kind.as_str() {
        "counter" => (format!("{name}_total"), (kind, help)),
        "info" => (format!("{name}_info"), ("gauge".to_owned(), help)),
        _ => (name, (kind, help)),
    });
    assert_eq!(classic, renamed.collect::<BTreeMap<_, _>>());
    for [one, other] in [["openmetrics", "classic"], ["classic", "openmetrics"]] {
        // Without `le`, whose values are written in two ways.
        let series = |job| format!("count without (job, le) ({{job=\"{job}\"}})");
        let missing = prometheus.query(&format!("{} unless {}", series(one), series(other)))?;
        ensure!(missing.is_empty(), "only in {one}: {missing:?}");
    }
    Ok(())
}

/// The names of the families in the product's sources, as OpenMetrics has them.
fn registered_families() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/server/metrics"))? {
        let text = fs::read_to_string(file?.path())?;
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        let calls = product.split(".register(").skip(1);
        names
            .extend(calls.filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next()).map(str::to_owned));
    }
    ensure!(names.contains("node_publish"), "{names:?}");
    Ok(names)
}

/// The rules of the section Alerts.
fn documented_rules() -> Result<String> {
    let page = include_str!("../../docs/operations.md");
    let block = page.split("```yaml\n").skip(1).find(|block| block.starts_with("groups:")).context("no rules")?;
    Ok(block.split("```").next().unwrap_or_default().to_owned())
}

/// All rules are evaluated, and alert on the states.
fn the_documented_alerts_work(prometheus: &Prometheus) -> Result<()> {
    let expected = json!({
        "KeyVaultBackoff": "pending ok",
        "KeyVaultObjectExpiresSoon": "firing ok",
        "KeyVaultPublishFailing": "pending ok",
        "KeyVaultVolumesFailing": "pending ok",
        // Its ten minutes have not passed.
        "KeyVaultVolumesNotRefreshed": "inactive ok",
    });
    let mut seen = Value::Null;
    let alerted = wait_at_interval("the alerts", PATIENCE, PAUSE, || {
        let groups = prometheus.api("rules", &[])?["groups"].take();
        let rules = groups[0]["rules"].as_array().context("no rules")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let states = rules.iter().map(|rule| {
            (text(&rule["name"]), Value::from(format!("{} {}", text(&rule["state"]), text(&rule["health"]))))
        });
        seen = states.collect::<serde_json::Map<_, _>>().into();
        Ok(seen == expected)
    });
    alerted.with_context(|| format!("{seen:#}"))?;
    let age = prometheus.query("max(time() - rotation_oldest_success_timestamp_seconds)")?;
    ensure!(age.len() == 1 && (0.0..600.0).contains(&age[0].1), "{age:?}");
    Ok(())
}

/// Nothing of the product was not parsed, too old, or lost: what Prometheus reports, and what it
/// has scraped but not stored.
fn only_planted_mistakes_are_found(prometheus: &Prometheus, pages: &str) -> Result<()> {
    let log = prometheus.log();
    let field = |line: &str, start: &str, end: char| -> Option<String> {
        Some(line.split_once(start)?.1.split(end).next()?.to_owned())
    };
    let reports = log.lines().filter(|line| line.contains("component=\"scrape manager\""));
    let reports = reports.filter(|line| line.contains("level=warn") || line.contains("msg=\"Append failed\""));
    let mut found: BTreeSet<String> = reports
        .map(|line| {
            let target = field(line, " target=", ' ').unwrap_or_else(|| line.to_owned());
            format!("{target}: {}", field(line, " msg=\"", '"').unwrap_or_default())
        })
        .collect();
    // Alerts have the labels of their samples.
    let stored = "count by (job, state) ({job!=\"\", __name__!~\"up|scrape_.+|ALERTS.*\"})";
    let lost = prometheus.query(&format!("(scrape_samples_scraped - on (job, state) {stored}) != 0"))?;
    found.extend(lost.iter().map(|(labels, count)| format!("{} {}: {count} lost", labels["job"], labels["state"])));
    let expected = [
        format!("http://{pages}/not-parsed: Append failed"),
        format!("http://{pages}/old: Error on ingesting samples that are too old or are too far into the future"),
        "planted /twice: 1 lost".to_owned(),
        "planted /twice-the-same: 1 lost".to_owned(),
    ];
    assert_eq!(found, BTreeSet::from(expected));
    let dropped = prometheus.query("scrape_samples_scraped != scrape_samples_post_metric_relabeling")?;
    ensure!(dropped.is_empty(), "{dropped:?}");
    Ok(())
}

/// What promtool finds in a page; a page that it cannot read is an error.
fn lint(page: &str) -> Result<BTreeSet<String>> {
    let (_, report) = promtool(&["check", "metrics"], page)?;
    let findings: BTreeSet<String> = report.lines().map(str::to_owned).collect();
    // Findings are one line each, that begins with the name of a metric of the page.
    let is_finding =
        |line: &String| line.split_once(' ').is_some_and(|(name, _)| page.contains(&format!("# TYPE {name} ")));
    ensure!(findings.iter().all(is_finding), "{report}\n{page}");
    Ok(findings)
}

fn promtool_reads_what_all_tests_saw() -> Result<()> {
    // One page at least, if this test runs alone.
    harness().node()?.metrics()?;
    for page in harness().pages() {
        for finding in lint(&page)? {
            ensure!(FINDINGS.iter().any(|(known, _)| *known == finding), "{finding}\n{page}");
        }
    }
    Ok(())
}
