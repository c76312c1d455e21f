//! External providers that reply badly, late or not at all:
//! the error of the publish, and the state after it.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::is_final;
use tonic::Code;

use crate::external_fixture::{
    NAME, PATIENCE, class, driver, driver_and_provider, options, provider, set_secret, volume, with_tokens,
};
use crate::harness::{Node, harness};

trials! { "external_faults":
    each_bad_reply_has_its_error_text,
    bad_paths_are_refused_and_nothing_is_left,
    ten_kilobytes_mount_and_five_megabytes_need_the_flag,
    a_reply_above_the_limit_names_the_flag_to_raise,
    a_provider_that_hangs_ends_with_the_deadline,
    a_socket_without_a_listener_is_waited_for,
    unavailable_is_tried_three_times,
    two_hundred_publishes_survive_restarts_of_the_provider,
    credentials_are_in_no_log_error_or_metric,
    no_encoding_of_a_secret_is_shown,
}

/// Publishes a volume of a class that requests this answer; it must fail with all of these words.
fn fails_with(node: &Node, of: &[&str], answer: &str, words: &[&str]) -> Result<()> {
    class(node, "faulty", of, answer)?;
    let status = node.refused_within(&volume("faulty"), Duration::from_secs(20))?;
    assert_eq!(status.code(), Code::Unknown, "{status}");
    for word in ["default/faulty", &format!("provider {NAME}")].iter().chain(words) {
        ensure!(status.message().contains(word), "{answer}: {word:?} is missing in: {status}");
    }
    Ok(())
}

fn ensure_counted(node: &Node, error_type: &str, reason: &str) -> Result<()> {
    let metrics = node.metrics()?;
    let line = format!("provider=\"{NAME}\",error_type=\"{error_type}\",reason=\"{reason}\"");
    ensure!(metrics.contains(&line), "{line} is missing in {metrics}");
    Ok(())
}

fn each_bad_reply_has_its_error_text() -> Result<()> {
    let (node, _provider) = driver_and_provider(&[])?;
    let good = &["objectName: foo"][..];
    fails_with(
        &node,
        good,
        "code=AuthenticationFailed",
        &["provider error code AuthenticationFailed", "(ProviderFailed)"],
    )?;
    ensure_counted(&node, "AuthenticationFailed", "ProviderFailed")?;
    fails_with(&node, good, "code=a \"bad\" label", &["a \"bad\" label"])?;
    ensure_counted(&node, "other", "ProviderFailed")?;
    fails_with(
        &node,
        good,
        "status=7:who are you",
        &["code = PermissionDenied desc = who are you", "(ProviderFailed)"],
    )?;
    ensure_counted(&node, "GRPCProviderError", "ProviderFailed")?;
    // A long text is a long header, which many clients refuse.
    fails_with(&node, good, &format!("status=7:{}", "x".repeat(20_000)), &["code = PermissionDenied desc = xxxx"])?;
    // The driver does not pass on codes that mean something else to the kubelet
    // (docs/decisions.md#d8).
    for code in [1, 4, 8, 10] {
        fails_with(&node, good, &format!("status={code}:no"), &["desc = no"])?;
    }
    fails_with(&node, good, "versionless", &["no object versions", "(ProviderFailed)"])?;
    fails_with(&node, good, "fileless", &["no files", "write into the volume themselves are not supported"])?;
    fails_with(&node, &["objectName: absent"], "", &["secret absent not found"])?;
    Ok(())
}

fn bad_paths_are_refused_and_nothing_is_left() -> Result<()> {
    let (node, _provider) = driver_and_provider(&[])?;
    let long = format!("objectName: foo, path: {}", "x".repeat(256));
    for (object, words) in [
        ("objectName: foo, path: /dev/null", "relative to the mount"),
        ("objectName: foo, path: ../../../../etc/passwd", "must not contain '..'"),
        ("objectName: foo, path: hello/../../etc/x", "must not contain '..'"),
        ("objectName: foo, path: ..sneaky.txt", "must not start with '..'"),
        ("objectName: foo, path: a//b", "shortest form"),
        ("objectName: foo, path: .", "shortest form"),
        ("objectName: foo, path: \"\"", "empty"),
        (&long, "256 bytes"),
    ] {
        fails_with(
            &node,
            &["objectName: fookey", object],
            "",
            &["the reply has the path", words, "(ProviderReplyInvalid)"],
        )?;
    }
    fails_with(&node, &["objectName: foo", "objectName: foo, path: foo/bar"], "", &["is a file and, because of"])?;
    fails_with(&node, &["objectName: foo, mode: -1"], "", &["the mode -1"])?;
    ensure_counted(&node, "FileWriteError", "ProviderReplyInvalid")
}

const LARGE: &str = "objectName: foo, size: 5000000";

