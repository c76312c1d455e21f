//! Names, clouds, codes, waits and texts, without a network.

use std::time::Duration;

use azure_core::time::{OffsetDateTime, to_rfc7231};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::super::administrator_file::AdministratorFile;
use super::super::connection_fault::ConnectionFault;
use super::super::endpoint::Service;
use super::super::error::StopReason;
use super::super::error_codes::ErrorCodes;
use super::super::names::is_client_id;
use super::super::refusal::Refusal;
use super::super::response::{request_id, retry_after};
use super::super::retry::{Decision, decide};
use super::super::{Cloud, CloudError, Error, NameError, ObjectName, ObjectVersionId, TenantId, VaultName};
use crate::model::Reason;

#[test]
fn names_are_those_of_the_services() {
    for good in ["abc", "my-vault", "1-2-3-4", &"v".repeat(24)] {
        assert!(VaultName::new(good).is_ok(), "{good}");
    }
    for bad in ["", "ab", &"v".repeat(25), "a.b", "a_b", "vaült", "a/b", "a b", "xn--abc"] {
        assert!(VaultName::new(bad).is_err(), "{bad}");
    }
    for good in ["a", "A-1", &"n".repeat(127)] {
        assert!(ObjectName::new(good).is_ok(), "{good}");
    }
    for bad in ["", "../keys/k1", "a/b", "a.b", "a%2fb", "a?b", &"n".repeat(128), "ä"] {
        assert!(ObjectName::new(bad).is_err(), "{bad}");
    }
    assert!(ObjectVersionId::new("0123456789abcdefABCDEF0123456789").is_ok());
    for bad in ["", "latest", "0123456789abcdefABCDEF012345678", "0123456789abcdefABCDEF012345678g"] {
        assert!(ObjectVersionId::new(bad).is_err(), "{bad}");
    }
    for good in ["72f988bf-86f1-41af-91ab-2d7cd011db47", "contoso.onmicrosoft.com", "ADFS"] {
        assert!(TenantId::new(good).is_ok(), "{good}");
    }
    for bad in ["", "..", ".", "-", "a/b", "a b", "tenänt"] {
        assert!(TenantId::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_name_error_names_the_rule() {
    assert_eq!(ObjectName::new("").unwrap_err(), NameError::Empty);
    assert_eq!(VaultName::new("ab").unwrap_err().to_string(), "it has 2 characters; a vault's name has 3 to 24");
    assert_eq!(ObjectName::new("a.b").unwrap_err().to_string(), "it may contain only ASCII letters, digits and '-'");
}

/// A cloud whose file has this content.
fn custom(bytes: &[u8]) -> Result<Cloud, CloudError> {
    Cloud::of_file(&AdministratorFile::made_up(bytes))
}

/// The table of docs/reference/azure-provider.md#clouds.
#[test]
fn the_public_clouds_are_known_in_any_case() {
    for (name, authority, suffix) in [
        ("AzurePublicCloud", "login.microsoftonline.com", "vault.azure.net"),
        ("AZUREUSGOVERNMENTCLOUD", "login.microsoftonline.us", "vault.usgovcloudapi.net"),
        ("azurechinacloud", "login.chinacloudapi.cn", "vault.azure.cn"),
        ("AzureGermanCloud", "login.microsoftonline.de", "vault.microsoftazure.de"),
    ] {
        let cloud = Cloud::named(name).unwrap();
        assert_eq!((cloud.authority(), cloud.vault_suffix()), (authority, suffix));
        assert_eq!(cloud.resource().host, suffix, "a vault may ask for a token of its cloud's resource");
        assert_eq!(VaultName::new("My-Vault").unwrap().host(&cloud), format!("my-vault.{suffix}"));
    }
    assert_eq!(Cloud::named("azurestackcloud"), Err(CloudError::NeedsFile));
    assert!(Cloud::is_custom("AzureStackCloud") && !Cloud::is_custom("AzurePublicCloud"));
    assert_eq!(Cloud::named("AzureMars"), Err(CloudError::Unknown));
    assert_eq!(Cloud::named(""), Err(CloudError::Unknown));
}

#[test]
fn a_custom_cloud_is_read_from_its_file() {
    let file = "\u{feff}{\"name\":\"AzureStackCloud\",\"managementPortalURL\":[1],
        \"ActiveDirectoryEndpoint\":\" https://login.stack.example/tenant/ \",
        \"keyVaultEndpoint\":\"https://vault.stack.example/some-guid\",\"keyVaultDNSSuffix\":\".Vault.Local.example\"}";
    let cloud = custom(file.as_bytes()).unwrap();
    assert_eq!((cloud.authority(), cloud.vault_suffix()), ("login.stack.example", "vault.local.example"));
    assert_eq!(cloud.resource().host, "vault.stack.example");
    let minimal = r#"{"activeDirectoryEndpoint":"https://login.x.y","keyVaultDNSSuffix":"vault.x.y"}"#;
    assert_eq!(custom(minimal.as_bytes()).unwrap().resource().host, "vault.x.y");
}

#[test]
fn a_faulty_cloud_file_names_the_field() {
    let good = r#"{"activeDirectoryEndpoint":"https://login.x.y","keyVaultEndpoint":"https://vault.x.y","keyVaultDNSSuffix":"vault.x.y"}"#;
    for (from, to, words) in [
        ("activeDirectoryEndpoint", "other", "lacks activeDirectoryEndpoint; add it"),
        ("\"https://login.x.y\"", "null", "lacks activeDirectoryEndpoint"),
        ("\"https://login.x.y\"", "7", "activeDirectoryEndpoint of the cloud's file is not a text"),
        (
            "https://login.x.y",
            "http://login.x.y",
            "activeDirectoryEndpoint of the cloud's file does not start with https://",
        ),
        ("https://login.x.y", "https://login.x.y:8443", "port"),
        ("https://login.x.y", "https://u:p@login.x.y", "user"),
        ("https://login.x.y", "https://10.0.0.1/", "no host name"),
        ("https://login.x.y", "login", "not a URL"),
        ("https://vault.x.y", "http://vault.x.y", "keyVaultEndpoint"),
        ("\"vault.x.y\"", "\" \"", "lacks keyVaultDNSSuffix"),
        ("\"vault.x.y\"", "\"vault/x.y\"", "keyVaultDNSSuffix of the cloud's file is not a domain name"),
        ("\"vault.x.y\"", "\"vault.x.y:443\"", "not a domain name"),
        ("\"vault.x.y\"", "\"10.0.0.1\"", "not a domain name"),
        ("\"vault.x.y\"", "\"..x\"", "not a domain name"),
        ("{", "[", "not a JSON object"),
    ] {
        let text = custom(good.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert!(text.contains(words), "{to}: {text}");
    }
}

#[test]
fn only_codes_are_read_from_a_body() {
    let codes = ErrorCodes::of_key_vault(
        br#"{"error":{"code":"Forbidden","message":"m","innererror":{"code":"ForbiddenByRbac"}}}"#,
    );
    assert_eq!(codes.all().collect::<Vec<_>>(), ["Forbidden", "ForbiddenByRbac"]);
    for nothing in ["", "[]", "null", "{\"error\":7}", r#"{"error":{"code":"two words"}}"#, r#"{"error":{"code":""}}"#]
    {
        assert_eq!(ErrorCodes::of_key_vault(nothing.as_bytes()), ErrorCodes::default(), "{nothing}");
    }
    let long = format!(r#"{{"error":{{"code":"{}"}}}}"#, "x".repeat(65));
    assert_eq!(ErrorCodes::of_key_vault(long.as_bytes()), ErrorCodes::default());
    for (body, code) in [
        (r#"{"error_codes":[7000215,1],"error_description":"x"}"#, Some("AADSTS7000215")),
        (r#"{"error_description":"AADSTS90002: no tenant s3cr3t"}"#, Some("AADSTS90002")),
        (r#"{"error_description":"s3cr3t AADSTS90002"}"#, None),
        (r#"{"error_codes":["s3cr3t"]}"#, None),
    ] {
        assert_eq!(ErrorCodes::of_entra_id(body.as_bytes()).all().next(), code, "{body}");
    }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).unwrap();
    lines.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
}

#[test]
fn retry_after_is_read_in_each_form() {
    let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    let date = |seconds: i64| to_rfc7231(&OffsetDateTime::from_unix_timestamp(1_700_000_000 + seconds).unwrap());
    for (lines, wait) in [
        (&[("retry-after", "7")][..], Some(Duration::from_secs(7))),
        (&[("retry-after", &date(30))], Some(Duration::from_secs(30))),
        (&[("retry-after", &date(-30))], Some(Duration::ZERO)),
        (&[("retry-after-ms", "250"), ("retry-after", "7")], Some(Duration::from_millis(250))),
        (&[("x-ms-retry-after-ms", "20")], Some(Duration::from_millis(20))),
        (&[("retry-after", "18446744073709551615")], Some(Duration::from_secs(86_400))),
        (&[("retry-after", "-1")], None),
        (&[("retry-after", "soon")], None),
        (&[], None),
    ] {
        assert_eq!(retry_after(&headers(lines), now), wait, "{lines:?}");
    }
}

#[test]
fn an_id_is_shown_only_when_it_looks_like_one() {
    let id = |text| request_id(&headers(&[("x-ms-request-id", text)]));
    assert_eq!(id("f3f0b1c2-1111-4f6e-9c3e-2d1c0a9b8c7d").as_deref(), Some("f3f0b1c2-1111-4f6e-9c3e-2d1c0a9b8c7d"));
    assert_eq!((id("a b"), id("<x>"), id(""), id(&"a".repeat(65))), (None, None, None, None));
    assert!(is_client_id("72f988bf-86f1-41af-91ab-2d7cd011db47"));
    for bad in ["", "72f988bf86f141af91ab2d7cd011db47", "72f988bf-86f1-41af-91ab-2d7cd011db4g", "s3cr3t~x"] {
        assert!(!is_client_id(bad), "{bad}");
    }
}

fn refusal(service: Service, status: u16, code: Option<&str>, retry_after: Option<u64>) -> Error {
    Error::Refused(Box::new(Refusal {
        service,
        host: "h".into(),
        operation: "secrets",
        status,
        codes: ErrorCodes { code: code.map(str::to_owned), inner: None },
        request_id: Some("id-1".into()),
        retry_after: retry_after.map(Duration::from_secs),
        client_id: None,
        claims: None,
    }))
}

fn unreachable(service: Service, fault: ConnectionFault) -> Error {
    Error::Unreachable { service, host: "h".into(), fault, proxied: false }
}

#[test]
fn the_decision_to_try_again_is_a_table() {
    let second = Duration::from_secs(1);
    let (vault, left) = (Service::KeyVault, 10 * second);
    let again = |wait| Decision::RetryAfter(wait * second);
    for (error, wait, decision) in [
        (refusal(vault, 503, None, None), Some(second), again(1)),
        (refusal(vault, 503, None, None), Some(left), Decision::GiveUp(StopReason::Deadline)),
        (refusal(vault, 503, None, None), None, Decision::GiveUp(StopReason::Tries)),
        (refusal(vault, 429, None, Some(5)), Some(second), again(5)),
        (refusal(vault, 429, None, Some(0)), Some(second), again(1)),
        (refusal(vault, 429, None, Some(10)), Some(second), Decision::GiveUp(StopReason::RetryAfter(left))),
        (refusal(vault, 403, None, Some(1)), Some(second), Decision::Fail),
        (refusal(vault, 401, None, None), Some(second), Decision::Fail),
        (refusal(vault, 501, None, None), Some(second), Decision::Fail),
        (unreachable(vault, ConnectionFault::CutOff), Some(second), again(1)),
        (unreachable(vault, ConnectionFault::NameLookup), Some(second), again(1)),
        (unreachable(vault, ConnectionFault::NameUnknown), Some(second), Decision::Fail),
        (unreachable(vault, ConnectionFault::UnknownIssuer), Some(second), Decision::Fail),
        (Error::NoResponse { host: "h".into(), limit: second }, Some(second), again(1)),
        (Error::TooLarge { host: "h".into(), limit: 1 }, Some(second), Decision::Fail),
    ] {
        assert_eq!(decide(&error, wait, left), decision, "{error:?}");
    }
}

#[test]
fn the_reasons_are_a_table() {
    let (vault, entra) = (Service::KeyVault, Service::EntraId);
    for (error, reason) in [
        (refusal(vault, 429, None, None), Reason::Throttled),
        (refusal(entra, 429, None, None), Reason::Throttled),
        (refusal(vault, 401, None, None), Reason::Unauthorized),
        (refusal(vault, 403, None, None), Reason::Forbidden),
        (refusal(vault, 403, Some("SecretDisabled"), None), Reason::ObjectDisabled),
        (refusal(vault, 404, Some("SecretNotFound"), None), Reason::ObjectNotFound),
        (refusal(vault, 404, None, None), Reason::VaultUnavailable),
        (refusal(vault, 302, None, None), Reason::VaultUnavailable),
        (refusal(entra, 400, Some("AADSTS90002"), None), Reason::TenantNotFound),
        (refusal(entra, 401, Some("AADSTS7000222"), None), Reason::CredentialsRejected),
        (refusal(entra, 500, None, None), Reason::IdentityUnavailable),
        (unreachable(vault, ConnectionFault::NameUnknown), Reason::VaultNotFound),
        (unreachable(entra, ConnectionFault::NameUnknown), Reason::NetworkUnreachable),
        (unreachable(vault, ConnectionFault::NameLookup), Reason::NetworkUnreachable),
        (unreachable(vault, ConnectionFault::Certificate), Reason::TlsUntrusted),
        (unreachable(vault, ConnectionFault::ConnectTimeout), Reason::Timeout),
    ] {
        assert_eq!(error.reason(), reason, "{error}");
    }
}

#[test]
fn a_text_names_host_status_code_and_id() {
    let error = refusal(Service::KeyVault, 404, Some("SecretNotFound"), None);
    assert_eq!(
        error.to_string(),
        "h answered HTTP 404 SecretNotFound (request id id-1): check the object's type, name and version; it may be deleted and wait for its recovery or purge"
    );
    let proxied = Error::Unreachable {
        service: Service::KeyVault,
        host: "h".into(),
        fault: ConnectionFault::NoConnection,
        proxied: true,
    };
    assert_eq!(proxied.to_string(), "no connection to h; check the proxy that HTTPS_PROXY names, and NO_PROXY");
}
