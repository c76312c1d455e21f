//! External providers under our driver: the scenarios of upstream's `e2e-provider` suite
//! (docs/reference/csi-driver.md#end-to-end-scenarios).
//!
//! Row by row: *validation config* is `tokens_arrive_for_the_required_audiences`; *SPC v1* and
//! *unmount* are `a_class_of_another_provider_is_mounted_and_unmounted`; *rotation of mount only*
//! and *rotation* are in `external_rotation`; the *in-place upgrade* is
//! `a_driver_that_restarts_finds_the_volume_and_the_provider`; *nodePublishSecretRef* is
//! `secrets_of_the_pod_arrive`. The rows with a cluster are in `external_cluster`. *CRDs and RBAC
//! objects by name* is in `chart`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use tonic::Code;

use crate::external_fixture::{
    NAME, PATIENCE, ROTATING, TOKENS, class, driver, driver_and_provider, last_request, options, parameters, provider,
    set_secret, tokens, volume, with_tokens,
};
use crate::harness::{Node, class_manifest, harness, mounts_on, provider_dirs};

trials! { "external":
    a_class_of_another_provider_is_mounted_and_unmounted,
    the_request_equals_upstreams,
    tokens_arrive_for_the_required_audiences,
    secrets_of_the_pod_arrive,
    two_classes_mount_in_one_pod,
    a_provider_without_a_socket_and_an_invalid_name_are_refused,
    sockets_are_searched_in_upstreams_order,
    a_socket_is_found_when_it_appears_and_when_it_moves,
    a_driver_that_restarts_finds_the_volume_and_the_provider,
    azure_can_be_an_external_provider,
    health_is_a_gauge_by_provider,
}

fn a_class_of_another_provider_is_mounted_and_unmounted() -> Result<()> {
    let (node, _provider) = driver_and_provider(&[])?;
    class(
        &node,
        "demo",
        &["objectName: foo", "objectName: fookey, mode: 256", "objectName: foo, path: a/b, mode: 33279"],
        "",
    )?;
    let volume = volume("demo");
    let target = node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("foo"))?, "secret");
    ensure!(fs::read_to_string(target.join("fookey"))?.starts_with("-----BEGIN PUBLIC KEY-----\n"));
    let mode = |file: &str| -> Result<u32> { Ok(fs::metadata(target.join(file))?.permissions().mode() & 0o7777) };
    // Without a mode, with one, and with a Go FileMode that has more than permission bits.
    assert_eq!((mode("foo")?, mode("fookey")?, mode("a/b")?), (0o644, 0o400, 0o777));
    let mounted = mounts_on(&target)?;
    ensure!(mounted.len() == 1 && mounted[0].contains("tmpfs"), "{mounted:?}");
    let metrics = node.metrics()?;
    ensure!(metrics.contains(&format!("provider=\"{NAME}\"}} 1")), "{metrics}");
    node.kubelet.unpublish(&volume)?;
    ensure!(node.kubelet.has_removed(&volume) && mounts_on(&target)?.is_empty());
    ensure!(node.metrics()?.contains("node_unpublish_total{"));
    ensure!(!node.log().contains("failed to clean and unmount target path"), "{}", node.log());
    Ok(())
}

