//! Logging in with everything but a client secret: certificates, AD FS, the node's own identity.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Kind, Permission};
use keyvault_csi_e2e::kubelet::Volume;

use crate::harness::{Node, STACK, Vault, harness, stack_file};

trials! { "identities":
    a_service_principal_logs_in_with_a_certificate,
    a_certificate_that_the_application_does_not_have_is_reported,
    an_expired_certificate_is_reported,
    a_damaged_key_is_reported_wherever_the_damage_is,
    an_application_of_adfs_logs_in,
    the_nodes_own_identity_works_whatever_other_programs_endpoints_say,
    pod_identity_is_refused_with_its_replacement,
}

/// A certificate with its key, created by openssl.
struct CertifiedKey {
    folder: tempfile::TempDir,
}

impl CertifiedKey {
    fn new(options: &str) -> Result<CertifiedKey> {
        let certified = CertifiedKey { folder: tempfile::tempdir()? };
        certified
            .openssl(&format!("req -x509 -newkey rsa:2048 -nodes -subj /CN=app -keyout key -out cert {options}"))?;
        Ok(certified)
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

/// A pod's volume with these keys in its nodePublishSecretRef.
fn volume(vault: &Vault, keys: &[(&str, &str)]) -> Volume {
    let mut volume = Volume::of_class("default", "web", "demo");
    volume.secrets.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    volume.secrets.insert("clientid".to_owned(), vault.client_id.clone());
    volume
}

fn a_service_principal_logs_in_with_a_certificate() -> Result<()> {
    let (node, vault, value) = ready()?;
    let certified = CertifiedKey::new("-days 30")?;
    harness().azure().add_client_certificate(&vault.tenant, &vault.client_id, &certified.der()?);
    let (key, certificate) = (certified.read("key")?, certified.read("cert")?);
    harness().secrets.lock().unwrap().push(key.lines().nth(3).context("a key")?.to_owned());
    let archive = certified
        .openssl("pkcs12 -export -inkey key -in cert -passout pass:geheim -out archive")
        .and_then(|_| certified.openssl("base64 -in archive").and_then(|text| Ok(String::from_utf8(text)?)))?;
    for keys in [
        &[("clientcertificate", &*format!("{certificate}{key}"))][..],
        &[("tls.crt", &*certificate), ("tls.key", &*key)],
        &[("ClientCertificate", &*archive), ("clientCertificatePassword", "geheim")],
    ] {
        let volume = volume(&vault, keys);
        let target = node.publish(&volume).map_err(|status| anyhow::anyhow!("{}: {status}", keys[0].0))?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    assert_eq!(vault.entra().get(Kind::Token), 1, "the three forms are one identity");
    // A Secret with both is ambiguous.
    let status = node.refused(&volume(&vault, &[("clientsecret", "s"), ("clientcertificate", &archive)]))?;
    for word in ["clientsecret", "clientcertificate", "CredentialsMissing"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

fn a_certificate_that_the_application_does_not_have_is_reported() -> Result<()> {
    let (node, vault, _) = ready()?;
    let certified = CertifiedKey::new("-days 30")?;
    let pem = certified.read("cert")? + &certified.read("key")?;
    let status = node.refused(&volume(&vault, &[("clientcertificate", &pem)]))?;
    for word in ["AADSTS700027", "add the certificate to the application", "CredentialsRejected"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

fn an_expired_certificate_is_reported() -> Result<()> {
    let (node, vault, _) = ready()?;
    let certified = CertifiedKey::new("-not_before 20200101000000Z -not_after 20210101000000Z").or_else(|_| {
        // Before OpenSSL 3.4, only `ca`, and `x509` with a negative
        // number of days, can create an expired one.
        let certified = CertifiedKey::new("-days 30")?;
        certified.openssl("req -new -key key -subj /CN=app -out request")?;
        certified.openssl("x509 -req -in request -key key -days -1 -out cert")?;
        Ok::<_, anyhow::Error>(certified)
    })?;
    harness().azure().add_client_certificate(&vault.tenant, &vault.client_id, &certified.der()?);
    let pem = certified.read("cert")? + &certified.read("key")?;
    let status = node.refused(&volume(&vault, &[("clientcertificate", &pem)]))?;
    for word in ["AADSTS700027", "expired on 20", "renew it", "CredentialsRejected"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

/// Some damage is found when the key is parsed, some when its numbers are checked,
/// and some only in a signature.
fn a_damaged_key_is_reported_wherever_the_damage_is() -> Result<()> {
    const BYTES: usize = 47;
    let (node, vault, _) = ready()?;
    let certified = CertifiedKey::new("-days 30")?;
    harness().azure().add_client_certificate(&vault.tenant, &vault.client_id, &certified.der()?);
    let (certificate, der) =
        (certified.read("cert")?, certified.openssl("pkcs8 -topk8 -nocrypt -in key -outform DER")?);
    let mut causes = [false; 2];
    for at in (0..der.len()).step_by(BYTES) {
        let mut damaged = der.clone();
        damaged[at] ^= 0x10;
        fs::write(certified.folder.path().join("damaged"), &damaged)?;
        let body = String::from_utf8(certified.openssl("base64 -in damaged")?)?;
        let key = format!("-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n");
        let volume = volume(&vault, &[("clientcertificate", &(certificate.clone() + &key))]);
        match node.publish(&volume) {
            // The private exponent is not used if the other numbers are present.
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
    let (node, vault) = (Node::start(setup)?, harness().vault_in_tenant(STACK.0, Some("adfs")));
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
    let certified = CertifiedKey::new("-days 30")?;
    harness().azure().add_client_certificate("adfs", &vault.client_id, &certified.der()?);
    let pem = certified.read("cert")? + &certified.read("key")?;
    node.publish(&volume(&vault, &[("clientcertificate", &pem)]))?;
    let wrong = harness().secret("wrong");
    let status = node.refused(&volume(&vault, &[("clientsecret", &wrong)]))?;
    for word in ["MSIS9622", "AD FS", "clientsecret", "CredentialsRejected"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
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
    assert_eq!(vault.entra().get(Kind::Token), 0, "the driver sent a request to Entra ID");
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
    ensure!(began.elapsed() < Duration::from_secs(5) && vault.counters().total() == 0, "the driver sent requests");
    Ok(())
}
