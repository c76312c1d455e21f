//! Logging in with everything but a client secret: certificates, AD FS, identity bindings, the node's own identity.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Issuer, Kind, Permission, TokenProxyOptions};
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::json;

use crate::harness::{Node, STACK, Vault, harness, stack_file};
use crate::matrix;

trials! { "identities":
    a_service_principal_logs_in_with_a_certificate,
    a_certificate_that_the_application_does_not_know_is_told,
    a_certificate_that_has_ended_is_told,
    a_damaged_key_is_told_wherever_it_is_damaged,
    an_application_of_adfs_logs_in,
    an_identity_binding_works_as_soon_as_the_cluster_does,
    an_identity_binding_and_workload_identity_share_nothing,
    the_nodes_own_identity_works_whatever_other_programs_endpoints_say,
    pod_identity_is_refused_with_its_replacement,
}

/// A certificate with its key, made by openssl.
struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    fn new(options: &str) -> Result<Made> {
        let made = Made { folder: tempfile::tempdir()? };
        made.openssl(&format!("req -x509 -newkey rsa:2048 -nodes -subj /CN=app -keyout key -out cert {options}"))?;
        Ok(made)
    }

    fn openssl(&self, arguments: &str) -> Result<Vec<u8>> {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.folder).output()?;
        ensure!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join(name))?)
    }

    fn der(&self) -> Result<Vec<u8>> {
        self.openssl("x509 -in cert -outform DER")
    }
}

fn ready() -> Result<(Node, Vault, String)> {
    let (node, vault) = (harness().node()?, harness().vault());
    let value = vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    Ok((node, vault, value))
}

/// A pod's volume with these keys in the Secret of nodePublishSecretRef.
fn volume(vault: &Vault, keys: &[(&str, &str)]) -> Volume {
    let mut volume = Volume::of_class("default", "web", "demo");
    volume.secrets.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    volume.secrets.insert("clientid".to_owned(), vault.client_id.clone());
    volume
}

