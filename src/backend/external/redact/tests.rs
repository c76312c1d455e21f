//! What passes, and what does not: every form of a secret, cut anywhere, in a text that stays
//! readable.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use proptest::prelude::{Strategy, prop, proptest};
use serde_json::json;

use super::*;
use crate::model::TOKENS;
use crate::model::tests::caller;

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn redacted_with(parameters: &[(&str, &str)], pairs: &[(&str, &str)], text: &str) -> String {
    Redactor::new(&strings(parameters), &caller(&[], pairs)).redact_to(usize::MAX, text)
}

fn redacted(secret: &str, text: &str) -> String {
    redacted_with(&[], &[("pass", secret)], text)
}

/// A key file of Google Cloud with a key that is none.
fn key_file() -> String {
    let body = BASE64_STANDARD.encode((0..96).map(|byte: u8| byte.wrapping_mul(167)).collect::<Vec<_>>());
    let (first, second) = body.split_at(64);
    serde_json::to_string_pretty(&json!({
        "type": "service_account",
        "project_id": "shop-4711",
        "private_key_id": "0123456789abcdef0123456789abcdef01234567",
        "private_key": format!("-----BEGIN PRIVATE KEY-----\n{first}\n{second}\n-----END PRIVATE KEY-----\n"),
        "client_email": "reader@shop-4711.iam.gserviceaccount.com",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/reader%40shop-4711.iam.gserviceaccount.com",
        "universe_domain": "googleapis.com",
    }))
    .unwrap()
}

#[test]
fn secrets_of_the_request_are_redacted() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ\n-----END KEY-----\n";
    let tokens = json!({ "a": { "token": "eyJhbGciOi.one" }, "b": { "token": "eyJhbGciOi.two" } }).to_string();
    let pairs = [("pass", "pa\"ss\\word"), ("key", key), ("short", "abc"), ("inside", "pa\"ss")];
    let (parameters, caller) = (BTreeMap::new(), caller(&[(TOKENS, &tokens), ("region", "not-secret")], &pairs));
    let redactor = Redactor::new(&parameters, &caller);
    let ask = json!({ "pass": "pa\"ss\\word", "key": key, "tokens": tokens }).to_string();
    let said = format!("cannot use pa\"ss\\word, eyJhbGciOi.two, kqhkiG9w0BAQ in not-secret for abc: {ask}");
    let text = redactor.redact(&said);
    for hidden in ["ss\\word", "eyJhbGciOi", "kqhkiG9w0BAQ", "MIIEvQ"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    assert!(text.starts_with("cannot use ***stripped***, ***stripped***, ***stripped*** in not-secret for abc: "));
    assert_eq!(redactor.redact("two\nlines\u{1b}[31m"), "two lines [31m");
    assert_eq!(redactor.redact(&"x".repeat(5_000)).len(), limits::MESSAGE);
    // What is cut off is cut after it was redacted.
    let late = format!("{}{}", "x".repeat(limits::MESSAGE - 4), "eyJhbGciOi.one");
    assert!(redactor.redact(&late).ends_with("x***s"));
}

#[test]
fn short_values_do_not_pass_as_json_or_in_a_url() {
    let said =
        r#"{"pass":"a\u0026b \u003cc\u003e/1"} Post "https://x/?pass=a%26b+%3Cc%3E%2F1" and /a%26b%20%3Cc%3E%2F1"#;
    assert_eq!(
        redacted("a&b <c>/1", said),
        r#"{"pass":"***stripped***"} Post "https://x/?pass=***stripped***" and /***stripped***"#
    );
}

/// What programs make of a value, and of a text that holds it.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), json!(secret).to_string(), hex::encode(secret), hex::encode_upper(secret)];
    let escaped = |literal: &[u8], space: &str, lower: bool| -> String {
        let each = secret.bytes().map(|byte| match byte {
            b' ' if !space.is_empty() => space.to_owned(),
            _ if byte.is_ascii_alphanumeric() || literal.contains(&byte) => char::from(byte).to_string(),
            _ if lower => format!("%{byte:02x}"),
            _ => format!("%{byte:02X}"),
        });
        each.collect()
    };
    for (literal, space) in [("-_.~", "+"), ("-_.~", ""), ("-_.~!*'()", ""), ("-_.~/", ""), ("", "")] {
        forms.extend([true, false].map(|lower| escaped(literal.as_bytes(), space, lower)));
    }
    let json = json!(secret).to_string();
    forms.push(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"));
    let ascii = |c: char| {
        let units = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
        if c.is_ascii() { c.to_string() } else { units(c) }
    };
    forms.push(json.chars().map(ascii).collect());
    for before in ["", "x", "xy"] {
        let text = format!("{before}{secret}");
        for engine in [BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD] {
            // Of the first characters some bits are the secret's.
            forms.push(engine.encode(&text)[8 * before.len() / 6..].to_owned());
        }
    }
    forms
}

