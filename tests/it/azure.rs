//! Responses of Azure and what a publish makes of them: faults, refusals, clouds.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Access, Action, Fault, Kind, Permission};
use tonic::Code;

use crate::harness::{Node, STACK, Vault, harness, stack_file};

trials! { "azure":
    refusals_of_entra_reach_the_pods_event,
    refusals_of_the_vault_name_object_and_fix,
    a_vault_that_does_not_exist_is_named,
    transient_faults_only_cost_time,
    persistent_faults_are_reported_with_their_cause,
    a_hang_times_out_before_the_kubelet_does,
    a_retry_after_beyond_the_deadline_fails_at_once,
    bodies_never_reach_an_error,
    an_invalid_response_is_not_written,
    a_value_in_the_wrong_encoding_is_reported,
    objects_are_fetched_concurrently_up_to_a_limit,
    sovereign_and_custom_clouds_work,
    a_users_own_class_works_verbatim,
}

fn ready() -> Result<(Node, Vault)> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    Ok((node, vault))
}

fn refused_with(node: &Node, vault: &Vault, words: &[&str]) -> Result<()> {
    let status = node.refused_within(&vault.volume("demo"), Duration::from_secs(30))?;
    ensure!(status.code() == Code::Unknown, "{:?}: {}", status.code(), status.message());
    ensure!(status.message().contains("default/demo"), "the class is missing in: {}", status.message());
    for word in words {
        ensure!(status.message().contains(word), "{word:?} is missing in: {}", status.message());
    }
    Ok(())
}

fn refusals_of_entra_reach_the_pods_event() -> Result<()> {
    let (node, vault) = ready()?;
    let mut wrong = vault.clone();
    wrong.client_secret = harness().secret("wrong");
    refused_with(&node, &wrong, &["AADSTS7000215", "clientsecret", "CredentialsRejected"])?;
    wrong = vault.clone();
    wrong.client_id = "99999999-0000-4000-9000-000000000000".to_owned();
    refused_with(&node, &wrong, &["AADSTS700016", "CredentialsRejected"])?;
    harness().azure().expire_client_secret(&vault.tenant, &vault.client_id);
    refused_with(&node, &vault, &["AADSTS7000222", "CredentialsRejected"])?;
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("tenantID".to_owned(), "no-such-tenant.example".to_owned());
    node.class("demo", &parameters)?;
    refused_with(&node, &vault, &["AADSTS90002", "TenantNotFound"])
}

fn refusals_of_the_vault_name_object_and_fix() -> Result<()> {
    let (node, vault) = ready()?;
    let azure = harness().azure();
    let host = vault.host();
    let version = azure.set_secret(&vault.name, "disabled", &harness().secret("disabled"));
    azure.disable_secret(&vault.name, "disabled", &version);
    for (object, words) in [
        ("missing", &["secret/missing", "404", "SecretNotFound", "ObjectNotFound", &host][..]),
        ("disabled", &["secret/disabled", "ObjectDisabled", &host]),
    ] {
        node.class("demo", &vault.parameters(&[object]))?;
        refused_with(&node, &vault, words)?;
    }
    azure.revoke_grant(&vault.name, &vault.client_id, &[Permission::Get]);
    node.class("demo", &vault.parameters(&["password"]))?;
    refused_with(&node, &vault, &["secret/password", "403", "Forbidden", &vault.client_id, "access policy", &host])?;
    azure.set_access(&vault.name, Access::Rbac);
    refused_with(
        &node,
        &vault,
        &["secret/password", "403", "Forbidden", &vault.client_id, "Key Vault Secrets User", &host],
    )
}

fn a_vault_that_does_not_exist_is_named() -> Result<()> {
    let (node, vault) = ready()?;
    // The hosts file has this name, but its host is not a Key Vault.
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("keyvaultName".to_owned(), "kv-199".to_owned());
    node.class("demo", &parameters)?;
    refused_with(&node, &vault, &["kv-199.vault.azure.net"])?;
    // NXDOMAIN, as from Azure's name servers, is not retried.
    parameters.insert("keyvaultName".to_owned(), "no-such-vault".to_owned());
    node.class("demo", &parameters)?;
    let began = Instant::now();
    refused_with(&node, &vault, &["no-such-vault.vault.azure.net", "keyvaultName", "VaultNotFound"])?;
    ensure!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    Ok(())
}

