//! The files of an API server: keys, certificates, tokens, the audit policy, and kubeconfigs of its
//! users. Each server has new ones.

use std::fs;
use std::path::Path;

use anyhow::Result;
use kube::Client;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::account::Account;

/// A client with the credentials of a kubeconfig.
pub(super) fn client_of(runtime: &Runtime, kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    runtime.block_on(async {
        let config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    })
}

pub(super) fn kubeconfig(folder: &Path, port: u16, user: &str) -> Result<String> {
    let ca = folder.join("ca.crt");
    Ok(json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{ "name": "it", "cluster": { "server": format!("https://127.0.0.1:{port}"), "certificate-authority": ca } }],
        "users": [{ "name": "it", "user": { "token": token(user) } }],
        "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
    })
    .to_string())
}

fn token(user: &str) -> String {
    format!("token-of-{user}")
}

/// Keys, certificates, tokens and the audit policy.
pub(super) fn write_files(folder: &Path, accounts: &[Account]) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "it CA");
    let ca = params.self_signed(&key)?;
    fs::write(folder.join("ca.crt"), ca.pem())?;
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = KeyPair::generate()?;
    fs::write(folder.join("server.crt"), params.signed_by(&server, &issuer)?.pem())?;
    fs::write(folder.join("server.key"), server.serialize_pem())?;
    let service_accounts = KeyPair::generate()?;
    fs::write(folder.join("sa.key"), service_accounts.serialize_pem())?;
    fs::write(folder.join("sa.pub"), service_accounts.public_key_pem())?;
    let mut tokens = format!("{},admin,admin,\"system:masters\"\n", token("admin"));
    for Account { name, group } in accounts {
        tokens += &format!("{},{name},{name},\"{group}\"\n", token(name));
    }
    fs::write(folder.join("tokens.csv"), tokens)?;
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "rules": [
            { "level": "None", "users": ["admin"] },
            { "level": "Metadata", "resources": [
                { "group": "secrets-store.csi.x-k8s.io" }, { "group": "", "resources": ["events", "nodes", "pods", "secrets"] },
            ] },
            { "level": "None" },
        ],
    });
    Ok(fs::write(folder.join("audit.yaml"), policy.to_string())?)
}
