//! The network to Azure: proxies, CA certificates that change, and name servers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use azure_emulator::{Emulator, Options, Permission};
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::json;

use crate::harness::{MOVED, Node, harness};

trials! { "networks":
    azure_is_reached_through_the_proxy_and_the_metadata_service_directly,
    a_new_ca_is_trusted_without_a_restart,
    a_failing_name_server_and_an_unknown_name_have_different_errors,
}

/// A proxy for CONNECT that records the target of each request.
struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let proxy = Proxy { address: listener.local_addr()?, seen: Arc::default() };
        let seen = Arc::clone(&proxy.seen);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                // The client notices a broken connection.
                std::thread::spawn(move || serve(client, &seen));
            }
        });
        Ok(proxy)
    }

    /// Returns the targets of requests since the last call.
    fn hosts(&self) -> Vec<String> {
        let mut hosts = std::mem::take(&mut *self.seen.lock().unwrap());
        hosts.sort();
        hosts.dedup();
        hosts
    }

    fn variables(&self, no_proxy: &str) -> Vec<(String, String)> {
        let url = format!("http://{}", self.address);
        let mut variables: Vec<_> =
            ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "http_proxy"].map(|name| (name.to_owned(), url.clone())).into();
        variables.push(("NO_PROXY".to_owned(), no_proxy.to_owned()));
        variables
    }
}

fn serve(mut client: TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut words = head.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    seen.lock().unwrap().push(target.trim_end_matches(":443").to_owned());
    if method != "CONNECT" {
        return client.write_all(b"HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n").ok();
    }
    let server = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let forward = std::thread::spawn(move || {
        // Either side may close the connection.
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = std::io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Write);
    forward.join().ok()
}

fn azure_is_reached_through_the_proxy_and_the_metadata_service_directly() -> Result<()> {
    let proxy = Proxy::start()?;
    let start = |no_proxy: &str| {
        let mut setup = harness().setup();
        setup.environment = proxy.variables(no_proxy);
        Node::start(setup)
    };
    let (node, vault) = (start("")?, harness().vault());
    vault.set("password");
    let user = "aaaaaaaa-0000-4000-8000-000000000007";
    harness().azure().add_managed_identity(&vault.tenant, user);
    harness().azure().grant(&vault.name, user, &[Permission::Get]);
    let mut managed = vault.parameters(&["password"]);
    managed.insert("useVMManagedIdentity".to_owned(), "true".to_owned());
    managed.insert("userAssignedIdentityID".to_owned(), user.to_owned());
    let classes = |node: &Node| {
        node.class("demo", &vault.parameters(&["password"]))?;
        node.class("managed", &managed)
    };
    classes(&node)?;
    node.publish(&vault.volume("demo"))?;
    assert_eq!(proxy.hosts(), [vault.host(), "login.microsoftonline.com".to_owned()]);
    node.publish(&Volume::of_class("default", "web", "managed"))?;
    ensure!(!proxy.hosts().iter().any(|host| host.contains("169.254")), "the proxy got the metadata service's request");
    let node = start("localhost, .vault.azure.net")?;
    classes(&node)?;
    node.publish(&vault.volume("demo"))?;
    assert_eq!(proxy.hosts(), ["login.microsoftonline.com"], "NO_PROXY is ignored");
    node.publish(&Volume::of_class("default", "web", "managed"))?;
    assert_eq!(proxy.hosts(), [""; 0]);
    Ok(())
}

/// Starts a cloud of its own; with each start its servers get certificates of a new CA.
fn moved(value: &str) -> Result<Emulator> {
    let emulator = Emulator::start(Options {
        listen: SocketAddr::from((MOVED.2, 443)),
        dns_names: vec![format!("*.{}", MOVED.0), MOVED.1.to_owned()],
        ..Options::loopback()
    })?;
    let azure = emulator.azure();
    azure.add_tenant("moved.example");
    azure.add_client("moved.example", CLIENT, &value.replace("value", "client"));
    azure.add_vault("kv-moved", MOVED.0, "moved.example");
    azure.grant("kv-moved", CLIENT, &[Permission::Get]);
    azure.set_secret("kv-moved", "password", value);
    Ok(emulator)
}

const CLIENT: &str = "00000000-0000-4000-9000-00000000aaaa";

fn a_new_ca_is_trusted_without_a_restart() -> Result<()> {
    let value = harness().secret("value");
    let emulator = moved(&value)?;
    let (mut setup, clouds) = harness().setup_with_clouds()?;
    let folder = setup.folder.join("bundles");
    fs::create_dir_all(&folder)?;
    // A link, replaced in one step, as in a volume of a ConfigMap.
    let install = |number: u32, text: &str| -> Result<()> {
        fs::write(folder.join(format!("{number}.pem")), text)?;
        std::os::unix::fs::symlink(format!("{number}.pem"), folder.join("new"))?;
        Ok(fs::rename(folder.join("new"), folder.join("ca.pem"))?)
    };
    install(1, emulator.ca_pem())?;
    setup.ca = folder.join("ca.pem");
    let environment = json!({
        "activeDirectoryEndpoint": format!("https://{}/", MOVED.1),
        "keyVaultDNSSuffix": MOVED.0,
    });
    fs::write(clouds.join("cloud.json"), environment.to_string())?;
    let node = Node::start(setup)?;
    let objects = "array:\n  - |\n    objectName: password\n    objectType: secret\n";
    let parameters: BTreeMap<String, String> = [
        ("keyvaultName", "kv-moved"),
        ("tenantID", "moved.example"),
        ("cloudName", "AzureStackCloud"),
        ("cloudEnvFileName", "cloud.json"),
        ("objects", objects),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    node.class("demo", &parameters)?;
    let secret = value.replace("value", "client");
    harness().secrets.lock().unwrap().push(secret.clone());
    let volume = || Volume::of_class("default", "web", "demo").with_service_principal(CLIENT, &secret);
    node.publish(&volume())?;
    drop(emulator);
    let next = harness().secret("value");
    let emulator = moved(&next)?;
    // The new emulator has neither the old tokens nor the old client secret.
    let secret = next.replace("value", "client");
    harness().secrets.lock().unwrap().push(secret.clone());
    let volume = || Volume::of_class("default", "web", "demo").with_service_principal(CLIENT, &secret);
    let status = node.refused(&volume())?;
    for word in ["unknown authority", "SSL_CERT_FILE", "TlsUntrusted"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    // A bundle that is empty for a moment removes nothing.
    install(2, "")?;
    ensure!(node.refused(&volume())?.message().contains("TlsUntrusted"));
    install(3, emulator.ca_pem())?;
    let target = node.publish(&volume())?;
    assert_eq!(fs::read_to_string(target.join("password"))?, next);
    ensure!(node.log().contains("the CA certificates have changed and were read again"), "{}", node.log());
    Ok(())
}

fn a_failing_name_server_and_an_unknown_name_have_different_errors() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    for (name, words) in [
        ("servfail-vault", ["servfail-vault.vault.azure.net could not be looked up in DNS", "NetworkUnreachable"]),
        ("unknown-vault", ["unknown-vault.vault.azure.net is not known to DNS", "VaultNotFound"]),
    ] {
        let mut parameters = vault.parameters(&["password"]);
        parameters.insert("keyvaultName".to_owned(), name.to_owned());
        node.class("demo", &parameters)?;
        let status = node.refused_within(&vault.volume("demo"), std::time::Duration::from_secs(5))?;
        for word in words {
            ensure!(status.message().contains(word), "{word:?} is missing in: {}", status.message());
        }
    }
    Ok(())
}