fn transient_faults_only_cost_time() -> Result<()> {
    let (node, vault) = ready()?;
    for (kind, action) in [
        (Kind::Get, Action::status(503)),
        (Kind::Get, Action::status_retry_after(429, 1)),
        (Kind::Get, Action::Cut),
        (Kind::Get, Action::Truncate),
        (Kind::Token, Action::status(500)),
        (Kind::Token, Action::Cut),
    ] {
        let host = if kind == Kind::Token { &vault.tenant } else { &vault.name };
        harness().azure().add_fault(Fault::new(action.clone()).host(host).kind(kind).times(1));
        let volume = vault.volume("demo");
        let target = node.publish(&volume).map_err(|status| anyhow::anyhow!("{action:?}: {}", status.message()))?;
        ensure!(target.join("password").exists());
        node.kubelet.unpublish(&volume)?;
    }
    Ok(())
}

fn persistent_faults_are_reported_with_their_cause() -> Result<()> {
    for (kind, action, words) in [
        (Kind::Get, Action::status(503), &["503", "VaultUnavailable"][..]),
        (Kind::Get, Action::status_retry_after(429, 1), &["429", "Throttled"]),
        (Kind::Token, Action::status(500), &["500", "login.microsoftonline.com", "IdentityUnavailable"]),
        (Kind::Get, Action::Cut, &["kv-"]),
    ] {
        let (node, vault) = ready()?;
        let host = if kind == Kind::Token { &vault.tenant } else { &vault.name };
        harness().azure().add_fault(Fault::new(action).host(host).kind(kind));
        let began = Instant::now();
        let status = node.refused_within(&vault.volume("demo"), Duration::from_secs(4))?;
        ensure!(began.elapsed() < Duration::from_secs(4), "the caller's deadline passed first");
        ensure!(status.code() == Code::Unknown, "{status}");
        for word in words {
            ensure!(status.message().contains(word), "{word:?} is missing in: {}", status.message());
        }
    }
    Ok(())
}

fn a_hang_times_out_before_the_kubelet_does() -> Result<()> {
    let (node, vault) = ready()?;
    harness().azure().add_fault(Fault::new(Action::Hang).host(&vault.name).kind(Kind::Get));
    let began = Instant::now();
    let status = node.refused_within(&vault.volume("demo"), Duration::from_secs(3))?;
    ensure!(began.elapsed() < Duration::from_secs(3), "the caller's deadline passed first");
    for word in [vault.host().as_str(), "Timeout"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {}", status.message());
    }
    // An attempt times out after ten seconds, and the next one succeeds: the pod waits for ten
    // seconds, not for 120.
    harness().azure().clear_faults(&vault.name);
    harness().azure().add_fault(Fault::new(Action::Hang).host(&vault.name).kind(Kind::Get).times(1));
    let began = Instant::now();
    node.publish(&vault.volume("demo"))?;
    let waited = began.elapsed();
    ensure!((10..20).contains(&waited.as_secs()), "it took {waited:?}");
    Ok(())
}

fn a_retry_after_beyond_the_deadline_fails_at_once() -> Result<()> {
    let (node, vault) = ready()?;
    harness().azure().add_fault(Fault::new(Action::status_retry_after(429, 300)).host(&vault.name).kind(Kind::Get));
    let began = Instant::now();
    let status = node.refused(&vault.volume("demo"))?;
    ensure!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    for word in ["429", "300", "Throttled"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {}", status.message());
    }
    Ok(())
}

fn bodies_never_reach_an_error() -> Result<()> {
    let (node, vault) = ready()?;
    for (status, content_type) in
        [(200, "text/html"), (400, "application/json"), (403, "text/plain"), (500, "text/html")]
    {
        let hidden = harness().secret("body");
        let body = format!("{{\"error\":{{\"code\":\"Odd {hidden}\",\"message\":\"{hidden}\"}}}} {hidden}");
        harness().azure().clear_faults(&vault.name);
        let action = Action::Body { status, content_type: content_type.to_owned(), body };
        harness().azure().add_fault(Fault::new(action).host(&vault.name).kind(Kind::Get));
        let refused = node.refused_within(&vault.volume("demo"), Duration::from_secs(3))?;
        ensure!(!refused.message().contains(&hidden), "{refused}");
        ensure!(!node.log().contains(&hidden), "the log has it");
    }
    Ok(())
}

