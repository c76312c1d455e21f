//! Challenges: the grammar of RFC 9110, the resource that is accepted, and what errors say.
//!
//! `KEYVAULT_CSI_FUZZ_CASES` sets the number of cases of each property.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use proptest::prelude::*;
use proptest::test_runner::Config;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::super::challenge::Scope;
use super::super::claims::RequiredClaims;
use super::super::cloud::CloudResource;
use super::super::www_authenticate::{ChallengeFault, Challenges, MAX_CHALLENGES, MAX_LENGTH, MAX_PARAMETERS};
use super::get;
use super::server::{Answer, Azure, Kind};
use crate::model::Reason;

const HOST: &str = "myvault.vault.azure.net";
const BEARER: &str =
    r#"Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net""#;

fn of(lines: &[&[u8]]) -> Challenges {
    let value = |line: &&[u8]| (WWW_AUTHENTICATE, HeaderValue::from_bytes(line).unwrap());
    Challenges::of(&lines.iter().map(value).collect::<HeaderMap>())
}

fn read(line: &str) -> Challenges {
    of(&[line.as_bytes()])
}

fn public() -> CloudResource {
    CloudResource { host: "vault.azure.net".into(), of_file: false }
}

fn scope(line: &str, host: &str, resource: &CloudResource) -> Result<Option<String>, String> {
    let scope = Scope::of(&read(line), host, resource);
    scope.map(|scope| scope.map(|scope| scope.as_str().to_owned())).map_err(|error| error.to_string())
}

