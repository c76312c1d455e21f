//! A vault with every kind of object, and what a client that we did not write must read from it.
//!
//! [`Objects::new`] fills the vault; [`Objects::expected`] is the report of a script that lists
//! every page of objects and versions and reads each version. It is made from what the test set,
//! and not from what the emulator sends.

use azure_emulator::{Azure, CertificateMaterial, Emulator, Jwk, Kind, ObjectAttributes, Permission};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{CLIENT, SECRET, TENANT, VAULT};
use crate::material::Material;
use crate::sdk_machine::{Machine, assert_same};

pub(crate) const NAMES: &[&str] = &["login.microsoftonline.com", "first-vault.vault.azure.net"];

const HOST: &str = "https://first-vault.vault.azure.net";
const PAGE: usize = 2;
const CREATED: i64 = 1_700_000_000;

/// The versions of each object, as the script must report them, by kind and name.
pub(crate) struct Objects {
    secrets: Vec<(&'static str, Vec<Value>)>,
    keys: Vec<(&'static str, Vec<Value>)>,
    certificates: Vec<(&'static str, Vec<Value>)>,
}

/// The digits of a version. Lists of versions are in the order of these.
fn version(number: usize) -> String {
    format!("{number:032x}")
}

fn attributes(number: usize) -> ObjectAttributes {
    let created = CREATED + i64::try_from(number).unwrap();
    ObjectAttributes {
        created: Some(created),
        updated: Some(created + 10),
        not_before: (!number.is_multiple_of(2)).then_some(created + 20),
        expires: number.is_multiple_of(2).then_some(created + 30),
        tags: (0..number).map(|tag| (format!("tag-{tag}"), "value ☃".to_owned())).collect(),
        ..ObjectAttributes::default()
    }
}

/// What a script reports of any version: times are Unix seconds.
fn properties(kind: &str, name: &str, number: usize, enabled: bool, managed: bool) -> Value {
    let set = attributes(number);
    json!({
        "id": format!("{HOST}/{kind}/{name}/{}", version(number)),
        "enabled": enabled,
        "created": set.created,
        "updated": set.updated,
        "not_before": set.not_before,
        "expires": set.expires,
        "tags": set.tags,
        "managed": managed,
        "recovery": "Recoverable+Purgeable",
    })
}

fn with(mut document: Value, fields: Value) -> Value {
    document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    document
}

/// Key Vault refuses to give the value of a disabled secret. Lists do not name a secret's key.
fn secret_report(properties: Value, content_type: &str, value: &str, key_id: Value) -> Value {
    let enabled = properties["enabled"] == true;
    let report = with(properties, json!({ "content_type": content_type }));
    with(report, if enabled { json!({ "value": value, "key_id": key_id }) } else { json!({ "refused": 403 }) })
}

impl Objects {
    pub(crate) fn new(machine: &Machine, emulator: &Emulator) -> Objects {
        let azure = emulator.azure();
        azure.add_tenant(TENANT);
        azure.add_client(TENANT, CLIENT, SECRET);
        azure.add_vault(VAULT, "vault.azure.net", TENANT);
        azure.grant(VAULT, CLIENT, &[Permission::Get, Permission::List]);
        azure.set_page_size(VAULT, PAGE);
        let mut objects = Objects { secrets: Vec::new(), keys: Vec::new(), certificates: Vec::new() };
        objects.add_secrets(&azure);
        objects.add_keys(&azure);
        objects.add_certificates(&azure);
        let setup = json!({ "tenant": TENANT, "client": CLIENT, "secret": SECRET, "vault": HOST });
        machine.write("setup.json", setup.to_string());
        objects
    }

    fn add_secrets(&mut self, azure: &Azure) {
        for (name, versions, disabled) in [("alone", 1, None), ("connection", 5, Some(2)), ("deleted", 1, None)] {
            let reports = (1..=versions).map(|number| {
                let value = format!("{name} {number}\nsecond line ☃ \"quoted\"");
                let kind = ["text/plain", "application/json"][number % 2];
                let enabled = disabled != Some(number);
                let set = ObjectAttributes { content_type: Some(kind.to_owned()), enabled, ..attributes(number) };
                azure.set_secret_version(VAULT, name, &version(number), &value, set);
                secret_report(properties("secrets", name, number, enabled, false), kind, &value, Value::Null)
            });
            self.secrets.push((name, reports.collect()));
        }
        azure.delete_secret(VAULT, "deleted");
        self.secrets.retain(|(name, _)| *name != "deleted");
    }

    fn add_keys(&mut self, azure: &Azure) {
        let rsa = || Jwk::of_spki(&Material::rsa().spki()).unwrap();
        let ec = |curve: &str| Jwk::of_spki(&Material::ec(curve).spki()).unwrap();
        let all = [
            ("ec-p256", vec![ec("prime256v1")]),
            ("ec-p256k", vec![ec("secp256k1")]),
            ("ec-p384", vec![ec("secp384r1")]),
            ("ec-p521", vec![ec("secp521r1").with_kty("EC-HSM")]),
            ("rsa", vec![rsa(), rsa().with_kty("RSA-HSM"), rsa()]),
            ("symmetric", vec![Jwk::oct()]),
        ];
        for (name, keys) in all {
            let reports = keys.into_iter().enumerate().map(|(index, key)| {
                let number = index + 1;
                azure.set_key_version(VAULT, name, &version(number), key.clone(), attributes(number));
                let report = properties("keys", name, number, true, false);
                with(report, json!({ "key": key }))
            });
            self.keys.push((name, reports.collect()));
        }
    }

    fn add_certificates(&mut self, azure: &Azure) {
        let (rsa, ec) = (Material::rsa(), Material::ec("prime256v1"));
        let pem = |material: &Material| CertificateMaterial::from_pem(&material.pem()).unwrap();
        let pfx = CertificateMaterial::from_pfx(&rsa.pfx("", &[]), "").unwrap();
        let all = [
            ("web", vec![(&rsa, pem(&rsa)), (&ec, pem(&ec)), (&rsa, pfx.clone())]),
            ("wide", vec![(&ec, pem(&ec))]),
            ("wire", vec![(&rsa, pfx)]),
        ];
        for (name, versions) in all {
            let mut reports = [Vec::new(), Vec::new(), Vec::new()];
            for (index, (source, material)) in versions.iter().enumerate() {
                let number = index + 1;
                // The first version of the first certificate is disabled, and so is its secret.
                let enabled = name != "web" || number > 1;
                let set = ObjectAttributes { enabled, ..attributes(number) };
                azure.set_certificate_version(VAULT, name, &version(number), material, set);
                let id = |kind: &str| json!(format!("{HOST}/{kind}/{name}/{}", version(number)));
                let content_type = &material.secret_content_type;
                let report = |kind, managed| properties(kind, name, number, enabled, managed);
                let secret = secret_report(report("secrets", true), content_type, &material.secret_value, id("keys"));
                let certificate = json!({
                    "cer": STANDARD.encode(source.der()),
                    "thumbprint": source.thumbprint("-sha1"),
                    "key_id": id("keys"),
                    "secret_id": id("secrets"),
                });
                reports[0].push(secret);
                reports[1].push(with(report("keys", true), json!({ "key": material.key })));
                reports[2].push(with(report("certificates", false), certificate));
            }
            let [secrets, keys, certificates] = reports;
            self.secrets.push((name, secrets));
            self.keys.push((name, keys));
            self.certificates.push((name, certificates));
        }
    }

    /// The report: names and versions by page, and each version as it was read.
    pub(crate) fn expected(&self) -> Value {
        let types =
            json!({ "web": "application/x-pkcs12", "wide": "application/x-pem-file", "wire": "application/x-pkcs12" });
        let mut report = json!({ "deleted_secrets": [["deleted"]], "content_types": types });
        for (kind, objects) in [("secrets", &self.secrets), ("keys", &self.keys), ("certificates", &self.certificates)]
        {
            let names: Vec<_> = objects.iter().map(|(name, _)| *name).collect();
            let ids = |versions: &[Value]| versions.iter().map(|version| version["id"].clone()).collect::<Vec<_>>();
            let pages = |versions: &[Value]| json!(ids(versions).chunks(PAGE).collect::<Vec<_>>());
            report[kind] = json!({
                "pages": names.chunks(PAGE).collect::<Vec<_>>(),
                "version_pages": objects.iter().map(|(name, all)| (*name, pages(all))).collect::<std::collections::BTreeMap<_, _>>(),
                "versions": objects.iter().flat_map(|(_, all)| all.clone()).collect::<Vec<_>>(),
                // The newest version, which is read without its number.
                "newest": objects.iter().map(|(name, all)| (*name, all.last().unwrap()["id"].clone())).collect::<std::collections::BTreeMap<_, _>>(),
            });
        }
        report
    }

    /// Compares the report, and the number of requests that the client needed.
    pub(crate) fn check(&self, emulator: &Emulator, report: &Value) {
        let mut found = report.clone();
        found.as_object_mut().unwrap().remove("versions");
        assert_same("reads", &found, &self.expected());
        let counters = emulator.azure().counters(VAULT);
        let kinds = [
            (&self.secrets, Kind::List, Kind::ListVersions, Kind::Get),
            (&self.keys, Kind::KeyList, Kind::KeyListVersions, Kind::KeyGet),
            (&self.certificates, Kind::CertificateList, Kind::CertificateListVersions, Kind::CertificateGet),
        ];
        for (objects, list, list_versions, get) in kinds {
            let pages = |count: usize| count.div_ceil(PAGE) as u64;
            let versions: usize = objects.iter().map(|(_, all)| all.len()).sum();
            assert_eq!(counters.get(list), pages(objects.len()), "{list:?}");
            assert_eq!(
                counters.get(list_versions),
                objects.iter().map(|(_, all)| pages(all.len())).sum::<u64>(),
                "{list_versions:?}"
            );
            assert_eq!(counters.get(get), (versions + objects.len()) as u64, "{get:?}");
        }
        // One client for each kind, each challenged once; and one token or one each.
        assert_eq!(counters.get(Kind::Challenge), 3);
    }
}
