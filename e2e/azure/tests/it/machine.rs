//! The metadata service and the token proxy of a cluster.

use std::time::Duration;

use azure_emulator::{Action, Azure, Emulator, Fault, Kind, Options, Permission, TokenProxyOptions};
use reqwest::Certificate;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::harness::{Fixture, LOGIN, Reply, SCOPE, TENANT, VAULT, eventually, reply};

const FIRST: &str = "55555555-aaaa-4bbb-8ccc-000000000005";
const SECOND: &str = "66666666-aaaa-4bbb-8ccc-000000000006";
const RESOURCE: &str = "https://vault.azure.net";
const ISSUER: &str = "https://oidc.example/cluster/";
const SUBJECT: &str = "system:serviceaccount:shop:web";
const BINDING: &str = "api://AKSIdentityBinding";

struct Machine {
    emulator: Emulator,
    azure: Azure,
    http: Client,
}

impl Machine {
    fn new() -> Machine {
        let imds = Some("127.0.0.1:0".parse().unwrap());
        let emulator = Emulator::start(Options { imds, ..Options::loopback() }).unwrap();
        let azure = emulator.azure();
        azure.add_tenant(TENANT);
        azure.add_vault(VAULT, "vault.azure.net", TENANT);
        Machine { emulator, azure, http: Client::builder().no_proxy().build().unwrap() }
    }

    fn request_token_with(&self, query: &[(&str, &str)], headers: &[(&'static str, &'static str)]) -> Reply {
        let url = format!("http://{}/metadata/identity/oauth2/token", self.emulator.imds_address().unwrap());
        let request = headers
            .iter()
            .fold(self.http.get(url).query(query), |request, (name, value)| request.header(*name, *value));
        reply(request).unwrap()
    }

    fn request_token(&self, client: Option<&str>) -> Reply {
        let mut query = vec![("api-version", "2018-02-01"), ("resource", RESOURCE)];
        query.extend(client.map(|client| ("client_id", client)));
        self.request_token_with(&query, &[("Metadata", "true")])
    }
}

fn error(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["error_description"].as_str().unwrap().to_owned())
}

#[test]
fn identities_are_selected_by_the_rules_of_the_metadata_service() {
    let machine = Machine::new();
    let not_found = (400, "Identity not found".to_owned());
    assert_eq!(error(&machine.request_token(None)), not_found);
    machine.azure.add_managed_identity(TENANT, FIRST);
    assert_eq!(machine.request_token(None).json()["client_id"], FIRST, "the only one");
    machine.azure.add_managed_identity(TENANT, SECOND);
    let several = error(&machine.request_token(None));
    assert!(several.0 == 400 && several.1.starts_with("Multiple user assigned identities exist"), "{several:?}");
    assert_eq!(machine.request_token(Some(SECOND)).json()["client_id"], SECOND);
    assert_eq!(error(&machine.request_token(Some("unknown"))), not_found);
    machine.azure.add_system_identity(TENANT, "a-machine");
    assert_eq!(machine.request_token(None).json()["client_id"], "a-machine");
    machine.azure.remove_managed_identity(FIRST);
    assert_eq!(error(&machine.request_token(Some(FIRST))), not_found);
}

#[test]
fn a_token_of_a_managed_identity_opens_vaults() {
    let machine = Machine::new();
    machine.azure.add_managed_identity(TENANT, FIRST);
    machine.azure.grant(VAULT, FIRST, &[Permission::Get]);
    machine.azure.set_secret(VAULT, "thing", "the-value");
    let document = machine.request_token(Some(FIRST)).json();
    assert_eq!((&document["expires_in"], &document["token_type"]), (&json!("86399"), &json!("Bearer")));
    assert_eq!(document["resource"], RESOURCE);
    let number = |field: &str| document[field].as_str().unwrap().parse::<i64>().unwrap();
    assert_eq!(number("expires_on") - number("not_before"), 86_399 + 300);
    let client = crate::harness::client(&machine.emulator).build().unwrap();
    let url = "https://first-vault.vault.azure.net/secrets/thing?api-version=7.4";
    let token = document["access_token"].as_str().unwrap();
    assert_eq!(reply(client.get(url).bearer_auth(token)).unwrap().json()["value"], "the-value");
}

