//! Refreshes of volumes of external providers: requests, writes and reports.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::reference::ReferenceProvider;

use crate::external_fixture::{
    NAME, PATIENCE, ROTATING, class, driver_and_provider, last_request, parameters, set_secret, volume, with_tokens,
};
use crate::harness::{Node, class_manifest, harness};
use crate::rotation::metric;

trials! { "external_rotation":
    a_rotated_value_comes_with_its_version,
    unchanged_objects_cause_no_write,
    a_new_value_under_the_old_version_is_written_too,
    a_new_version_of_the_old_value_writes_nothing,
    each_volume_has_requests_of_its_own_with_its_pod,
    fresh_tokens_are_used,
    expired_credentials_are_reported_and_not_used,
    a_failure_keeps_the_files_and_is_counted_by_the_providers_code,
    a_class_may_change_its_provider,
    a_changed_class_is_fetched_without_the_old_versions,
    a_provider_that_hangs_holds_up_no_vault,
}

/// How many volumes of one provider the driver refreshes at a time.
const CONCURRENT_REFRESHES: usize = 4;

/// The deadline of one refresh.
const DEADLINE: Duration = Duration::from_secs(30);

/// Inodes and change times of a volume, which differ after each write.
fn fingerprint(target: &Path) -> Result<Vec<(u64, i64, i64)>> {
    let one = |path: &Path| -> Result<_> {
        let metadata = fs::symlink_metadata(path)?;
        Ok((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
    };
    let files = fs::read_dir(target.join("..data"))?.map(|entry| one(&entry?.path()));
    [one(target), one(&target.join("..data"))].into_iter().chain(files).collect()
}

/// Waits until the provider has had this number of further requests.
fn wait_for_requests(provider: &ReferenceProvider, times: usize) -> Result<()> {
    let before = provider.requests()?.len();
    wait_for("requests arrive", PATIENCE, || Ok(provider.requests()?.len() >= before + times))
}

fn refreshes(node: &Node, rotated: bool) -> Result<f64> {
    let (provider, rotated) = (format!("provider=\"{NAME}\""), format!("rotated=\"{rotated}\""));
    metric(node, "rotation_reconcile_total{", &[&provider, &rotated])
}

/// The scenario of upstream's suite: from now on the mock returns another value to pods that it has
/// seen before.
fn a_rotated_value_comes_with_its_version() -> Result<()> {
    let (node, provider) = driver_and_provider(&ROTATING)?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let target = node.publish(&volume("demo"))?;
    assert_eq!(fs::read_to_string(target.join("foo"))?, "secret");
    wait_for_requests(&provider, 2)?;
    assert_eq!(last_request(&provider)?.held, [("secret/foo".to_owned(), "v1".to_owned())].into());
    provider.control("/rotation", &[("rotated", "true")])?;
    wait_for("it is rotated", PATIENCE, || Ok(fs::read_to_string(target.join("foo"))? == "rotated"))?;
    wait_for_requests(&provider, 2)?;
    assert_eq!(last_request(&provider)?.held, [("secret/foo".to_owned(), "v2".to_owned())].into());
    assert_eq!(refreshes(&node, true)?, 1.0);
    Ok(())
}

fn unchanged_objects_cause_no_write() -> Result<()> {
    let (node, provider) = driver_and_provider(&ROTATING)?;
    set_secret(&provider, "password", "v1")?;
    class(&node, "demo", &["objectName: password", "objectName: password, path: a/b"], "")?;
    let target = node.publish(&volume("demo"))?;
    let before = fingerprint(&target)?;
    wait_for_requests(&provider, 20)?;
    ensure!(fingerprint(&target)? == before, "something was written");
    wait_for("the refreshes are counted", PATIENCE, || Ok(refreshes(&node, false)? >= 19.0))?;
    assert_eq!(refreshes(&node, true)?, 0.0);
    Ok(())
}

fn a_new_value_under_the_old_version_is_written_too() -> Result<()> {
    let (node, provider) = driver_and_provider(&ROTATING)?;
    set_secret(&provider, "password", "same")?;
    class(&node, "demo", &["objectName: password"], "")?;
    let target = node.publish(&volume("demo"))?;
    let value = set_secret(&provider, "password", "same")?;
    wait_for("the value is there", PATIENCE, || Ok(fs::read_to_string(target.join("password"))? == value))
}

fn a_new_version_of_the_old_value_writes_nothing() -> Result<()> {
    let (node, provider) = driver_and_provider(&ROTATING)?;
    let value = set_secret(&provider, "password", "v1")?;
    class(&node, "demo", &["objectName: password"], "")?;
    let target = node.publish(&volume("demo"))?;
    let before = fingerprint(&target)?;
    provider.control("/secret", &[("name", "password"), ("value", &value), ("version", "v2")])?;
    wait_for("the request has the new version", PATIENCE, || {
        Ok(last_request(&provider)?.held.get("secret/password").is_some_and(|version| version == "v2"))
    })?;
    ensure!(fingerprint(&target)? == before, "something was written");
    Ok(())
}

/// The driver does not know as which identity a provider sees a pod, so that two pods never share a
/// reply.
fn each_volume_has_requests_of_its_own_with_its_pod() -> Result<()> {
    let (node, provider) = driver_and_provider(&ROTATING)?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let volumes = [volume("demo"), volume("demo"), volume("demo")];
    for volume in &volumes {
        node.publish(volume)?;
    }
    let before = provider.requests()?.len();
    let refreshed = |uid: &str| -> Result<bool> {
        let seen = provider.requests()?;
        let mut later = seen.iter().skip(before);
        Ok(later.any(|seen| {
            seen.attributes.get("csi.storage.k8s.io/pod.uid").map(String::as_str) == Some(uid)
                && seen.target.contains(uid)
                && seen.attributes["csi.storage.k8s.io/pod.name"] == "web"
                && seen.attributes["csi.storage.k8s.io/ephemeral"] == "true"
        }))
    };
    for volume in &volumes {
        wait_for("the volume is refreshed", PATIENCE, || refreshed(&volume.uid))?;
    }
    Ok(())
}

fn fresh_tokens_are_used() -> Result<()> {
    let (node, provider) = driver_and_provider(&ROTATING)?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let volume = volume("demo");
    node.publish(&with_tokens(volume.clone(), &["first"]))?;
    wait_for_requests(&provider, 1)?;
    assert_eq!(last_request(&provider)?.audiences, ["first"]);
    // The kubelet's next call delivers other tokens.
    node.publish(&with_tokens(volume, &["second"]))?;
    wait_for("the new tokens are used", PATIENCE, || Ok(last_request(&provider)?.audiences == ["second"]))
}

fn expired_credentials_are_reported_and_not_used() -> Result<()> {
    let flags = ["--enable-secret-rotation", "--rotation-poll-interval=200ms", "--republish-period=300ms"];
    let (node, provider) = driver_and_provider(&flags)?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let (bare, volume) = (volume("demo"), volume("demo").with_service_principal("c", &harness().secret("principal")));
    node.publish(&bare)?;
    node.publish(&volume)?;
    let expired = || Ok(metric(&node, "rotation_reconcile_error_total{", &["CredentialsMissing", NAME])? >= 1.0);
    wait_for("the expiry is counted", PATIENCE, expired)?;
    // The refreshes of the pod that never had credentials continue;
    // the other pod has no request without them.
    let before = provider.requests()?.len();
    wait_for_requests(&provider, 3)?;
    for seen in &provider.requests()?[before..] {
        assert_eq!((seen.secrets.is_none(), seen.target.contains(&bare.uid)), (true, true));
    }
    ensure!(node.log().contains("requiresRepublish"), "{}", node.log());
    Ok(())
}

fn a_failure_keeps_the_files_and_is_counted_by_the_providers_code() -> Result<()> {
    let (node, provider) = driver_and_provider(&ROTATING)?;
    let value = set_secret(&provider, "password", "v1")?;
    class(&node, "demo", &["objectName: password"], "")?;
    let volume = volume("demo");
    let target = node.publish(&volume)?;
    for (answer, parts) in [
        ("code=VaultSealed", ["error_type=\"VaultSealed\"", "reason=\"ProviderFailed\""]),
        ("status=7:denied", ["error_type=\"GRPCProviderError\"", "reason=\"ProviderFailed\""]),
        ("versionless", ["error_type=\"GRPCProviderError\"", "reason=\"ProviderFailed\""]),
        ("fileless", ["error_type=\"GRPCProviderError\"", "reason=\"ProviderFailed\""]),
    ] {
        let failures = || metric(&node, "rotation_reconcile_error_total{", &parts);
        let before = failures()?;
        provider.control("/answer", &[("answer", answer)])?;
        wait_for(answer, PATIENCE, || Ok(failures()? > before))?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
        node.publish(&volume)?;
    }
    provider.control("/answer", &[])?;
    let value = set_secret(&provider, "password", "v2")?;
    wait_for("refreshes succeed again", PATIENCE, || Ok(fs::read_to_string(target.join("password"))? == value))?;
    wait_for("nothing fails", PATIENCE, || Ok(metric(&node, "rotation_volumes_failing{", &[])? == 0.0))
}

fn a_class_may_change_its_provider() -> Result<()> {
    let (node, provider) = driver_and_provider(&["--enable-secret-rotation", "--rotation-poll-interval=1h"])?;
    let vault = harness().vault();
    let value = vault.set("password");
    class(&node, "demo", &["objectName: foo"], "")?;
    let target = node.publish(&vault.volume("demo"))?;
    ensure!(target.join("foo").exists());
    node.class("demo", &vault.parameters(&["password"]))?;
    wait_for("the vault's value is there", PATIENCE, || {
        Ok(fs::read_to_string(target.join("password")).is_ok_and(|found| found == value))
    })?;
    ensure!(!target.join("foo").exists());
    let before = provider.requests()?.len();
    class(&node, "demo", &["objectName: fookey"], "")?;
    wait_for("the provider's object is there", Duration::from_secs(30), || Ok(target.join("fookey").exists()))?;
    ensure!(provider.requests()?.len() > before);
    Ok(())
}

fn a_changed_class_is_fetched_without_the_old_versions() -> Result<()> {
    let (node, provider) = driver_and_provider(&["--enable-secret-rotation", "--rotation-poll-interval=1h"])?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let target = node.publish(&volume("demo"))?;
    class(&node, "demo", &["objectName: foo", "objectName: fookey"], "")?;
    wait_for("the new object is there", PATIENCE, || Ok(target.join("fookey").exists()))?;
    assert_eq!(last_request(&provider)?.held, [].into());
    Ok(())
}

/// Of 24 volumes that are due at once, four are refreshed at a time, and each refresh hangs until
/// its deadline.
fn a_provider_that_hangs_holds_up_no_vault() -> Result<()> {
    let (node, provider) = driver_and_provider(&ROTATING)?;
    let write = |refresh: &str| -> Result<()> {
        let text = class_manifest("default", "demo", Some(NAME), &parameters(&["objectName: foo"], ""));
        let mut class: serde_json::Value = serde_json::from_str(&text)?;
        class["metadata"]["annotations"] =
            serde_json::json!({ "keyvault-csi/rotation-poll-interval": "24h", "keyvault-csi/refresh": refresh });
        node.manifest("demo.yaml", &class.to_string())
    };
    write("1")?;
    for _ in 0..24 {
        node.publish(&volume("demo"))?;
    }
    let vault = harness().vault();
    vault.set("password");
    node.class("quick", &vault.parameters(&["password"]))?;
    let target = node.publish(&vault.volume("quick"))?;
    provider.control("/answer", &[("answer", "hang")])?;
    let (before, began) = (provider.requests()?.len(), Instant::now());
    write("2")?;
    wait_for("refreshes hang", PATIENCE, || Ok(provider.requests()?.len() >= before + CONCURRENT_REFRESHES))?;
    for _ in 0..3 {
        let value = vault.set("password");
        let arrived = || Ok(fs::read_to_string(target.join("password"))? == value);
        wait_for("the vault's value is there", Duration::from_secs(10), arrived)?;
    }
    // On a slow machine the first refreshes may have timed out by now, and others have started.
    let rounds = began.elapsed().div_duration_f64(DEADLINE) as usize + 1;
    let requests = provider.requests()?.len() - before;
    ensure!(requests <= rounds * CONCURRENT_REFRESHES, "{requests} requests in {rounds} times {DEADLINE:?}");
    Ok(())
}