/// Checks that no piece of `form` that is a run of its own passes, and that what stands around does
/// not go with it.
fn passes_not(secret: &str, form: &str) {
    let characters: Vec<char> = form.chars().collect();
    let pieces: Vec<String> = characters.windows(RUN).map(|piece| piece.iter().collect()).collect();
    for pieces in pieces.chunks(64) {
        let said = format!("cannot log in |<{}>| to the vault", pieces.join(">| nor |<"));
        let text = redacted(secret, &said);
        for piece in pieces {
            assert!(!text.contains(piece), "{piece:?} of {form:?} in {text:?}");
        }
        assert!(text.starts_with("cannot log in |") && text.ends_with("| to the vault"), "{said:?}: {text:?}");
        assert_eq!(text.matches("| nor |").count(), pieces.len() - 1, "{said:?}: {text:?}");
    }
    let whole = redacted(secret, &format!("[{form}]"));
    assert!(!characters.windows(RUN).any(|run| whole.contains(&run.iter().collect::<String>())), "{form:?}: {whole:?}");
}

/// Anything that a person or a program may choose; no value is white space alone.
fn any_secret() -> impl Strategy<Value = String> {
    let any = prop::collection::vec(prop::char::any(), 16..40).prop_map(|chars| chars.into_iter().collect());
    let plain = "[A-Za-z0-9+/=_.-]{16,80}";
    let text = "[ -~\u{e9}\u{4e2d}]{16,60}";
    let lines = "[A-Za-z0-9+/]{16,64}\n[A-Za-z0-9+/]{16,64}\n";
    proptest::prop_oneof![any, plain, text, lines]
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 16, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_run_of_any_form_passes(secret in any_secret()) {
        for form in forms(&secret) {
            passes_not(&secret, &form);
        }
    }

    #[test]
    fn an_encoded_text_around_a_secret_is_readable_up_to_it(
        secret in "[ -~]{16,60}",
        before in "[a-z ]{0,40}",
        after in "[a-z ]{0,40}",
    ) {
        let text = format!("{before}{secret}{after}");
        for form in [BASE64_STANDARD.encode(&text), BASE64_URL_SAFE_NO_PAD.encode(&text)] {
            let shown = redacted(&secret, &form);
            let (first, last) = ((8 * before.len()).div_ceil(6), 8 * (before.len() + secret.len()) / 6);
            let inner = &form[first..last];
            let runs = || inner.as_bytes().windows(RUN).map(|run| std::str::from_utf8(run).unwrap());
            assert!(!runs().any(|run| shown.contains(run)), "{inner} in {shown}");
            assert!(shown.starts_with(&form[..first.saturating_sub(2)]), "{shown} of {form}");
        }
    }

    #[test]
    fn a_text_without_secrets_is_not_changed(secret in any_secret(), text in "[a-z :,.\"]{0,200}") {
        assert_eq!(redacted(&secret, &text), text);
    }
}

#[test]
fn short_values_do_not_pass_as_base64_or_hex() {
    for length in SHORTEST..RUN {
        let secret = &"pA7!wz$Q9kLm2xYc"[..length];
        for before in ["", "x", "xy"] {
            let encoded = BASE64_STANDARD.encode(format!("{before}{secret}z"));
            let known = &encoded[(8 * before.len()).div_ceil(6)..8 * (before.len() + length) / 6];
            let shown = redacted(secret, &format!("value {encoded} is wrong"));
            assert!(!shown.contains(known) && shown.ends_with(" is wrong"), "{known} in {shown}");
        }
        let shown = redacted(secret, &format!("value {} is wrong", hex::encode(secret)));
        assert_eq!(shown, "value ***stripped*** is wrong");
    }
}

#[test]
fn line_breaks_and_separators_hide_nothing() {
    let secret: String = (0..150_u8).map(|byte| char::from(b'!' + byte.wrapping_mul(37) % 90)).collect();
    let wrapped = |text: &str, width: usize, by: &str| {
        let lines = text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap());
        lines.collect::<Vec<_>>().join(by)
    };
    let base64 = BASE64_STANDARD.encode(&secret);
    let hex = hex::encode(&secret);
    for text in [
        wrapped(&base64, 64, "\n"),
        wrapped(&base64, 76, "\r\n"),
        wrapped(&base64, 12, " "),
        wrapped(&base64, 12, "\\n"),
        wrapped(&base64, 12, "\\\\n"),
        wrapped(&base64, 12, "%0A"),
        base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"),
        base64.replace('/', "\\/"),
        wrapped(&hex, 2, ":"),
        wrapped(&hex, 2, " "),
        wrapped(&hex, 8, "\n"),
        wrapped(&hex, 2, ", 0x"),
        wrapped(&hex, 2, "\\x"),
        wrapped(&secret, 10, "\n"),
        serde_json::to_string(&serde_json::to_string(&secret).unwrap()).unwrap(),
        format!("{secret:?}"),
        hex.as_bytes().chunks(2).map(|byte| format!("%{}", std::str::from_utf8(byte).unwrap())).collect(),
    ] {
        let shown = redacted(&secret, &format!("got {text}; try again"));
        assert!(shown.starts_with("got ") && shown.ends_with("; try again"), "{shown}");
        assert!(shown.len() < 60, "{shown} of {text}");
    }
}