#[test]
fn a_token_is_kept_until_it_expires_for_each_identity_and_resource() {
    let machine = Machine::new();
    machine.azure.add_managed_identity(TENANT, FIRST);
    machine.azure.add_managed_identity(TENANT, SECOND);
    let token = |reply: &Reply| reply.json()["access_token"].as_str().unwrap().to_owned();
    let of_resource = |resource: &str| {
        let query = [("api-version", "2018-02-01"), ("resource", resource), ("client_id", FIRST)];
        machine.request_token_with(&query, &[("Metadata", "true")])
    };
    let first = machine.request_token(Some(FIRST));
    let expires = first.json()["expires_on"].clone();
    machine.azure.set_token_lifetime(TENANT, Some(FIRST), Duration::from_secs(60));
    eventually("the remaining time decreases, and the time of expiry does not", || {
        let again = machine.request_token(Some(FIRST));
        assert_eq!((token(&again), &again.json()["expires_on"]), (token(&first), &expires));
        assert_eq!(again.json()["ext_expires_in"], "86399");
        again.json()["expires_in"].as_str().unwrap().parse::<i64>().unwrap() < 86_399
    });
    let others = [of_resource("https://vault.azure.net/"), machine.request_token(Some(SECOND))];
    assert!(others.iter().all(|other| token(other) != token(&first)), "another resource, another identity");
    machine.azure.add_fault(Fault::new(Action::status(500)).host("imds").kind(Kind::Token).times(1));
    assert_eq!(machine.request_token(Some(FIRST)).status, 500, "faults come before the kept token");
    // The metadata service does not learn of a revocation.
    machine.azure.revoke_tokens(FIRST);
    assert_eq!(token(&machine.request_token(Some(FIRST))), token(&first));
    machine.azure.expire_tokens(FIRST);
    let next = machine.request_token(Some(FIRST));
    assert_eq!((token(&next) == token(&first), &next.json()["expires_in"]), (false, &json!("60")));
    machine.azure.remove_managed_identity(FIRST);
    assert_eq!(error(&machine.request_token(Some(FIRST))).0, 400);
    machine.azure.add_managed_identity(TENANT, FIRST);
    let next = [token(&next), token(&machine.request_token(Some(FIRST)))];
    assert_ne!(next[0], next[1], "an identity that was assigned anew");
    machine.azure.add_tenant("other.example");
    machine.azure.add_managed_identity("other.example", FIRST);
    assert_ne!(token(&machine.request_token(Some(FIRST))), next[1], "the same identity in another tenant");
}

#[test]
fn an_identity_is_named_by_its_client_object_or_resource_id() {
    let machine = Machine::new();
    machine.azure.add_managed_identity(TENANT, FIRST);
    machine.azure.add_managed_identity(TENANT, SECOND);
    machine.azure.add_system_identity(TENANT, "a-machine");
    let named = |name: &str, value: &str| {
        let query = [("api-version", "2018-02-01"), ("resource", RESOURCE), (name, value)];
        machine.request_token_with(&query, &[("Metadata", "true")])
    };
    let resource = machine.azure.managed_identity_resource_id(SECOND);
    assert!(resource.ends_with(&format!("/Microsoft.ManagedIdentity/userAssignedIdentities/{SECOND}")), "{resource}");
    let names = [
        ("msi_res_id", resource.clone()),
        ("mi_res_id", resource.to_uppercase()),
        ("object_id", machine.azure.object_id(TENANT, SECOND)),
        ("client_id", SECOND.to_owned()),
    ];
    let tokens: Vec<Value> = names.iter().map(|(name, value)| named(name, value).json()).collect();
    assert!(tokens.iter().all(|token| token["client_id"] == SECOND && token == &tokens[0]), "{tokens:?}");
    let not_found = (400, "Identity not found".to_owned());
    for name in ["msi_res_id", "mi_res_id", "object_id", "client_id"] {
        assert_eq!(error(&named(name, "unknown")), not_found, "{name}");
    }
}

#[test]
fn the_metadata_service_refuses_malformed_requests() {
    let machine = Machine::new();
    machine.azure.add_managed_identity(TENANT, FIRST);
    let version = ("api-version", "2018-02-01");
    let resource = ("resource", RESOURCE);
    let header = ("Metadata", "true");
    let cases = [
        (vec![version, resource], vec![], "metadata header"),
        (vec![version, resource], vec![header, ("X-Forwarded-For", "1.2.3.4")], "X-Forwarded-For"),
        (vec![resource], vec![header], "'api-version' is missing"),
        (vec![("api-version", "2017-01-01"), resource], vec![header], "not supported"),
        (vec![version], vec![header], "'resource' is missing"),
        (vec![version, ("resource", "https://other.example")], vec![header], "AADSTS500011"),
    ];
    for (query, headers, text) in cases {
        let (status, found) = error(&machine.request_token_with(&query, &headers));
        assert!(status == 400 && found.contains(text), "{status} {found}");
    }
    assert!(machine.azure.issued_tokens().is_empty());
    assert_eq!(machine.azure.counters("imds").get(Kind::Token), 6);
    for status in [404, 410, 429, 500] {
        machine.azure.add_fault(Fault::new(Action::status(status)).host("imds").kind(Kind::Token).times(1));
        assert_eq!(machine.request_token(None).status, status);
    }
    assert_eq!(machine.request_token(None).status, 200);
}