fn a_service_principal_logs_in_with_a_certificate() -> Result<()> {
    let (node, vault, value) = ready()?;
    let made = Made::new("-days 30")?;
    harness().azure().add_client_certificate(&vault.tenant, &vault.client_id, &made.der()?);
    let (key, certificate) = (made.read("key")?, made.read("cert")?);
    harness().secrets.lock().unwrap().push(key.lines().nth(3).context("a key")?.to_owned());
    let archive = made
        .openssl("pkcs12 -export -inkey key -in cert -passout pass:geheim -out archive")
        .and_then(|_| made.openssl("base64 -in archive").and_then(|text| Ok(String::from_utf8(text)?)))?;
    for keys in [
        &[("clientcertificate", &*format!("{certificate}{key}"))][..],
        &[("tls.crt", &*certificate), ("tls.key", &*key)],
        &[("ClientCertificate", &*archive), ("clientCertificatePassword", "geheim")],
    ] {
        let volume = volume(&vault, keys);
        let target = node.publish(&volume).map_err(|status| anyhow::anyhow!("{}: {status}", keys[0].0))?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    assert_eq!(vault.entra().get(Kind::Token), 1, "three forms of one identity");
    // Both at once could mean either.
    let status = node.refused(&volume(&vault, &[("clientsecret", "s"), ("clientcertificate", &archive)]))?;
    for word in ["clientsecret", "clientcertificate", "CredentialsMissing"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

fn a_certificate_that_the_application_does_not_know_is_told() -> Result<()> {
    let (node, vault, _) = ready()?;
    let made = Made::new("-days 30")?;
    let pem = made.read("cert")? + &made.read("key")?;
    let status = node.refused(&volume(&vault, &[("clientcertificate", &pem)]))?;
    for word in ["AADSTS700027", "add the certificate to the application", "CredentialsRejected"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

fn a_certificate_that_has_ended_is_told() -> Result<()> {
    let (node, vault, _) = ready()?;
    let made = Made::new("-not_before 20200101000000Z -not_after 20210101000000Z").or_else(|_| {
        // Before OpenSSL 3.4, only `ca` and `x509` with a negative number of days can make one.
        let made = Made::new("-days 30")?;
        made.openssl("req -new -key key -subj /CN=app -out request")?;
        made.openssl("x509 -req -in request -key key -days -1 -out cert")?;
        Ok::<_, anyhow::Error>(made)
    })?;
    harness().azure().add_client_certificate(&vault.tenant, &vault.client_id, &made.der()?);
    let pem = made.read("cert")? + &made.read("key")?;
    let status = node.refused(&volume(&vault, &[("clientcertificate", &pem)]))?;
    for word in ["AADSTS700027", "expired on 20", "renew it", "CredentialsRejected"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

/// Some damage shows when the key is read, some when its numbers are compared, and some only in what it signs.
fn a_damaged_key_is_told_wherever_it_is_damaged() -> Result<()> {
    const BYTES: usize = 47;
    let (node, vault, _) = ready()?;
    let made = Made::new("-days 30")?;
    harness().azure().add_client_certificate(&vault.tenant, &vault.client_id, &made.der()?);
    let (certificate, der) = (made.read("cert")?, made.openssl("pkcs8 -topk8 -nocrypt -in key -outform DER")?);
    let mut causes = [false; 2];
    for at in (0..der.len()).step_by(BYTES) {
        let mut damaged = der.clone();
        damaged[at] ^= 0x10;
        fs::write(made.folder.path().join("damaged"), &damaged)?;
        let body = String::from_utf8(made.openssl("base64 -in damaged")?)?;
        let key = format!("-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n");
        let volume = volume(&vault, &[("clientcertificate", &(certificate.clone() + &key))]);
        match node.publish(&volume) {
            // The private exponent is not used where the others are.
            Ok(_) => node.kubelet.unpublish(&volume)?,
            Err(status) => {
                let text = status.message();
                ensure!(text.contains("(CredentialsRejected)"), "byte {at}: {text}");
                ensure!(!text.contains("fault of this program"), "byte {at}: {text}");
                causes[0] |= text.contains("numbers do not make an RSA key");
                causes[1] |= text.contains("what it signs does not fit");
            }
        }
    }
    assert_eq!(causes, [true; 2], "not every kind of damage was seen");
    Ok(())
}

fn an_application_of_adfs_logs_in() -> Result<()> {
    let (setup, clouds) = harness().setup_with_clouds()?;
    let (node, vault) = (Node::start(setup)?, harness().vault_of(STACK.0, Some("adfs")));
    let value = vault.set("password");
    fs::write(clouds.join("cloud.json"), stack_file("adfs"))?;
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("cloudName".to_owned(), "AzureStackCloud".to_owned());
    parameters.insert("cloudEnvFileName".to_owned(), "cloud.json".to_owned());
    for tenant in ["adfs", "ADFS"] {
        parameters.insert("tenantID".to_owned(), tenant.to_owned());
        node.class("demo", &parameters)?;
        let target = node.publish(&vault.volume("demo"))?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    let made = Made::new("-days 30")?;
    harness().azure().add_client_certificate("adfs", &vault.client_id, &made.der()?);
    let pem = made.read("cert")? + &made.read("key")?;
    node.publish(&volume(&vault, &[("clientcertificate", &pem)]))?;
    let wrong = harness().secret("wrong");
    let status = node.refused(&volume(&vault, &[("clientsecret", &wrong)]))?;
    for word in ["MSIS9622", "AD FS", "clientsecret", "CredentialsRejected"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

const WORKLOAD: &str = "api://AzureADTokenExchange";
const BINDING: &str = "api://AKSIdentityBinding";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
const SUBJECT: &str = "system:serviceaccount:default:default";

/// A pod's volume with tokens for both audiences.
fn pod(issuer: &Issuer, class: &str) -> Volume {
    let token = |audience: &str| {
        let token = issuer.token(SUBJECT, audience, Duration::from_secs(3600), json!({}));
        harness().secrets.lock().unwrap().push(token.clone());
        json!({"token": token, "expirationTimestamp": "2030-01-01T00:00:00Z"})
    };
    let tokens = json!({WORKLOAD: token(WORKLOAD), BINDING: token(BINDING)}).to_string();
    let mut volume = Volume::of_class("default", "web", class);
    volume.attributes.insert(TOKENS.to_owned(), tokens);
    volume
}

/// A vault that one identity may read through a cluster's token proxy, with the class `bound`.
fn bound(node: &Node) -> Result<(Vault, Issuer, String)> {
    let vault = harness().vault();
    vault.set("password");
    let issuer_url = format!("https://issuer.{}/", vault.tenant);
    let issuer = harness().azure().add_issuer(&issuer_url);
    let client = format!("{}f", &vault.client_id[..vault.client_id.len() - 1]);
    harness().azure().add_identity_binding(&vault.tenant, &client, &issuer_url, SUBJECT);
    harness().azure().grant(&vault.name, &client, &[Permission::Get]);
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("clientID".to_owned(), client.clone());
    parameters.insert("useAzureTokenProxy".to_owned(), "true".to_owned());
    node.class("bound", &parameters)?;
    Ok((vault, issuer, client))
}

/// Where a test has its cluster's API server: another address each time that `matrix` makes it, since the servers stay.
fn api_server(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 2, if matrix::is_by_socket() { 100 + number } else { number })
}

fn an_identity_binding_works_as_soon_as_the_cluster_does() -> Result<()> {
    let options = TokenProxyOptions {
        listen: (api_server(1), 6443).into(),
        cluster_id: "abc123def456".to_owned(),
        path: "/base".to_owned(),
    };
    let mut setup = harness().setup();
    let authority = setup.folder.join("ca.crt");
    setup.flags.extend([
        "--token-proxy-url=https://kubernetes.default.svc.cluster.local:6443/base".to_owned(),
        format!("--token-proxy-ca-file={}", authority.display()),
    ]);
    setup.environment =
        [("KUBERNETES_SERVICE_HOST", api_server(1).to_string()), ("KUBERNETES_SERVICE_PORT", "6443".to_owned())]
            .map(|(key, value)| (key.to_owned(), value))
            .into();
    let node = Node::start(setup)?;
    let (vault, issuer, _) = bound(&node)?;
    // The driver starts without any of it, and each failure is of that publish only.
    let status = node.refused(&pod(&issuer, "bound"))?;
    for word in ["token proxy", "ca.crt", "--sni-name", "IdentityUnavailable"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    fs::write(&authority, "-----BEGIN")?;
    ensure!(node.refused(&pod(&issuer, "bound"))?.message().contains("holds no CA certificate"));
    let proxy = harness().token_proxy(&options)?;
    fs::write(&authority, proxy.ca_pem())?;
    node.publish(&pod(&issuer, "bound"))?;
    assert_eq!(vault.entra().get(Kind::Token), 0, "Entra ID was asked past the proxy");
    ensure!(node.log().contains(proxy.sni()), "the name that was found is logged");
    // The service account of another pod has no binding.
    harness()
        .azure()
        .remove_federated_credentials(&vault.tenant, &format!("{}f", &vault.client_id[..vault.client_id.len() - 1]));
    harness().azure().revoke_tokens(&format!("{}f", &vault.client_id[..vault.client_id.len() - 1]));
    let mut pod = pod(&issuer, "bound");
    pod.pod = "another".to_owned();
    harness().azure().set_secret(&vault.name, "second", &harness().secret("second"));
    let mut parameters = vault.parameters(&["second"]);
    parameters.insert("clientID".to_owned(), format!("{}f", &vault.client_id[..vault.client_id.len() - 1]));
    parameters.insert("useAzureTokenProxy".to_owned(), "true".to_owned());
    node.class("bound", &parameters)?;
    let status = node.refused(&pod)?;
    for word in ["AADSTS70025", "CredentialsRejected"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

fn an_identity_binding_and_workload_identity_share_nothing() -> Result<()> {
    let options = TokenProxyOptions {
        listen: (api_server(2), 6443).into(),
        cluster_id: "696995ccb303450001b31a18".to_owned(),
        path: "/".to_owned(),
    };
    let proxy = harness().token_proxy(&options)?;
    let mut setup = harness().setup();
    let authority = setup.folder.join("ca.crt");
    fs::create_dir_all(&setup.folder)?;
    fs::write(&authority, proxy.ca_pem())?;
    // By address, and under a name that is given: nothing is asked of the API server.
    setup.flags.extend([
        format!("--token-proxy-url=https://{}:6443", api_server(2)),
        "--sni-name=aeaf29ip1hi5q38ebc3u4daum81u0unk52t5bg50j25234fmuj78g.ests.aks".to_owned(),
        format!("--token-proxy-ca-file={}", authority.display()),
    ]);
    let node = Node::start(setup)?;
    let (vault, issuer, client) = bound(&node)?;
    node.publish(&pod(&issuer, "bound"))?;
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("clientID".to_owned(), client.clone());
    node.class("plain", &parameters)?;
    // The same client and service account, but Entra ID itself knows no federated credential of it.
    let status = node.refused(&pod(&issuer, "plain"))?;
    ensure!(status.message().contains("AADSTS70025"), "it was given the binding's token: {status}");
    let issuer_url = issuer.url().to_owned();
    harness().azure().add_federated_credential(&vault.tenant, &client, &issuer_url, SUBJECT, WORKLOAD);
    node.publish(&pod(&issuer, "plain"))?;
    ensure!(vault.entra().get(Kind::Token) >= 2, "the plain identity has a token of its own");
    Ok(())
}

fn the_nodes_own_identity_works_whatever_other_programs_endpoints_say() -> Result<()> {
    let mut setup = harness().setup();
    setup.environment = [
        ("IDENTITY_ENDPOINT", "http://127.0.0.1:9/token"),
        ("IDENTITY_HEADER", "x"),
        ("MSI_ENDPOINT", "http://127.0.0.1:9/token"),
        ("IMDS_ENDPOINT", "http://127.0.0.1:9"),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let (node, vault) = (Node::start(setup)?, harness().vault());
    let value = vault.set("password");
    let system = "bbbbbbbb-0000-4000-8000-000000000001";
    harness().azure().add_system_identity(&vault.tenant, system);
    harness().azure().grant(&vault.name, system, &[Permission::Get]);
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("useVMManagedIdentity".to_owned(), "true".to_owned());
    node.class("demo", &parameters)?;
    let target = node.publish(&Volume::of_class("default", "web", "demo"))?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    assert_eq!(vault.entra().get(Kind::Token), 0, "Entra ID is not asked");
    Ok(())
}

fn pod_identity_is_refused_with_its_replacement() -> Result<()> {
    let (node, vault, _) = ready()?;
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("usePodIdentity".to_owned(), "true".to_owned());
    node.class("demo", &parameters)?;
    let began = Instant::now();
    let status = node.refused(&vault.volume("demo"))?;
    for word in ["usePodIdentity", "retired", "workload identity", "clientID", "ClassInvalid"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    ensure!(began.elapsed() < Duration::from_secs(5) && vault.counters().total() == 0, "something was asked");
    Ok(())
}