#[test]
fn halves_of_a_secret_do_not_pass() {
    for secret in ["s3cr3t-client-9e3779b9", "hQ4z8Wm1Rb6Xk2Vd", &key_file()] {
        let (first, second) = secret.split_at(secret.len() / 2);
        let shown = redacted(secret, &format!("first <{first}> then <{second}>"));
        assert!(!shown.contains(first) && !shown.contains(second), "{shown}");
        // A half that the class has does not take the other one with it.
        let shown = redacted_with(&[("half", first)], &[("pass", secret)], &format!("read {secret} twice"));
        assert!(!shown.contains(second) && !shown.contains(&second[..second.len() / 2]), "{shown}");
    }
}

#[test]
fn the_error_about_a_key_file_keeps_its_url() {
    let file = key_file();
    let said = "oauth2: cannot fetch token: Post \"https://oauth2.googleapis.com/token\": 400 Bad Request, \
        see https://accounts.google.com/o/oauth2/auth; Get \"https://secretmanager.googleapis.com/v1/projects/x\": no";
    assert_eq!(redacted(&file, said), said);
    // With the class's own words, and without the key.
    let resource = "projects/shop-4711/secrets/password";
    let key: serde_json::Value = serde_json::from_str(&file).unwrap();
    let key = key["private_key"].as_str().unwrap();
    let said = format!("{said}: access {resource} with {key} of {file}");
    let shown = redacted_with(&[("resourceName", resource)], &[("key.json", &file)], &said);
    assert!(shown.contains("Post \"https://oauth2.googleapis.com/token\": 400") && shown.contains(resource), "{shown}");
    assert!(shown.contains("-----BEGIN PRIVATE KEY-----"), "{shown}");
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!line.as_bytes().windows(RUN).any(|run| shown.contains(std::str::from_utf8(run).unwrap())), "{shown}");
    }
    assert!(!shown.contains("0123456789abcdef"), "{shown}");
}

#[test]
fn what_readers_know_stays_readable() {
    let id = "2f1f9a1e-5c8e-4d51-9d11-2d6b8f1c0a77";
    let pairs = [("clientID", id), ("clientsecret", "kX8~very-long-secret-of-a-client")];
    let parameters = [("role", "arn:aws:iam::1234:role/reader-of-secrets"), ("id", id)];
    let pairs = [pairs[0], pairs[1], ("config", "role=arn:aws:iam::1234:role/reader-of-secrets;key=hQ4z8Wm1Rb6Xk2Vd")];
    let said = format!("{id} may not assume arn:aws:iam::1234:role/reader-of-secrets");
    assert_eq!(redacted_with(&parameters, &pairs, &said), said);
    let said = "arn:aws:iam::1234:role/reader-of-secrets;key=hQ4z8Wm1Rb6Xk2Vd and -----BEGIN CERTIFICATE-----";
    assert_eq!(
        redacted_with(&parameters, &pairs, said),
        "arn:aws:iam::1234:role/reader-of-secrets***stripped*** and -----BEGIN CERTIFICATE-----"
    );
}

#[test]
fn a_secret_of_too_many_short_values_lets_nothing_pass() {
    let lines: Vec<String> = (0..5_000).map(|line| format!("line-{line}")).collect();
    assert_eq!(redacted(&lines.join("\n"), "cannot use line-4999"), WITHHELD);
    assert_eq!(redacted(&lines[..4_000].join("\n"), "cannot use line-3999"), "cannot use ***stripped***");
}

#[test]
fn the_end_of_a_text_that_is_too_long_is_not_shown() {
    let text = format!("{}kX8~very-short", "x ".repeat(TEXT / 2 - 4));
    let shown = redacted("kX8~very-short", &text);
    assert!(shown.len() <= TEXT - TAIL && !shown.contains("kX8~"), "{}", shown.len());
}

/// Far more than it takes, even where other tests run: a quadratic search would take hours.
#[test]
fn a_megabyte_of_secrets_is_looked_for_in_linear_time() {
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut text = |length: usize| -> String {
        (0..length).map(|_| char::from(b' ' + u8::try_from(random() % 95).unwrap())).collect()
    };
    let values: Vec<String> = (0..1_024).map(|_| text(1_024)).collect();
    let said = values.iter().map(|value| BASE64_STANDARD.encode(&value[..30])).collect::<String>();
    let said = &said[..TEXT];
    let keys: Vec<String> = (0..values.len()).map(|at| at.to_string()).collect();
    let secrets: Vec<_> = keys.iter().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
    let (caller, parameters) = (caller(&[], &secrets), strings(&[("objects", &text(1 << 20))]));
    let began = std::time::Instant::now();
    let shown = Redactor::new(&parameters, &caller).redact(said);
    let took = began.elapsed();
    assert!(shown.starts_with(STRIPPED) && shown.len() < 100, "{shown}");
    assert!(took < std::time::Duration::from_secs(120), "{took:?}");
}
