//! Objects and tokens as Azure really writes them, read by the real driver: what the pod finds.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::json;

use crate::harness::tree;
use crate::recorded_azure::{Answer, LOGIN, Request, STACK, VAULT, documents, vault};
use crate::recorded_fixture::{
    Fixture, TENANT, client, normal, objects, pod, pod_of, pod_of_application, secret, with_driver,
};

trials! { "recorded":
    secrets_of_certificates_are_read_as_key_vault_writes_them,
    certificate_and_key_are_separated,
    keys_and_certificates_are_read,
    a_list_of_versions_is_read,
    tokens_of_entra_id_are_read,
    a_token_of_adfs_is_read,
    tokens_of_the_metadata_service_are_read,
}

const EXPORTABLE_KEY: &str = include_str!("fixtures/azure/exportable.key.pem");
const EXPORTABLE_CERTIFICATE: &str = include_str!("fixtures/azure/exportable.crt.pem");
const LONE_CERTIFICATE: &str = include_str!("fixtures/azure/not-exportable.crt.pem");
const PEM_KEY: &str = include_str!("fixtures/azure/pem.key.pem");
const PEM_CERTIFICATE: &str = include_str!("fixtures/azure/pem.crt.pem");

/// Publishes these objects and compares path and content of every file.
fn publishes(fixture: &Fixture, mappings: &[&str], wanted: &[(&str, &str)]) -> Result<()> {
    fixture.class(VAULT, &[], &objects(mappings))?;
    let files = tree(&fixture.publish(&pod_of_application())?)?;
    let found: BTreeMap<String, String> =
        files.into_iter().map(|(path, (_, content))| Ok((path, String::from_utf8(content)?))).collect::<Result<_>>()?;
    let wanted = wanted.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect();
    ensure!(found == wanted, "found {found:#?}\nwanted {wanted:#?}");
    Ok(())
}

fn value(path: &str) -> String {
    documents()[path]["value"].as_str().unwrap_or_default().to_owned()
}

fn secrets_of_certificates_are_read_as_key_vault_writes_them() -> Result<()> {
    with_driver(&[], |fixture| {
        fixture.azure.answer(normal);
        publishes(
            fixture,
            &[
                "objectName: exportable\nobjectType: secret",
                "objectName: exportable\nobjectType: secret\nobjectFormat: pfx\nobjectAlias: exportable.pfx",
                "objectName: not-exportable\nobjectType: secret",
                "objectName: pem\nobjectType: secret",
            ],
            &[
                ("exportable", &format!("{EXPORTABLE_KEY}{EXPORTABLE_CERTIFICATE}")),
                ("exportable.pfx", &value("/secrets/exportable/")),
                ("not-exportable", LONE_CERTIFICATE),
                ("pem", &format!("{PEM_KEY}{PEM_CERTIFICATE}")),
            ],
        )?;
        ensure!(value("/secrets/pem/") == format!("{PEM_KEY}{PEM_CERTIFICATE}"), "the PEM value is not the fixture's");
        Ok(())
    })
}

fn certificate_and_key_are_separated() -> Result<()> {
    with_driver(&["--write-cert-and-key-in-separate-files"], |fixture| {
        fixture.azure.answer(normal);
        publishes(
            fixture,
            &[
                "objectName: exportable\nobjectType: secret",
                "objectName: not-exportable\nobjectType: secret",
                "objectName: pem\nobjectType: secret",
            ],
            &[
                ("exportable", &format!("{EXPORTABLE_KEY}{EXPORTABLE_CERTIFICATE}")),
                ("exportable.crt", EXPORTABLE_CERTIFICATE),
                ("exportable.key", EXPORTABLE_KEY),
                ("not-exportable", LONE_CERTIFICATE),
                ("not-exportable.crt", LONE_CERTIFICATE),
                ("not-exportable.key", ""),
                ("pem", &format!("{PEM_KEY}{PEM_CERTIFICATE}")),
                ("pem.crt", PEM_CERTIFICATE),
                ("pem.key", PEM_KEY),
            ],
        )
    })
}

fn keys_and_certificates_are_read() -> Result<()> {
    with_driver(&[], |fixture| {
        fixture.azure.answer(normal);
        publishes(
            fixture,
            &[
                "objectName: exportable\nobjectType: key\nobjectAlias: p521.pub",
                "objectName: pem\nobjectType: key\nobjectAlias: p256.pub",
                "objectName: exportable\nobjectType: cert\nobjectAlias: p521.crt",
                "objectName: not-exportable\nobjectType: cert\nobjectAlias: rsa.crt",
            ],
            &[
                ("p521.pub", include_str!("fixtures/azure/exportable.pub.pem")),
                ("p256.pub", include_str!("fixtures/azure/pem.pub.pem")),
                ("p521.crt", EXPORTABLE_CERTIFICATE),
                ("rsa.crt", LONE_CERTIFICATE),
            ],
        )
    })
}

/// The list's link to the next page is null, and all versions are of one second: they are ordered
/// by id. Their not-before dates lie in the future, which is not a reason to refuse them.
fn a_list_of_versions_is_read() -> Result<()> {
    with_driver(&[], |fixture| {
        fixture.azure.answer(normal);
        publishes(
            fixture,
            &["objectName: history\nobjectType: secret\nobjectVersionHistory: 5"],
            &[("history/0", "recorded-value-1"), ("history/1", "recorded-value-2"), ("history/2", "recorded-value-0")],
        )?;
        publishes(
            fixture,
            &["objectName: history\nobjectType: secret\nobjectVersion: 6a2e90b1c8d74f36bb0d1e5f2a3c4d58\n\
                 objectVersionHistory: 2"],
            &[("history/0", "recorded-value-2"), ("history/1", "recorded-value-0")],
        )
    })
}