fn the_request_equals_upstreams() -> Result<()> {
    let (node, provider) = driver_and_provider(&[])?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let mut volume = volume("demo");
    // A pod's attribute overrides the class's parameter: a contract of upstream's.
    volume.attributes.insert("objects".to_owned(), crate::external_fixture::objects(&["objectName: fookey"]));
    volume.attributes.insert("own".to_owned(), "<&>\"\u{1}ü".to_owned());
    let target = node.publish(&volume)?;
    ensure!(target.join("fookey").exists() && !target.join("foo").exists());
    let seen = last_request(&provider)?;
    let keys = ["pod.name", "pod.namespace", "pod.uid", "serviceAccount.name", "ephemeral"];
    let values = ["web", "default", &volume.uid, "default", "true"];
    for (key, value) in keys.into_iter().zip(values) {
        assert_eq!(seen.attributes.get(&format!("csi.storage.k8s.io/{key}")).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(seen.attributes["secretProviderClass"], "demo");
    assert_eq!(seen.attributes["own"], "<&>\"\u{1}ü");
    assert_eq!((seen.permission, &seen.secrets, seen.held.len()), (420, &None, 0));
    assert_eq!(seen.target, target.display().to_string());
    assert_eq!(provider.version_calls()?, 0, "only the health check calls Version");
    Ok(())
}

fn tokens_arrive_for_the_required_audiences() -> Result<()> {
    let (node, provider) = driver_and_provider(&[])?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let audiences = ["aud1", "aud2", "aud3", "aud4", "aud5"];
    provider.control("/validate-token-requests", &[("audience", &audiences.join(","))])?;
    for partial in [volume("demo"), with_tokens(volume("demo"), &audiences[..4])] {
        let status = node.refused(&partial)?;
        assert_eq!(status.code(), Code::Unknown);
        ensure!(status.message().contains("no token for audience"), "{status}");
    }
    node.publish(&with_tokens(volume("demo"), &audiences))?;
    // If the kubelet sends tokens as secrets, the request has them in both places, and the secrets
    // win (docs/reference/csi-driver.md#service-account-tokens).
    let mut in_secrets = with_tokens(volume("demo"), &["other"]);
    in_secrets.secrets.insert(TOKENS.to_owned(), tokens(&audiences));
    node.publish(&in_secrets)?;
    let seen = last_request(&provider)?;
    assert_eq!(seen.audiences, audiences);
    assert_eq!(seen.secrets, Some(vec![TOKENS.to_owned()]));
    Ok(())
}

fn secrets_of_the_pod_arrive() -> Result<()> {
    let (node, provider) = driver_and_provider(&[])?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let volume = volume("demo").with_service_principal("client", &harness().secret("principal"));
    node.publish(&volume)?;
    assert_eq!(last_request(&provider)?.secrets, Some(vec!["clientid".to_owned(), "clientsecret".to_owned()]));
    Ok(())
}

fn two_classes_mount_in_one_pod() -> Result<()> {
    let (node, _provider) = driver_and_provider(&[])?;
    class(&node, "one", &["objectName: foo"], "")?;
    class(&node, "two", &["objectName: fookey"], "")?;
    let first = volume("one");
    let second = Volume { name: "second".to_owned(), attributes: volume("two").attributes, ..first.clone() };
    ensure!(node.publish(&first)?.join("foo").exists() && node.publish(&second)?.join("fookey").exists());
    Ok(())
}

fn a_provider_without_a_socket_and_an_invalid_name_are_refused() -> Result<()> {
    let (node, _provider) = driver_and_provider(&[])?;
    let write = |name: &str, provider: &str| {
        let parameters = parameters(&["objectName: foo"], "");
        node.manifest(&format!("{name}.yaml"), &class_manifest("default", name, Some(provider), &parameters))
    };
    write("absent", "vault")?;
    write("path", "../../e2e-provider")?;
    write("long", &"x".repeat(31))?;
    let [additional, main] = provider_dirs(node.setup()).map(|folder| folder.join("vault.sock").display().to_string());
    for (class, words) in [
        (
            "absent",
            &["default/absent", "provider vault: provider not found", additional.as_str(), &main, "DaemonSet"][..],
        ),
        ("path", &["default/path", "provider not found", "is not a provider name"]),
        ("long", &["default/long", "is not a provider name"]),
    ] {
        let began = std::time::Instant::now();
        let status = node.refused(&volume(class))?;
        ensure!(began.elapsed().as_secs() < 5, "the publish waited for an absent provider");
        assert_eq!(status.code(), Code::Unknown);
        for word in words {
            ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
        }
    }
    let metrics = node.metrics()?;
    let counted = "provider=\"other\",error_type=\"\",reason=\"ProviderNotFound\"} 3";
    ensure!(metrics.contains(counted), "{metrics}");
    Ok(())
}

fn sockets_are_searched_in_upstreams_order() -> Result<()> {
    let node = driver(&[])?;
    let (additional, main) = (options(node.setup(), 0, 8080)?, options(node.setup(), 1, 8081)?);
    let (additional, main) = (provider(&additional)?, provider(&main)?);
    class(&node, "demo", &["objectName: foo"], "")?;
    node.publish(&volume("demo"))?;
    assert_eq!((additional.requests()?.len(), main.requests()?.len()), (1, 0));
    additional.terminate()?;
    node.publish(&volume("demo"))?;
    assert_eq!(main.requests()?.len(), 1);
    Ok(())
}

fn a_socket_is_found_when_it_appears_and_when_it_moves() -> Result<()> {
    let node = driver(&[])?;
    let (additional, main) = (options(node.setup(), 0, 8080)?, options(node.setup(), 1, 8081)?);
    class(&node, "demo", &["objectName: foo"], "")?;
    ensure!(node.refused(&volume("demo"))?.message().contains("provider not found"));
    let first = provider(&main)?;
    node.publish(&volume("demo"))?;
    first.terminate()?;
    ensure!(node.refused(&volume("demo"))?.message().contains("provider not found"));
    let second = provider(&additional)?;
    node.publish(&volume("demo"))?;
    // A killed provider leaves its socket in the directory that the driver searches first; the
    // driver uses the provider that runs.
    second.kill()?;
    ensure!(additional.socket.exists());
    let third = provider(&main)?;
    node.publish(&volume("demo"))?;
    assert_eq!(third.requests()?.len(), 1);
    Ok(())
}

fn a_driver_that_restarts_finds_the_volume_and_the_provider() -> Result<()> {
    let (node, provider) = driver_and_provider(&ROTATING)?;
    set_secret(&provider, "password", "v1")?;
    class(&node, "demo", &["objectName: password"], "")?;
    let volume = volume("demo");
    let target = node.publish(&volume)?;
    let node = Node::start(node.driver.kill()?)?;
    let value = set_secret(&provider, "password", "v2")?;
    // The kubelet's next call registers the volume again.
    node.publish(&volume)?;
    wait_for("it is refreshed", PATIENCE, || Ok(fs::read_to_string(target.join("password"))? == value))
}

fn azure_can_be_an_external_provider() -> Result<()> {
    let node = driver(&["--azure-provider=external"])?;
    let mut options = options(node.setup(), 1, 8080)?;
    options.socket.set_file_name("azure.sock");
    let provider = provider(&options)?;
    let manifest = class_manifest("default", "demo", Some("azure"), &parameters(&["objectName: foo"], ""));
    node.manifest("demo.yaml", &manifest)?;
    let target = node.publish(&volume("demo"))?;
    assert_eq!(fs::read_to_string(target.join("foo"))?, "secret");
    assert_eq!(provider.requests()?.len(), 1);
    ensure!(node.metrics()?.contains("provider=\"azure\"} 1"));
    // The built-in provider ignores the socket.
    let (builtin, provider) = driver_and_provider(&[])?;
    builtin.manifest("demo.yaml", &manifest)?;
    fs::rename(provider.socket(), provider.socket().with_file_name("azure.sock"))?;
    ensure!(builtin.refused(&volume("demo"))?.message().contains("keyvaultName"));
    Ok(())
}

fn health_is_a_gauge_by_provider() -> Result<()> {
    let (node, provider) = driver_and_provider(&["--provider-health-check", "--provider-health-check-interval=100ms"])?;
    class(&node, "demo", &["objectName: foo"], "")?;
    node.publish(&volume("demo"))?;
    let gauge = |value: &str| -> Result<bool> {
        let metrics = node.metrics()?;
        let line = metrics.lines().find(|line| line.starts_with("provider_healthy{"));
        Ok(line.is_some_and(|line| line.contains(&format!("provider=\"{NAME}\"")) && line.ends_with(value)))
    };
    wait_for("it is healthy", PATIENCE, || gauge(" 1"))?;
    ensure!(provider.version_calls()? > 0 && node.log().contains("reference-provider"), "{}", node.log());
    let again = options(node.setup(), 1, 8080)?;
    provider.kill()?;
    wait_for("it is unhealthy", PATIENCE, || gauge(" 0"))?;
    let _provider = self::provider(&again)?;
    wait_for("it is healthy again", PATIENCE, || gauge(" 1"))?;
    let log = node.log();
    let warnings = log.lines().filter(|line| line.contains("the provider does not answer") && line.starts_with('W'));
    assert_eq!(warnings.count(), 1, "the driver logs a change once");
    node.metrics()?.lines().find(|line| line.starts_with("provider_healthy{")).context("no gauge")?;
    Ok(())
}