fn ten_kilobytes_mount_and_five_megabytes_need_the_flag() -> Result<()> {
    let (node, _provider) = driver_and_provider(&[])?;
    class(&node, "small", &["objectName: foo, size: 10240"], "")?;
    assert_eq!(fs::metadata(node.publish(&volume("small"))?.join("foo"))?.len(), 10_240);
    fails_with(&node, &[LARGE], "", &["larger than 4194304 bytes", "--max-call-recv-msg-size", "(TooLarge)"])?;
    let (node, provider) = driver_and_provider(&[
        "--max-call-recv-msg-size=8388608",
        "--enable-secret-rotation",
        "--rotation-poll-interval=200ms",
    ])?;
    class(&node, "large", &[LARGE], "")?;
    let target = node.publish(&volume("large"))?;
    let content = fs::read(target.join("foo"))?;
    ensure!(content.len() == 5_000_000 && content.starts_with(b"secretsecret"), "{}", content.len());
    // During a refresh the tmpfs holds two generations.
    provider.control("/rotation", &[("rotated", "true")])?;
    wait_for("it is refreshed", PATIENCE, || Ok(fs::read(target.join("foo"))?.starts_with(b"rotatedrotated")))
}

fn a_reply_above_the_limit_names_the_flag_to_raise() -> Result<()> {
    let (node, _provider) = driver_and_provider(&["--max-call-recv-msg-size=5"])?;
    fails_with(&node, &["objectName: foo"], "", &["larger than 5 bytes", "maxCallRecvMsgSize"])
}

fn a_provider_that_hangs_ends_with_the_deadline() -> Result<()> {
    let (node, provider) = driver_and_provider(&[])?;
    class(&node, "demo", &["objectName: foo"], "hang")?;
    let began = Instant::now();
    let status = node.refused_within(&volume("demo"), Duration::from_secs(4))?;
    let took = began.elapsed();
    // The driver's deadline is a tenth shorter than the caller's, so that the cause reaches it.
    ensure!((Duration::from_secs(3)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert_eq!(status.code(), Code::Unknown, "{status}");
    ensure!(status.message().contains("no answer within 3 s") && status.message().contains("(Timeout)"), "{status}");
    // Meanwhile other volumes are published.
    class(&node, "fine", &["objectName: foo"], "")?;
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| node.refused_within(&volume("demo"), Duration::from_secs(4)));
        wait_for("the publish hangs", Duration::from_secs(4), || Ok(provider.requests()?.len() == 2))?;
        node.publish(&volume("fine"))?;
        ensure!(!hanging.is_finished());
        hanging.join().map_err(|_| anyhow::anyhow!("it panicked"))?.map(drop)
    })
}

fn a_socket_without_a_listener_is_waited_for() -> Result<()> {
    let node = driver(&[])?;
    let options = options(node.setup(), 1, 8080)?;
    class(&node, "demo", &["objectName: foo"], "")?;
    // As a killed provider leaves it.
    drop(std::os::unix::net::UnixListener::bind(&options.socket)?);
    let status = node.refused_within(&volume("demo"), Duration::from_secs(3))?;
    for word in ["no provider answers on", &options.socket.display().to_string(), "refused", "(ProviderUnavailable)"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| node.publish_within(&volume("demo"), Duration::from_secs(30)));
        let waits = || Ok(node.log().matches("node publish volume").count() >= 2);
        wait_for("the publish waits", Duration::from_secs(10), waits)?;
        let _provider = provider(&options)?;
        waiting.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
        Ok(())
    })
}

fn unavailable_is_tried_three_times() -> Result<()> {
    let (node, provider) = driver_and_provider(&[])?;
    class(&node, "demo", &["objectName: foo"], "unavailable=2")?;
    node.publish(&volume("demo"))?;
    assert_eq!(provider.requests()?.len(), 3);
    fails_with(&node, &["objectName: foo"], "unavailable=9", &["code = Unavailable desc = not yet"])?;
    assert_eq!(provider.requests()?.len(), 6);
    Ok(())
}

/// Publishes a pod as the kubelet does, with retries; returns how many calls failed. No call
/// exceeds its deadline.
fn publish_with_retries(node: &Node) -> Result<usize> {
    const DEADLINE: Duration = Duration::from_secs(30);
    let volume = volume("demo");
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let outcome = node.publish_within(&volume, DEADLINE);
        ensure!(began.elapsed() <= DEADLINE, "a publish took {:?}", began.elapsed());
        match outcome {
            Ok(target) => {
                assert_eq!(fs::read_to_string(target.join("foo"))?, "secret");
                return Ok(failures);
            }
            Err(status) => {
                failures += 1;
                ensure!(failures < 10, "a pod does not start: {status}");
                ensure!(is_final(status.code()) || status.code() == Code::Aborted, "{status}");
            }
        }
    }
}

