//! Tokens as Kubernetes writes them, malformed ones, and a property against any JSON parser.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::formats::jwt::{Claims, MAX_LENGTH, Malformed};

fn token(header: &str, payload: &str, signature: &str) -> String {
    format!("{}.{}.{signature}", BASE64.encode(header), BASE64.encode(payload))
}

fn read(payload: &str) -> Result<Claims, Malformed> {
    Claims::read(&token(r#"{"alg":"RS256","kid":"x"}"#, payload, "c2ln"))
}

#[test]
fn a_token_of_kubernetes_is_read() {
    let payload = json!({
        "aud": ["api://AzureADTokenExchange"], "exp": 1_800_003_600, "iat": 1_800_000_000, "iss": "https://issuer",
        "kubernetes.io": {"namespace": "shop", "pod": {"name": "web", "uid": "1"}}, "nbf": 1_800_000_000,
        "sub": "system:serviceaccount:shop:web",
    });
    let claims = read(&payload.to_string()).unwrap();
    assert_eq!(claims.subject, "system:serviceaccount:shop:web");
    assert_eq!(claims.expires, Some(1_800_003_600));
    assert_eq!(claims.audiences, Some(vec!["api://AzureADTokenExchange".to_owned()]));
}

#[test]
fn claims_may_have_every_form_of_the_standard() {
    let full = read(r#" {"sub":"a","aud":"b","exp":12.9} "#).unwrap();
    assert_eq!(full, Claims { subject: "a".into(), expires: Some(12), audiences: Some(vec!["b".into()]) });
    let bare = Claims { subject: "a".into(), expires: None, audiences: None };
    assert_eq!(read(r#"{"sub":"a"}"#).unwrap(), bare);
    assert_eq!(read(r#"{"sub":"a","exp":null,"aud":null}"#).unwrap(), bare);
    for (exp, whole) in [("1e300", i64::MAX), ("-1e300", i64::MIN), ("-0.5", -1), ("18446744073709551616", i64::MAX)] {
        assert_eq!(read(&format!(r#"{{"sub":"a","exp":{exp}}}"#)).unwrap().expires, Some(whole), "{exp}");
    }
}

#[test]
fn the_error_names_the_malformed_part() {
    let good = token("{}", r#"{"sub":"a"}"#, "c2ln");
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    assert!(Claims::read(&good).is_ok());
    for text in ["", "garbage", "a.b", "..", payload, &format!("{good}.{signature}"), &format!("{header}.{payload}.")] {
        assert_eq!(Claims::read(text), Err(Malformed::Parts), "{text}");
    }
    // Padding, other alphabets, and unused bits that are not zero.
    for payload in [format!("{payload}="), format!("{payload}+"), format!("{payload} "), "e31=".into(), "e31".into()] {
        let read = Claims::read(&format!("{header}.{payload}.{signature}"));
        assert!(matches!(read, Err(Malformed::Parts | Malformed::Payload)), "{payload}: {read:?}");
    }
    for signature in ["c2ln=", "c2l+", "c 2", "c\n"] {
        assert_eq!(Claims::read(&format!("{header}.{payload}.{signature}")), Err(Malformed::Parts), "{signature}");
    }
    for text in ["", "x", "[]", "[null]", "null", "\"alg\"", "{", "{}{}", r#"{"alg":1,"alg":2}"#] {
        assert_eq!(Claims::read(&token(text, r#"{"sub":"a"}"#, "c2ln")), Err(Malformed::Header), "{text}");
    }
    for text in [
        "",
        "x",
        "null",
        "\"a\"",
        "[]",
        r#"["a"]"#,
        r#"["a",1,"b"]"#,
        "{}",
        r#"{"sub":null}"#,
        r#"{"sub":1}"#,
        r#"{"sub":["a"]}"#,
        r#"{"sub":"a","sub":"a"}"#,
        r#"{"sub":"a","exp":1,"exp":2}"#,
        r#"{"sub":"a","exp":"1"}"#,
        r#"{"sub":"a","exp":[1]}"#,
        r#"{"sub":"a","aud":1}"#,
        r#"{"sub":"a","aud":[1]}"#,
        r#"{"sub":"a","aud":{}}"#,
        r#"{"sub":"a"} x"#,
        r#"{"sub":"a"}{}"#,
        r#"{"SUB":"a"}"#,
        r#"{"sub":"a","exp":NaN}"#,
    ] {
        assert_eq!(read(text), Err(Malformed::Payload), "{text}");
    }
    let deep = format!(r#"{{"sub":"a","x":{}{}}}"#, "[".repeat(2_000), "]".repeat(2_000));
    assert!(read(&deep).is_ok(), "unknown claims are skipped without recursion");
    assert_eq!(read(&deep.replace("\"x\"", "\"aud\"")), Err(Malformed::Payload));
}

#[test]
fn a_long_text_is_not_read() {
    let room = MAX_LENGTH - token("{}", r#"{"sub":""}"#, "").len();
    let fits = token("{}", &format!(r#"{{"sub":"{}"}}"#, "a".repeat(room / 2)), "c2ln");
    assert!(fits.len() <= MAX_LENGTH && Claims::read(&fits).is_ok());
    assert_eq!(Claims::read(&"a".repeat(MAX_LENGTH + 1)), Err(Malformed::TooLong));
    assert_eq!(Claims::read(&format!("{fits}{}", "a".repeat(MAX_LENGTH))), Err(Malformed::TooLong));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// For any text: either it is refused, or the claims are those that any JSON parser finds in
    /// its payload.
    #[test]
    fn only_what_any_reader_finds_is_read(header in pieces(), payload in pieces(), signature in "[a-zA-Z0-9_=.+-]{0,8}", raw in any::<bool>()) {
        let text = if raw { format!("{header}.{payload}.{signature}") } else { token(&header, &payload, &signature) };
        if let Ok(Claims { subject, expires, audiences }) = Claims::read(&text) {
            let parts: Vec<&str> = text.split('.').collect();
            prop_assert_eq!(parts.len(), 3);
            prop_assert!(!parts[2].is_empty());
            let payload: Value = serde_json::from_slice(&BASE64.decode(parts[1]).unwrap()).unwrap();
            prop_assert_eq!(payload["sub"].as_str(), Some(subject.as_str()));
            prop_assert_eq!(payload["exp"].as_f64().map(|exp| exp.floor() as i64), expires);
            let found = match (&payload["aud"], payload["aud"].as_str()) {
                (Value::Null, _) => None,
                (_, Some(audience)) => Some(vec![audience.to_owned()]),
                (list, None) => {
                    let audience = |audience: &Value| audience.as_str().unwrap().to_owned();
                    Some(list.as_array().unwrap().iter().map(audience).collect())
                }
            };
            prop_assert_eq!(found, audiences);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,64}", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Claims::read(&text);
        let _ = Claims::read(&format!("{}.{}.x", BASE64.encode(&bytes), BASE64.encode(&text)));
    }
}

/// JSON that is similar to a payload.
fn pieces() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("\"system:serviceaccount:a:b\"".to_owned()),
        Just("\"\"".to_owned()),
        Just("null".to_owned()),
        Just("[\"x\",\"y\"]".to_owned()),
        Just("[1]".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("JSON has finite numbers only", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
    ];
    let pair = ("sub|exp|aud|alg|x", value).prop_map(|(key, value)| format!("\"{key}\":{value}"));
    prop_oneof![
        9 => prop::collection::vec(pair, 0..5).prop_map(|pairs| format!("{{{}}}", pairs.join(","))),
        1 => "[\\[\\]{}\",:0-9a-z]{0,12}",
    ]
}