#[test]
fn the_token_proxy_accepts_bindings_under_its_own_name_only() {
    let fixture = Fixture::new();
    let issuer = fixture.azure.add_issuer(ISSUER);
    let token = |audience: &str| issuer.token(SUBJECT, audience, Duration::from_secs(600), Value::Null);
    fixture.azure.add_identity_binding(TENANT, FIRST, ISSUER, SUBJECT);
    fixture.azure.add_federated_credential(TENANT, FIRST, ISSUER, SUBJECT, "api://AzureADTokenExchange");
    let options = TokenProxyOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        cluster_id: "abc123def456".to_owned(),
        path: "/proxy".to_owned(),
    };
    let proxy = fixture.emulator.start_token_proxy(&options).unwrap();
    assert_eq!(proxy.sni(), "avimke6u6l2eeq8qc1cneuaq4sl2e1av9t4clqgun97le32hub670.ests.aks");
    let api_server = "kubernetes.default.svc.cluster.local";
    let names = [proxy.sni(), api_server, "other.ests.aks"];
    let ca = Certificate::from_pem(proxy.ca_pem().as_bytes()).unwrap();
    // Over HTTP/2 this client ignores the header and sends the name of the URL as `:authority`.
    let builder = Client::builder().no_proxy().http1_only().tls_certs_only([ca]);
    let http = names.iter().fold(builder, |builder, name| builder.resolve(name, proxy.address())).build().unwrap();
    let request_token = |name: &str, path: &str, host: &str, assertion: &str| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", FIRST),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
            ("scope", SCOPE),
        ];
        let url = format!("https://{name}{path}/{TENANT}/oauth2/v2.0/token");
        reply(http.post(url).header("host", host).form(&form))
    };
    let login = LOGIN.trim_start_matches("https://");
    let good = request_token(proxy.sni(), "/proxy", login, &token(BINDING)).unwrap();
    assert_eq!(good.status, 200, "{good:?}");
    let issued = good.json()["access_token"].as_str().unwrap().to_owned();
    fixture.azure.grant(VAULT, FIRST, &[Permission::Get]);
    fixture.azure.set_secret(VAULT, "thing", "the-value");
    assert_eq!(fixture.get("/secrets/thing", &issued).status, 200);
    let exchange = request_token(proxy.sni(), "/proxy", login, &token("api://AzureADTokenExchange")).unwrap();
    assert_eq!(exchange.json()["error_codes"][0], 700_212);
    assert_eq!(
        request_token(proxy.sni(), "", login, &token(BINDING)).unwrap().status,
        404,
        "not below the path of the proxy"
    );
    assert_eq!(request_token(proxy.sni(), "/proxy", "other.example", &token(BINDING)).unwrap().status, 404);
    let named = request_token(proxy.sni(), "/proxy", "kubernetes.default.svc:443", &token(BINDING)).unwrap();
    assert_eq!(named.status, 200, "Microsoft's SDKs for Python and JavaScript name the proxy's host");
    assert_eq!(request_token(api_server, "/proxy", login, &token(BINDING)).unwrap().status, 401);
    let refused = request_token("other.ests.aks", "/proxy", login, &token(BINDING)).unwrap_err();
    assert!(format!("{refused:?}").contains("AlertReceived"), "{refused:?}");
    let counters = fixture.azure.counters("token-proxy");
    assert_eq!((counters.get(Kind::Token), counters.total()), (3, 5));
    assert_eq!(fixture.azure.counters(TENANT).get(Kind::Token), 0, "no request reached the direct endpoint");
}

#[test]
fn the_direct_endpoint_does_not_accept_a_binding() {
    let fixture = Fixture::new();
    let issuer = fixture.azure.add_issuer(ISSUER);
    fixture.azure.add_identity_binding(TENANT, FIRST, ISSUER, SUBJECT);
    let assertion = issuer.token(SUBJECT, BINDING, Duration::from_secs(600), Value::Null);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", FIRST),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
        ("scope", SCOPE),
    ];
    assert_eq!(fixture.token_request(LOGIN, TENANT, &form).json()["error_codes"][0], 70_025);
}
