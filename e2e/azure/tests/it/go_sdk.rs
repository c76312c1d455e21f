//! Microsoft's SDK for Go against the emulator: a client that shares no code with it.
//!
//! `e2e/azure/tests/go` logs in by each way, reads a whole vault, and reports what the SDK
//! returned. Everything is judged here, against what was put into the vaults.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use azure_emulator::{
    Azure, CertificateMaterial, Emulator, Jwk, Kind, ObjectAttributes, ObjectKind, Options, Permission,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{CLIENT, SECRET, TENANT, VAULT};
use crate::material::Material;

const WORKLOAD: &str = "44444444-aaaa-4bbb-8ccc-000000000004";
const MACHINE: &str = "77777777-aaaa-4bbb-8ccc-000000000007";
const USER: &str = "88888888-aaaa-4bbb-8ccc-000000000008";
const ISSUER: &str = "https://oidc.example/cluster/";
const SUBJECT: &str = "system:serviceaccount:shop:web";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const PUBLIC: &str = "https://first-vault.vault.azure.net";
const GOVERNMENT: &str = "https://login.microsoftonline.us/";
const STACK: &str = "https://login.stack.test/";
const GOVERNMENT_VAULT: &str = "https://gov-vault.vault.usgovcloudapi.net";
const STACK_VAULT: &str = "https://stack-vault.vault.stack.test";
const ADFS_VAULT: &str = "https://adfs-vault.vault.stack.test";
const PASSWORD: &str = "ffffffffffffffffffffffffffffffff";
const PAGE: usize = 3;

/// By name and version.
type Objects = BTreeMap<String, BTreeMap<String, Value>>;

/// The emulator with one tenant, whose vaults have the secret `password`.
struct World {
    emulator: Emulator,
    azure: Azure,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let imds = Some("127.0.0.1:0".parse().unwrap());
        let dns_names = ["login.stack.test", "*.vault.stack.test"].map(str::to_owned).to_vec();
        let emulator = Emulator::start(Options { imds, dns_names, ..Options::loopback() }).unwrap();
        let (azure, folder) = (emulator.azure(), tempfile::tempdir().unwrap());
        for tenant in [TENANT, "adfs"] {
            azure.add_tenant(tenant);
            azure.add_client(tenant, CLIENT, SECRET);
        }
        let vaults = [
            (VAULT, "vault.azure.net", TENANT),
            ("gov-vault", "vault.usgovcloudapi.net", TENANT),
            ("stack-vault", "vault.stack.test", TENANT),
            ("adfs-vault", "vault.stack.test", "adfs"),
        ];
        for (vault, suffix, tenant) in vaults {
            azure.add_vault(vault, suffix, tenant);
            azure.set_page_size(vault, PAGE);
            azure.grant(vault, CLIENT, &Permission::ALL);
            let value = format!("of {vault}");
            azure.set_secret_version(vault, "password", PASSWORD, &value, ObjectAttributes::default());
        }
        for client in [WORKLOAD, MACHINE, USER] {
            azure.grant(VAULT, client, &[Permission::Get]);
        }
        World { emulator, azure, folder }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Adds the credentials of each way to log in, and returns the logins with the secret that they
    /// read.
    fn logins(&self) -> Vec<(Value, &'static str)> {
        let azure = &self.azure;
        let material = Material::rsa();
        for tenant in [TENANT, "adfs"] {
            azure.add_client_certificate(tenant, CLIENT, &material.der());
        }
        azure.add_federated_credential(TENANT, WORKLOAD, ISSUER, SUBJECT, AUDIENCE);
        azure.add_system_identity(TENANT, MACHINE);
        azure.add_managed_identity(TENANT, USER);
        let token = azure.add_issuer(ISSUER).token(SUBJECT, AUDIENCE, Duration::from_secs(600), Value::Null);
        let pem = self.file("client.pem", material.pem().as_bytes());
        // The only ciphers that the SDK reads.
        let old = ["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"];
        let pfx = self.file("client.pfx", &material.pfx("a password", &old));
        let token = self.file("token", token.as_bytes());
        let stack = json!({ "authority": STACK, "vault": STACK_VAULT, "disconnected": true });
        let adfs = json!({ "authority": STACK, "vault": ADFS_VAULT, "disconnected": true, "tenant": "adfs" });
        let certificate = |name: &str| login("certificate", name, json!({ "file": pem }));
        let managed = |kind: &str, id: &str| login(kind, kind, json!({ "id": id }));
        vec![
            (secret("secret", json!({})), "of first-vault"),
            (certificate("PEM"), "of first-vault"),
            (login("certificate", "PFX", json!({ "file": pfx, "secret": "a password" })), "of first-vault"),
            (login("workload", "workload", json!({ "file": token, "id": WORKLOAD })), "of first-vault"),
            (managed("system", ""), "of first-vault"),
            (managed("client", USER), "of first-vault"),
            (managed("object", &azure.object_id(TENANT, USER)), "of first-vault"),
            (managed("resource", &azure.managed_identity_resource_id(USER)), "of first-vault"),
            (managed("default", ""), "of first-vault"),
            (secret("government", json!({ "authority": GOVERNMENT, "vault": GOVERNMENT_VAULT })), "of gov-vault"),
            (secret("custom", stack), "of stack-vault"),
            (secret("AD FS", adfs.clone()), "of adfs-vault"),
            (with(certificate("AD FS by certificate"), adfs), "of adfs-vault"),
        ]
    }