/// The pod finds the value of the secret `pem`.
fn reads(fixture: &Fixture, volume: &Volume) -> Result<()> {
    let target = fixture.publish(volume)?;
    ensure!(std::fs::read_to_string(target.join("pem"))? == value("/secrets/pem/"), "another value");
    Ok(())
}

/// Each shape is that of another application, and serves a second vault: it is valid for an hour or
/// a day, and is not requested again.
fn tokens_of_entra_id_are_read() -> Result<()> {
    with_driver(&[], |fixture| {
        let tokens = [
            json!({}),
            json!({"token_type": "bearer", "expires_in": 3599, "ext_expires_in": null}),
            // Its older endpoint writes numbers as texts, and so do gateways in front of it.
            json!({"expires_in": "3599", "ext_expires_in": "3599", "expires_on": "1740272916",
                "not_before": "1740186216", "resource": "https://vault.azure.net"}),
            json!({"expires_in": "3599", "ext_expires_in": 3599, "refresh_in": "43199"}),
        ];
        for (number, fields) in tokens.into_iter().enumerate() {
            fixture.azure.answer(move |request| match request.method.as_str() {
                "POST" => Some(Answer::recorded("token").with_fields(fields.clone())),
                _ => normal(request),
            });
            let hosts = [2 * number, 2 * number + 1].map(vault);
            for host in &hosts {
                fixture.class(host, &[], &secret("pem"))?;
                reads(fixture, &pod_of(&client(number)))?;
            }
            let get = hosts.map(|host| format!("GET {host}.vault.azure.net/secrets/pem/"));
            let wanted = [
                get[0].clone(),
                format!("POST {LOGIN}/{TENANT}/oauth2/v2.0/token"),
                format!("{} with token", get[0]),
                get[1].clone(),
                format!("{} with token", get[1]),
            ];
            ensure!(fixture.azure.lines() == wanted, "shape {number}");
            let seen = fixture.azure.seen();
            for part in ["grant_type=client_credentials", "scope=https%3A%2F%2Fvault.azure.net%2F.default"] {
                ensure!(seen[1].body.split('&').any(|found| found == part), "{part} is missing");
            }
            ensure!(seen[2].authorization.as_deref() == Some("Bearer recorded-token-of-entra"));
        }
        Ok(())
    })
}

/// AD FS: another path, the type in lower case, and the resource on another host than the vaults.
fn a_token_of_adfs_is_read() -> Result<()> {
    with_driver(&[], |fixture| {
        fixture.azure.answer(|request| match request.authorization.is_none() && request.host == STACK.2 {
            true => Some(Answer::vault("challenge-stack-adfs")),
            false => normal(request),
        });
        fixture.stack_class(&format!("{}/adfs", STACK.0), "https://vault.adfs.rack.contoso.example/", "adfs")?;
        reads(fixture, &pod_of_application())?;
        let wanted = [
            format!("GET {}/secrets/pem/", STACK.2),
            format!("POST {}/adfs/oauth2/token", STACK.0),
            format!("GET {}/secrets/pem/ with token", STACK.2),
        ];
        ensure!(fixture.azure.lines() == wanted, "other requests");
        let seen = fixture.azure.seen();
        let scope =
            "scope=https%3A%2F%2Fvault.adfs.rack.contoso.example%2F7d1f3a5c-2b4e-4f60-9a8c-1e2d3c4b5a69%2F.default";
        ensure!(seen[1].body.split('&').any(|found| found == scope), "another scope");
        ensure!(seen[2].authorization.as_deref() == Some("Bearer recorded-token-of-adfs"));
        Ok(())
    })
}

fn is_imds(request: &Request) -> bool {
    request.path.starts_with("/metadata/")
}

/// Numbers of the metadata service are texts; older versions and its imitations send numbers, or
/// only one of the two. Each shape is that of another identity, since a token is kept for its
/// lifetime. A token without a lifetime is used once.
fn tokens_of_the_metadata_service_are_read() -> Result<()> {
    with_driver(&[], |fixture| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        for (number, fields, requests) in [
            (0, json!({}), 1),
            (1, json!({"expires_in": 86091, "expires_on": 1740272916, "not_before": 1740186216}), 1),
            (2, json!({"expires_in": null, "expires_on": (now + 86_000).to_string()}), 1),
            (3, json!({"expires_in": null, "expires_on": now + 86_000, "not_before": now}), 1),
            (4, json!({"expires_in": null, "expires_on": null}), 2),
        ] {
            let identity = client(number);
            let imds = json!({"client_id": identity});
            fixture.azure.answer(move |request| match is_imds(request) {
                true => Some(Answer::recorded("token-imds").with_fields(imds.clone()).with_fields(fields.clone())),
                false => normal(request),
            });
            let more = [("useVMManagedIdentity", "true"), ("userAssignedIdentityID", identity.as_str())];
            for name in [vault(2 * number), vault(2 * number + 1)] {
                fixture.class(&name, &more, &secret("pem"))?;
                reads(fixture, &pod())?;
            }
            let asked: Vec<Request> = fixture.azure.seen().into_iter().filter(is_imds).collect();
            ensure!(asked.len() == requests, "{number}: {} token requests", asked.len());
            let query = format!("api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net&client_id={identity}");
            ensure!(asked[0].query == query, "{}", asked[0].query);
            let used = fixture.azure.seen().into_iter().filter_map(|request| request.authorization).collect::<Vec<_>>();
            ensure!(used == ["Bearer recorded-token-of-imds"; 2], "{used:?}");
        }
        Ok(())
    })
}