fn two_hundred_publishes_survive_restarts_of_the_provider() -> Result<()> {
    const PODS: usize = 200;
    let node = driver(&[])?;
    let options = options(node.setup(), 1, 8080)?;
    class(&node, "demo", &["objectName: foo"], "delay=50")?;
    let mut running = Some(provider(&options)?);
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let publish_all = || -> Result<usize> {
        let mut failures = 0;
        while next.fetch_add(1, Ordering::Relaxed) < PODS {
            failures += publish_with_retries(&node)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(failures)
    };
    let (failures, restarts) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(publish_all)).collect();
        let finished = || workers.iter().all(|worker| worker.is_finished());
        let mut restarts = 0;
        loop {
            let before = done.load(Ordering::Relaxed);
            let progress = || Ok(done.load(Ordering::Relaxed) >= (before + 20).min(PODS) || finished());
            wait_for("twenty more publishes succeed", Duration::from_secs(120), progress)?;
            if done.load(Ordering::Relaxed) >= PODS || finished() {
                break;
            }
            let provider = running.take().context("no provider")?;
            // Alternately as in a crash and as in an update.
            if restarts % 2 == 0 {
                provider.kill()?
            } else {
                provider.terminate()?
            }
            restarts += 1;
            running = Some(self::provider(&options)?);
        }
        let mut failures = 0;
        for worker in workers {
            failures += worker.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
        }
        Ok::<_, anyhow::Error>((failures, restarts))
    })?;
    ensure!(restarts >= 5, "only {restarts} restarts");
    ensure!(done.load(Ordering::Relaxed) == PODS);
    ensure!(failures <= PODS / 4, "{failures} publishes failed in {restarts} restarts");
    Ok(())
}

fn credentials_are_in_no_log_error_or_metric() -> Result<()> {
    let (node, provider) = driver_and_provider(&[
        "--provider-health-check",
        "--provider-health-check-interval=100ms",
        "--enable-secret-rotation",
        "--rotation-poll-interval=200ms",
    ])?;
    let value = set_secret(&provider, "password", "v1")?;
    class(&node, "demo", &["objectName: password"], "")?;
    let (secret, audience) = (harness().secret("principal"), "api://audience");
    let volume = with_tokens(
        volume("demo").with_service_principal("00000000-0000-4000-9000-000000000000", &secret),
        &[audience],
    );
    let token = volume.attributes[crate::external_fixture::TOKENS].clone();
    let token: serde_json::Value = serde_json::from_str(&token)?;
    let token = token[audience]["token"].as_str().context("no token")?;
    node.publish(&volume)?;
    provider.control("/answer", &[("answer", "quote")])?;
    let failures = || crate::rotation::metric(&node, "rotation_reconcile_error_total{", &["ProviderFailed"]);
    wait_for("refreshes fail with it", PATIENCE, || Ok(failures()? >= 1.0))?;
    let mut other = volume.clone();
    other.uid = "00000000-0000-4000-8000-00000000abcd".to_owned();
    let status = node.refused(&other)?;
    ensure!(status.message().contains("cannot serve") && status.message().contains("***stripped***"), "{status}");
    for kept in ["clientsecret", "secretProviderClass", "objectName: password"] {
        ensure!(status.message().contains(kept), "{kept} is missing in: {status}");
    }
    provider.control("/answer", &[("answer", &format!("code={secret}"))])?;
    let coded = node.refused(&other)?;
    ensure!(coded.message().contains("provider error code ***stripped***"), "{coded}");
    for text in [status.message(), coded.message(), &node.log(), &node.metrics()?] {
        for hidden in [value.as_str(), &secret, token] {
            ensure!(!text.contains(hidden), "{hidden:.12} in {text}");
        }
    }
    Ok(())
}

/// A provider may return credentials in any encoding, whole or in pieces, as an error's text or
/// code, or as a path.
fn no_encoding_of_a_secret_is_shown() -> Result<()> {
    const RUN: usize = 16;
    let (node, provider) = driver_and_provider(&[])?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let secret = harness().secret("with/some+signs & a \"quote\"");
    let volume = volume("demo").with_service_principal("00000000-0000-4000-9000-000000000000", &secret);
    let text = |before: &str| format!("{before}{secret}");
    let base64 = ["", "x", "xy"].map(|before| BASE64_STANDARD.encode(text(before))[4..].to_owned());
    let for_urls = ["", "x", "xy"].map(|before| BASE64_URL_SAFE_NO_PAD.encode(text(before))[4..].to_owned());
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let others = [secret.clone(), hex::encode(&secret), percent, serde_json::Value::from(secret.as_str()).to_string()];
    for form in base64.into_iter().chain(for_urls).chain(others) {
        let pieces: Vec<&str> = (0..=form.len() - RUN).map(|at| &form[at..at + RUN]).collect();
        let in_pieces = pieces.join(" | ");
        let answers = [
            format!("status=7:cannot log in with {form} for long"),
            format!("status=7:cannot log in with {in_pieces} for long"),
            format!("code={form}"),
        ];
        for answer in answers {
            provider.control("/answer", &[("answer", &answer)])?;
            let status = node.refused(&volume)?;
            ensure!(status.message().contains("***stripped***"), "{status}");
            ensure!(answer.starts_with("code") || status.message().contains("cannot log in with "), "{status}");
            for sink in [status.message(), &node.metrics()?] {
                let shown = pieces.iter().find(|piece| sink.contains(**piece));
                ensure!(shown.is_none(), "{shown:?} of {form} in {sink}");
            }
        }
        let log = node.log();
        let shown = pieces.iter().find(|piece| log.contains(**piece));
        ensure!(shown.is_none(), "{shown:?} of {form} in the log");
    }
    Ok(())
}