    /// Runs the SDK's program.
    fn report<'l>(&self, logins: impl Iterator<Item = &'l Value>) -> Value {
        let tools = std::env::var("KEYVAULT_CSI_TOOLS").expect(
            "KEYVAULT_CSI_TOOLS must name a directory with bin/azure-sdk-go: set it to the output of e2e/tools",
        );
        let plan = json!({
            "emulator": self.emulator.address().to_string(),
            "metadata": self.emulator.imds_address().unwrap().to_string(),
            "vault": PUBLIC,
            "logins": logins.collect::<Vec<_>>(),
        });
        let mut program = Command::new(Path::new(&tools).join("bin/azure-sdk-go"))
            .env_clear()
            .env("SSL_CERT_FILE", self.file("ca.pem", self.emulator.ca_pem().as_bytes()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bin/azure-sdk-go of KEYVAULT_CSI_TOOLS must run: set it to the output of e2e/tools");
        program.stdin.take().unwrap().write_all(plan.to_string().as_bytes()).unwrap();
        let output = program.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Logins that must fail, with a part of the error.
fn refused_logins() -> Vec<(Value, &'static str)> {
    vec![
        (secret("custom, validated", json!({ "authority": STACK, "vault": STACK_VAULT })), "invalid_instance"),
        (secret("wrong secret", json!({ "secret": "wrong" })), "AADSTS7000215"),
        (
            secret("another tenant", json!({ "tenant": "no-such.example" })),
            "isn't configured to acquire tokens for tenant",
        ),
        (secret("vault of another cloud", json!({ "authority": GOVERNMENT })), "AADSTS500011"),
        (login("client", "unknown identity", json!({ "id": WORKLOAD })), "isn't assigned to this resource"),
    ]
}

fn login(kind: &str, name: &str, more: Value) -> Value {
    with(json!({ "kind": kind, "name": name, "tenant": TENANT, "id": CLIENT, "vault": PUBLIC }), more)
}

fn secret(name: &str, more: Value) -> Value {
    with(login("secret", name, json!({ "secret": SECRET })), more)
}

fn with(mut login: Value, mut more: Value) -> Value {
    login.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
    login
}

/// Six secrets, one of them with seven versions.
fn secrets(azure: &Azure) -> Objects {
    let mut secrets = Objects::new();
    for number in 0..7_u8 {
        let attributes = ObjectAttributes {
            enabled: number != 3,
            created: Some(1_700_000_000 + i64::from(number)),
            expires: Some(1_900_000_000),
            not_before: (number == 4).then_some(1_600_000_000),
            content_type: Some("text/plain".to_owned()),
            tags: BTreeMap::from([("number".to_owned(), number.to_string())]),
            ..ObjectAttributes::default()
        };
        let (version, value) = (format!("{number:032x}"), format!("value {number}"));
        azure.set_secret_version(VAULT, "history", &version, &value, attributes);
        let content = json!({
            "value": value, "contentType": "text/plain", "tags": { "number": number.to_string() }, "managed": false,
            "enabled": true, "expires": 1_900_000_000, "notBefore": (number == 4).then_some(1_600_000_000),
        });
        let content = if number == 3 { json!("403 Forbidden/SecretDisabled") } else { content };
        secrets.entry("history".to_owned()).or_default().insert(version, content);
    }
    secrets.insert("password".to_owned(), BTreeMap::from([(PASSWORD.to_owned(), secret_of("of first-vault", None))]));
    for name in ["secret-1", "secret-2", "secret-3", "secret-4"] {
        let version = azure.set_secret(VAULT, name, &format!("of {name}"));
        secrets.insert(name.to_owned(), BTreeMap::from([(version, secret_of(&format!("of {name}"), None))]));
    }
    secrets
}

fn secret_of(value: &str, certificate: Option<&str>) -> Value {
    json!({
        "value": value, "contentType": certificate, "tags": {}, "managed": certificate.is_some(), "enabled": true,
        "expires": null, "notBefore": null,
    })
}

fn key_of(jwk: &Jwk, enabled: bool) -> Value {
    let number = |number: &Option<String>| number.clone().unwrap_or_default();
    let numbers = [&jwk.n, &jwk.e, &jwk.x, &jwk.y].map(number);
    let [n, e, x, y] = numbers;
    json!({ "kty": jwk.kty, "crv": jwk.crv, "n": n, "e": e, "x": x, "y": y, "enabled": enabled })
}

/// Four keys, one of them with four versions of every type.
fn keys(azure: &Azure) -> Objects {
    let mut keys = Objects::new();
    let rsa = Jwk::of_spki(&Material::rsa().spki()).unwrap();
    let ec = Jwk::of_spki(&Material::ec("P-384").spki()).unwrap();
    for (number, jwk) in [rsa.clone(), rsa.with_kty("RSA-HSM"), ec.clone(), Jwk::oct()].into_iter().enumerate() {
        let (version, enabled) = (format!("{number:032x}"), number != 1);
        let created = Some(1_700_000_000 + i64::try_from(number).unwrap());
        azure.set_key_version(
            VAULT,
            "history",
            &version,
            jwk.clone(),
            ObjectAttributes { enabled, created, ..ObjectAttributes::default() },
        );
        keys.entry("history".to_owned()).or_default().insert(version, key_of(&jwk, enabled));
    }
    for name in ["key-1", "key-2", "key-3"] {
        let version = azure.set_key(VAULT, name, ec.clone());
        keys.insert(name.to_owned(), BTreeMap::from([(version, key_of(&ec, true))]));
    }
    keys
}

/// Four certificates, one of them with four versions; each has a key and a secret.
fn certificates(azure: &Azure, secrets: &mut Objects, keys: &mut Objects) -> Objects {
    let mut certificates = Objects::new();
    for name in ["web", "web", "web", "web", "web-1", "web-2", "web-3"] {
        let material = Material::rsa();
        let version = azure.set_certificate(VAULT, name, &CertificateMaterial::from_pem(&material.pem()).unwrap());
        let enabled = certificates.get(name).is_none_or(|versions: &BTreeMap<_, _>| versions.len() != 1);
        let add = |objects: &mut Objects, content: Value| {
            objects.entry(name.to_owned()).or_default().insert(version.clone(), content);
        };
        add(
            &mut certificates,
            json!({
                "cer": STANDARD.encode(material.der()), "thumbprint": material.thumbprint("-sha1"),
                "key": version, "secret": version, "enabled": enabled,
            }),
        );
        add(keys, key_of(&Jwk::of_spki(&material.spki()).unwrap(), enabled));
        let secret = secret_of(&material.pem(), Some("application/x-pem-file"));
        add(secrets, if enabled { secret } else { json!("403 Forbidden/SecretDisabled") });
        azure.set_object_enabled(VAULT, ObjectKind::Certificate, name, &version, enabled);
    }
    certificates
}

/// All names, versions and contents, and full pages before the last one.
fn check(inventory: &Value, expected: &Objects, kind: &str) {
    let flat = |pages: &Value| {
        let pages = pages.as_array().unwrap().iter().map(|page| page.as_array().unwrap().clone());
        let (pages, mut all): (Vec<_>, Vec<_>) = (pages.clone().collect(), pages.flatten().map(text).collect());
        let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
        let full = sizes.len() - 1;
        assert!(
            sizes[..full].iter().all(|size| *size == PAGE) && (1..=PAGE).contains(&sizes[full]),
            "{kind}: {sizes:?}"
        );
        all.sort();
        all
    };
    let names: Vec<String> = expected.keys().cloned().collect();
    assert!(names.len() > PAGE, "{kind}: only one page");
    assert_eq!(flat(&inventory["pages"]), names, "{kind}");
    for (name, versions) in expected {
        let ids: Vec<String> = versions.keys().cloned().collect();
        assert_eq!(flat(&inventory["versions"][name]), ids, "{kind} {name}");
        for (version, content) in versions {
            assert_eq!(&inventory["objects"][name][version], content, "{kind} {name} {version}");
        }
        assert!(ids.contains(&text(inventory["newest"][name].clone())), "{kind} {name}: {}", inventory["newest"]);
    }
    assert!(inventory["objects"] == json!(expected), "{kind}: more objects than were set");
}

fn text(value: Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

/// The versions in go.mod, by the last part of the module's path.
fn required() -> BTreeMap<String, String> {
    let lines = include_str!("../go/go.mod").lines().filter_map(|line| line.trim().strip_prefix("github.com/Azure/"));
    let modules = lines.filter_map(|line| line.split_once(' ')).filter(|(_, rest)| !rest.contains("indirect"));
    modules.map(|(path, version)| (path.rsplit('/').next().unwrap().to_owned(), version.to_owned())).collect()
}

#[test]
fn the_sdk_for_go_works_with_the_emulator() {
    let world = World::new();
    let azure = &world.azure;
    let (logins, refused) = (world.logins(), refused_logins());
    let mut secrets = secrets(azure);
    let mut keys = keys(azure);
    let certificates = certificates(azure, &mut secrets, &mut keys);
    let deleted: Vec<String> = (0..4).map(|number| format!("deleted-{number}")).collect();
    for name in &deleted {
        azure.set_secret(VAULT, name, "gone");
        azure.delete_secret(VAULT, name);
    }
    let report = world.report(logins.iter().chain(&refused).map(|(login, _)| login));
    // Past the capture of libtest, so that each run shows the versions.
    writeln!(std::io::stderr(), "SDK for Go: {}", report["modules"]).unwrap();
    for (module, version) in required() {
        assert_eq!(report["modules"][&module], json!(version), "{module}: run e2e/tools again");
    }
    let outcome = |login: &Value| report["logins"][login["name"].as_str().unwrap()].as_str().unwrap();
    for (login, expected) in &logins {
        assert_eq!(outcome(login), *expected, "{login}");
    }
    for (login, expected) in &refused {
        let error = outcome(login);
        assert!(error.starts_with("error: ") && error.contains(expected), "{login}: {error}");
    }
    check(&report["keys"], &keys, "keys");
    check(&report["certificates"], &certificates, "certificates");
    check(&report["secrets"], &secrets, "secrets");
    assert_eq!(report["deleted"], json!([deleted[..PAGE], deleted[PAGE..]]));
    let expected = json!({
        "secret": "404 SecretNotFound", "key": "404 KeyNotFound", "certificate": "404 CertificateNotFound",
        "deleted": "404 SecretNotFound", "version": "404 SecretNotFound", "name": "400 BadParameter",
    });
    assert_eq!(report["refusals"], expected);
    let written = report["written"].as_array().unwrap();
    assert_eq!(written[1..], [json!("set by the SDK"), json!("2096-10-02T07:06:40Z")]);
    assert_eq!(written[0].as_str().unwrap().len(), 32);
    count(azure);
}

/// The requests of the program: no page is left out, no token is asked for twice.
fn count(azure: &Azure) {
    let vault = azure.counters(VAULT);
    let expected = [
        // Nine logins, four that fail, and four clients that read and write.
        (Kind::Challenge, 17),
        (Kind::Get, 9 + 29 + 4),
        (Kind::List, 4),
        (Kind::ListVersions, 13),
        (Kind::ListDeleted, 2),
        (Kind::Set, 1),
        (Kind::KeyGet, 22 + 1),
        (Kind::KeyList, 3),
        (Kind::KeyListVersions, 10),
        (Kind::CertificateGet, 11 + 1),
        (Kind::CertificateList, 2),
        (Kind::CertificateListVersions, 5),
    ];
    for (kind, requests) in expected {
        assert_eq!(vault.get(kind), requests, "{kind:?}: {vault:?}");
    }
    assert_eq!(vault.total(), expected.iter().map(|(_, requests)| requests).sum::<u64>(), "{vault:?}");
    let entra = azure.counters(TENANT);
    // Six logins, two that fail, and the clients that read. All but the disconnected one look their
    // host up, once; the unknown one does so before its cache and before its request.
    let counted = [Kind::Token, Kind::OpenidConfiguration, Kind::Discovery].map(|kind| entra.get(kind));
    assert_eq!(counted, [9, 9, 8 + 2], "{entra:?}");
    // Each way to name an identity, the probe of the default credential, and an unknown identity.
    let machine = azure.counters("imds");
    assert_eq!(machine.get(Kind::Token), 6, "{machine:?}");
    // Entra ID: those above, less the two that fail, and two of AD FS. The metadata service keeps
    // one for each of its two identities.
    assert_eq!(azure.issued_tokens().len(), 7 + 2 + 2);
}