fn an_invalid_response_is_not_written() -> Result<()> {
    let (node, vault) = ready()?;
    for action in [
        Action::ContentType { content_type: "text/html".to_owned() },
        Action::HugeBody { bytes: 64 << 20 },
        Action::Redirect { status: 307, url: "https://kv-198.vault.azure.net/secrets/password".to_owned() },
    ] {
        harness().azure().clear_faults(&vault.name);
        harness().azure().add_fault(Fault::new(action).host(&vault.name).kind(Kind::Get));
        node.refused_within(&vault.volume("demo"), Duration::from_secs(3))?;
    }
    assert_eq!(harness().azure().counters("kv-198").total(), 0, "a redirect was followed");
    Ok(())
}

fn a_value_in_the_wrong_encoding_is_reported() -> Result<()> {
    let (node, vault) = ready()?;
    let value = vault.set("not-base64");
    let objects = "array:\n- |\n  objectName: not-base64\n  objectType: secret\n  objectEncoding: base64\n";
    node.class("demo", &vault.parameters_of(objects))?;
    refused_with(&node, &vault, &["not-base64", "base64", "ObjectInvalid"])?;
    ensure!(!node.log().contains(&value));
    Ok(())
}

fn objects_are_fetched_concurrently_up_to_a_limit() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let names: Vec<String> = (0..40).map(|number| format!("object-{number}")).collect();
    for name in &names {
        vault.set(name);
    }
    node.class("demo", &vault.parameters(&names.iter().map(String::as_str).collect::<Vec<_>>()))?;
    harness()
        .azure()
        .add_fault(Fault::new(Action::latency(Duration::from_millis(100))).host(&vault.name).kind(Kind::Get));
    node.publish(&vault.volume("demo"))?;
    let most = harness().azure().max_in_flight(&vault.name);
    // Without a limit 40, in sequence 1.
    // A busy machine may not open all sixteen connections in time.
    ensure!((8..=16).contains(&most), "{most} requests were in flight");
    Ok(())
}

fn sovereign_and_custom_clouds_work() -> Result<()> {
    let (setup, clouds) = harness().setup_with_clouds()?;
    let node = Node::start(setup)?;
    let government = harness().vault_in_cloud("vault.usgovcloudapi.net");
    let value = government.set("password");
    let mut parameters = government.parameters(&["password"]);
    parameters.insert("cloudName".to_owned(), "azureusgovernmentcloud".to_owned());
    node.class("demo", &parameters)?;
    let target = node.publish(&government.volume("demo"))?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);

    let stack = harness().vault_in_cloud(STACK.0);
    let value = stack.set("password");
    fs::write(clouds.join("cloud.json"), stack_file(""))?;
    let mut parameters = stack.parameters(&["password"]);
    parameters.insert("cloudName".to_owned(), "AzureStackCloud".to_owned());
    parameters.insert("cloudEnvFileName".to_owned(), "cloud.json".to_owned());
    node.class("demo", &parameters)?;
    let target = node.publish(&stack.volume("demo"))?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    // The provider reads the file at each mount,
    // and the next class without one does not inherit it.
    fs::write(clouds.join("cloud.json"), "{}")?;
    let status = node.refused(&stack.volume("demo"))?;
    ensure!(status.message().contains("activeDirectoryEndpoint"), "{status}");
    parameters.remove("cloudEnvFileName");
    node.class("demo", &parameters)?;
    let status = node.refused(&stack.volume("demo"))?;
    ensure!(status.message().contains("AZURE_ENVIRONMENT_FILEPATH"), "{status}");
    Ok(())
}

fn a_users_own_class_works_verbatim() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let value = vault.set("DemoSecret");
    // A user's own file; only the placeholders in angle brackets are replaced.
    let seed = include_str!("fixtures/seeds/003-secretproviderclass.yaml");
    let filled = seed.replace("<key-vault-name>", &vault.name).replace("<tenant-Id>", &vault.tenant);
    node.manifest("003.yaml", &filled)?;
    let pod: Vec<serde_json::Value> = serde_saphyr::from_multiple(include_str!("fixtures/seeds/003-pod.yaml"))?;
    let csi = &pod[0]["spec"]["volumes"][0]["csi"];
    assert_eq!(csi["driver"], "secrets-store.csi.k8s.io");
    ensure!(csi["nodePublishSecretRef"]["name"].is_string(), "{csi}");
    let mut volume = vault.volume("");
    volume.pod = pod[0]["metadata"]["name"].as_str().context("a name")?.to_owned();
    volume.name = pod[0]["spec"]["volumes"][0]["name"].as_str().context("a name")?.to_owned();
    volume.attributes = serde_json::from_value(csi["volumeAttributes"].clone())?;
    volume.read_only = csi["readOnly"].as_bool().unwrap_or_default();
    let target = node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("DemoSecret"))?, value);
    Ok(())
}