#[test]
fn the_bearer_challenge_is_found_in_each_form() {
    let vault = Some("https://vault.azure.net/.default");
    for (line, wanted) in [
        (BEARER, vault),
        (&*format!(r#"PoP authorization="https://l/t", resource="https://pop", nonce="a,b", {BEARER}"#), vault),
        (&format!("{BEARER}, PoP resource=\"https://pop\""), vault),
        (&format!("Basic realm=\"say \\\"Bearer resource=x\\\", twice\", Negotiate, {BEARER}"), vault),
        (&format!("NTLM TlRMTVNTUAAC/+abc==, Negotiate YII=,{BEARER}"), vault),
        (&format!(",, \t{BEARER} ,"), vault),
        (r#"bEARER RESOURCE = "https://vault.azure.net""#, vault),
        ("Bearer resource=https://vault.azure.net", vault),
        (r#"Bearer authorization="https://l/t" resource="https://vault.azure.net""#, vault),
        (r#"bearer  resource="https://vault.azure.net/""#, Some("https://vault.azure.net//.default")),
        (r#"Bearer scope="https://vault.azure.net/.default",resource="https://x""#, vault),
        (r#"Bearer realm="", Bearer resource="https://vault.azure.net""#, vault),
        (r#"Bearer resource="\h\ttps://vault.azure.net""#, vault),
        (r#"Bearer realm="resource=\"https://vault.azure.net\"""#, None),
        (r#"PoP resource="https://vault.azure.net""#, None),
        (r#"X-Bearer resource="https://vault.azure.net""#, None),
        (r#"Bearer resource="""#, None),
        ("Bearer", None),
        ("", None),
    ] {
        assert_eq!(scope(line, HOST, &public()), Ok(wanted.map(str::to_owned)), "{line}");
        assert_eq!(read(line).fault, None, "{line}");
    }
}

#[test]
fn several_headers_are_one_list() {
    let obs_text = b"Basic realm=\"caf\xe9\"";
    let challenges = of(&[obs_text, b"PoP nonce=x", b"Bearer =", BEARER.as_bytes()]);
    assert_eq!(challenges.fault, Some(ChallengeFault::Malformed), "of the third");
    assert_eq!(challenges.all.len(), 3);
    assert!(Scope::of(&challenges, HOST, &public()).unwrap().is_some());
    assert_eq!(challenges.all[0].get("Realm"), Some("caf\u{fffd}"));
}

#[test]
fn what_is_not_a_list_ends_at_the_fault() {
    for rest in [
        r#"Bearer resource="https://vault.azure.net"#,
        r#"Bearer resource="https://vault.azure.net\"#,
        r#"Bearer resource="https://vault.azure.net"x"#,
        r#"Bearer resource="https://vault.azure.net", resource="https://evil.example""#,
        r#"Bearer resource="https://vault.azure.net", RESOURCE=x"#,
        r#"Bearer resource="https://vault.azure.net", a="#,
        r#"Bearer resource=="https://vault.azure.net""#,
        r#"Bearer abc resource="https://vault.azure.net""#,
        r#"Bearer re source="https://vault.azure.net""#,
        r#"Bearer "resource"="https://vault.azure.net""#,
        r#"Bea/rer resource="https://vault.azure.net""#,
        r#"resource="https://vault.azure.net""#,
        "=",
        "\"",
    ] {
        let challenges = read(rest);
        assert_eq!(challenges.fault, Some(ChallengeFault::Malformed), "{rest}");
        assert_eq!(Scope::of(&challenges, HOST, &public()), Ok(None), "{rest}");
        let before = read(&format!("Basic realm=x, Other, {rest}"));
        assert!(before.all[0].is("basic"), "{rest}");
    }
}

#[test]
fn lists_above_the_limits_are_not_read() {
    let parameters = |count: usize| (0..count).map(|number| format!("p{number}=v")).collect::<Vec<_>>().join(",");
    assert_eq!(read(&format!("Bearer {}", parameters(MAX_PARAMETERS))).fault, None);
    let many = read(&format!("Basic a=b, Bearer {}, {BEARER}", parameters(MAX_PARAMETERS + 1)));
    assert_eq!((many.fault, many.all.len()), (Some(ChallengeFault::TooLarge), 1));
    let schemes = |count: usize| vec!["S a=b"; count].join(", ");
    assert_eq!(read(&schemes(MAX_CHALLENGES)).fault, None);
    let many = read(&schemes(MAX_CHALLENGES + 1));
    assert_eq!((many.fault, many.all.len()), (Some(ChallengeFault::TooLarge), MAX_CHALLENGES));
    let padding = "x".repeat(MAX_LENGTH - BEARER.len());
    assert_eq!(of(&[BEARER.as_bytes(), padding.as_bytes()]).fault, None);
    let large = of(&[BEARER.as_bytes(), padding.as_bytes(), b"x"]);
    assert_eq!((large.fault, large.all.len()), (Some(ChallengeFault::TooLarge), 0));
}

/// A token for the first would be sent to the vault that asks for it.
#[test]
fn a_foreign_resource_is_refused_and_only_a_host_name_is_shown() {
    let long = format!("https://{}.vault.azure.net", "a".repeat(300));
    let path = format!("https://vault.azure.net/{}", "a".repeat(600));
    for (resource, asked) in [
        ("https://graph.microsoft.com", Some("graph.microsoft.com")),
        ("https://other.vault.azure.net", Some("other.vault.azure.net")),
        ("https://vault.azure.net.evil.example", Some("vault.azure.net.evil.example")),
        ("https://evilvault.azure.net", Some("evilvault.azure.net")),
        ("https://t.azure.net", Some("t.azure.net")),
        ("https://net", Some("net")),
        ("HTTPS://Graph.Microsoft.com", Some("graph.microsoft.com")),
        ("http://vault.azure.net", None),
        ("https://user@vault.azure.net", None),
        ("https://vault.azure.net@evil.example", None),
        (r"https://vault.azure.net\\@evil.example", None),
        (r"https:\\\\vault.azure.net", None),
        ("https://vault.azure.net:8443", None),
        ("https://vault.azure.net.", None),
        ("https://vault.azure.net?x", None),
        ("https://vault.azure.net#x", None),
        ("https://vault.azure.net/%2e", None),
        ("https://vault.azure.net/.default https://graph.microsoft.com", None),
        ("https://vault.azure\t.net", None),
        ("https://v\u{430}ult.azure.net", None),
        ("https:///vault.azure.net", None),
        ("x", None),
        (&long, None),
        (&path, None),
    ] {
        let text = scope(&format!(r#"Bearer resource="{resource}""#), HOST, &public()).unwrap_err();
        let what = match asked {
            Some(asked) => {
                format!(
                    "{asked}, and got none: vaults of this cloud ask for one of vault.azure.net; check keyvaultName, cloudName"
                )
            }
            None => {
                "a resource that is not a plain https address, and got none; check keyvaultName, the cloud".to_owned()
            }
        };
        let whole = format!("{HOST} asks for a token of {what}, the node's DNS, and any proxy in between");
        assert_eq!(text, whole, "{resource}");
    }
}

/// Azure Stack Hub names a host beside its vaults (Azure/azure-cli#30352).
#[test]
fn the_clouds_file_can_name_a_resource_on_another_host() {
    let line =
        r#"Bearer authorization="https://adfs.r.example/adfs/guid", resource="https://vault.adfs.r.example/guid""#;
    let (host, mut resource) = ("v.vault.r.example", CloudResource { host: "vault.r.example".into(), of_file: true });
    assert_eq!(
        scope(line, host, &resource).unwrap_err(),
        "v.vault.r.example asks for a token of vault.adfs.r.example, and got none: the cloud's file allows \
         vault.r.example and parent domains of the vault; if vault.adfs.r.example is the Key Vault resource of this \
         cloud, as its operator can confirm, set keyVaultEndpoint of the cloud's file to https://vault.adfs.r.example/"
    );
    resource.host = "vault.adfs.r.example".into();
    assert_eq!(scope(line, host, &resource), Ok(Some("https://vault.adfs.r.example/guid/.default".to_owned())));
}

#[test]
fn only_names_of_claims_are_shown() {
    let shown = |claims: &str| {
        let line = format!(r#"Bearer realm="", error="insufficient_claims", claims="{claims}""#);
        RequiredClaims::of(&read(&line)).unwrap().shown()
    };
    let json = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"},"xms_rp_ipaddr":{"value":"s3cr3t"}}}"#;
    assert_eq!(shown(&BASE64_STANDARD.encode(json)), " (nbf, xms_rp_ipaddr)");
    assert_eq!(shown(&BASE64_URL_SAFE_NO_PAD.encode(json)), " (nbf, xms_rp_ipaddr)");
    let hostile = r#"{"access_token":{"a b":1,"<x>":1,"":1,"d":1,"c":1,"b":1,"a":1,"e":1}}"#;
    assert_eq!(shown(&BASE64_STANDARD.encode(hostile)), " (a, b, c, d)");
    let long = format!(r#"{{"access_token":{{"{}":1}}}}"#, "x".repeat(33));
    for nothing in ["", "!", &BASE64_STANDARD.encode("[7]"), &BASE64_STANDARD.encode(long)] {
        assert_eq!(shown(nothing), "", "{nothing}");
    }
    let deep = format!(r#"{{"access_token":{}"#, "[".repeat(8_000));
    assert_eq!(shown(&BASE64_STANDARD.encode(deep)), "", "the JSON parser limits the depth");
    assert_eq!(RequiredClaims::of(&read(BEARER)), None);
    assert_eq!(RequiredClaims::of(&read(r#"PoP error="insufficient_claims""#)), None);
}

/// The vault gets a new token once; the text then names what is missing.
#[tokio::test]
async fn a_claims_challenge_is_named_after_a_new_token() {
    let claims = BASE64_STANDARD.encode(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#);
    let header: &'static str = Box::leak(
        format!("www-authenticate: Bearer realm=\"\", error=\"insufficient_claims\", claims=\"{claims}\"\r\n")
            .into_boxed_str(),
    );
    for (kinds, counts) in [(&[Kind::Get][..], [2, 2, 2]), (&[Kind::Challenge], [1, 0, 0])] {
        let azure = Azure::start(move |request, _| {
            kinds.contains(&request.kind).then(|| Answer::Status(401, header, "{}".into()))
        });
        let azure = azure.await;
        let error = get(&azure.vault(), "db").await.unwrap_err();
        assert_eq!(error.reason(), Reason::Unauthorized);
        let text = error.to_string();
        assert!(text.contains("requires claims that the token lacks (acrs); let "), "{text}");
        assert_eq!(azure.counts(), counts, "{kinds:?}");
    }
}

#[tokio::test]
async fn a_401_without_a_scope_says_what_is_missing() {
    for (header, words) in [
        ("", "it does not say which token it requires"),
        ("www-authenticate: Bearer\r\n", "it does not say which token it requires"),
        ("www-authenticate: Basic realm=\"proxy\"\r\n", "it asks for another login than a Bearer token"),
        (
            "www-authenticate: PoP nonce=\"x\"\r\n",
            "it asks for a proof-of-possession (PoP) token, and accepts no Bearer",
        ),
        ("www-authenticate: Bearer resource=\"\r\n", "its WWW-Authenticate header is malformed"),
    ] {
        let azure = Azure::start(move |request, _| {
            (request.kind == Kind::Challenge).then(|| Answer::Status(401, header, "{}".into()))
        });
        let azure = azure.await;
        let error = get(&azure.vault(), "db").await.unwrap_err();
        assert_eq!(error.reason(), Reason::VaultUnavailable, "{header}");
        assert!(error.to_string().starts_with(&format!("{HOST} did not answer as Key Vault does: {words}")), "{error}");
        assert_eq!(azure.counts(), [1, 0, 0], "{header}");
    }
}

fn config() -> Config {
    let cases = std::env::var("KEYVAULT_CSI_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256);
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// A challenge as text, and what a reader must find.
type Written = (String, Vec<(String, String)>, String);

/// Writes a challenge in one of the forms that the grammar allows.
fn challenge() -> impl Strategy<Value = Written> {
    let parameter = ("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}", "[\t -~]{0,12}", any::<bool>(), " {0,2}", " {0,2}");
    let token = "[A-Za-z][!#$%&'*+.^_`|~0-9A-Za-z-]{0,8}";
    (token, proptest::collection::vec(parameter, 0..5), " {1,3}").prop_map(|(scheme, parameters, space)| {
        let (mut texts, mut read) = (Vec::new(), Vec::<(String, String)>::new());
        for (name, value, quoted, before, after) in parameters {
            if read.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                continue;
            }
            let is_token = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let written = match quoted || !is_token {
                true => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
                false => value.clone(),
            };
            texts.push(format!("{name}{before}={after}{written}"));
            read.push((name, value));
        }
        let text = if texts.is_empty() { scheme.clone() } else { format!("{scheme}{space}{}", texts.join(" , ")) };
        (scheme, read, text)
    })
}

/// What may be an element, and characters that separate elements.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec!["Bearer", "resource", "=", "\"", ",", " ", "\\", "\t", "https://vault.azure.net", "a"])
            .prop_map(|piece| piece.as_bytes().to_vec()),
        1 => proptest::collection::vec(32u8..=255, 1..4),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| {
        let bytes = pieces.concat();
        bytes.into_iter().filter(|byte| *byte != 127).collect()
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_the_grammar_allows_is_read_as_written(
        written in proptest::collection::vec(challenge(), 1..5), separator in " {0,2},[ ,]{0,3}",
    ) {
        let line = written.iter().map(|(.., text)| text.as_str()).collect::<Vec<_>>().join(&separator);
        let challenges = read(&line);
        prop_assert_eq!(challenges.fault, None, "{}", line);
        prop_assert_eq!(challenges.all.len(), written.len(), "{}", line);
        for (found, (scheme, parameters, _)) in challenges.all.iter().zip(&written) {
            prop_assert!(found.is(scheme), "{}", line);
            for (name, value) in parameters {
                let value = Some(value.as_str()).filter(|value| !value.is_empty());
                prop_assert_eq!(found.get(&name.to_ascii_uppercase()), value, "{}", line);
            }
        }
    }

    #[test]
    fn no_header_does_harm(lines in proptest::collection::vec(hostile(), 1..4)) {
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        let challenges = of(&lines);
        prop_assert!(challenges.all.len() <= MAX_CHALLENGES);
        RequiredClaims::of(&challenges);
        match Scope::of(&challenges, HOST, &public()) {
            Ok(Some(scope)) => {
                let rest = scope.as_str().to_ascii_lowercase();
                let rest = rest.strip_prefix("https://").unwrap().to_owned();
                prop_assert!(["vault.azure.net/", "azure.net/"].iter().any(|host| rest.starts_with(host)), "{}", rest);
            }
            Ok(None) => {}
            Err(error) => {
                let text = error.to_string();
                prop_assert!(text.len() < 1_024 && text.bytes().all(|byte| (32..127).contains(&byte)), "{}", text);
            }
        }
    }
}

/// A quadratic parser needs minutes for this.
#[test]
fn the_time_grows_with_the_length_only() {
    let began = Instant::now();
    for piece in ["a ", "a,", "a=\"\\\"\",", "\"", "=", "\\", " ", ",", "a=b "] {
        let line = format!("Bearer {}", piece.repeat((MAX_LENGTH - 7) / piece.len()));
        (0..20).for_each(|_| drop(read(&line)));
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
