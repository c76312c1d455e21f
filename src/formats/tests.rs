pub(crate) mod archive;
mod chain;
mod duration;
mod jwk;
mod jwt;
pub(crate) mod openssl;
mod pem;
mod pkcs12;
mod private_key;

use serde::Deserialize;

use super::encoding::{self, Error};
use super::yaml;

#[derive(Debug, Deserialize)]
struct Text {
    #[serde(default)]
    field: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Number {
    #[serde(default)]
    field: Option<yaml::Integer>,
}

fn text(yaml: &str) -> Result<Option<String>, String> {
    yaml::from_str::<Text>(yaml).map(|text| text.and_then(|text| text.field)).map_err(|error| error.to_string())
}

/// yaml.v3 gives a string field the source text of any scalar
/// (docs/reference/azure-provider.md#yaml-scalars).
#[test]
fn a_text_field_keeps_the_source_text_of_any_scalar() {
    for verbatim in [
        "0755",
        "1e5",
        "0x1f",
        "0o17",
        "123",
        "-1",
        "+5",
        "1_000",
        "true",
        "yes",
        "on",
        "2020-01-01",
        "12:30:45",
        "2026-01-01T00:00:00Z",
        ".nan",
        "-.inf",
        "1.10",
        "00e1",
        "12345678901234567890123456789012",
        "1234567890123456789012345678e012",
        "nULL",
        "a b",
        "http://a",
    ] {
        assert_eq!(text(&format!("field: {verbatim}\n")), Ok(Some(verbatim.to_owned())), "{verbatim}");
        assert_eq!(text(&format!("{{\"field\": {verbatim:?}}}")), Ok(Some(verbatim.to_owned())), "{verbatim} in JSON");
    }
    assert_eq!(text("field: a # comment  \n"), Ok(Some("a".into())));
    assert_eq!(text("field: |\n  a\n"), Ok(Some("a\n".into())));
    assert_eq!(text("x: &anchor a\nfield: *anchor\n"), Ok(Some("a".into())));
    assert_eq!(text("field: !!str 5\n"), Ok(Some("5".into())));
}

#[test]
fn null_is_absent_and_quoted_null_is_text() {
    for null in ["", "~", "null", "Null", "NULL", "# comment"] {
        assert_eq!(text(&format!("field: {null}\n")), Ok(None), "{null}");
    }
    for (quoted, value) in [("\"null\"", "null"), ("'~'", "~"), ("\"\"", "")] {
        assert_eq!(text(&format!("field: {quoted}\n")), Ok(Some(value.into())), "{quoted}");
    }
}

#[test]
fn only_the_first_document_is_read() {
    assert_eq!(text("field: a\n---\nfield: b\n"), Ok(Some("a".into())));
    assert_eq!(text("field: a\n---\nfield: [\n"), Ok(Some("a".into())));
    assert_eq!(text("---\n---\nfield: b\n"), Ok(None));
    for empty in ["", "\n", "# comment\n", "---\n", "~", "{}"] {
        assert_eq!(text(empty), Ok(None), "{empty:?}");
    }
}

#[test]
fn unknown_keys_are_ignored_and_keys_are_exact() {
    assert_eq!(text("Field: a\nFIELD: b\n5: c\nother: {x: [1, 2]}\n"), Ok(None));
}

#[test]
fn errors_have_line_and_column_and_no_value() {
    for (yaml, error) in [
        ("field: s3cret\nfield: b\n", "line 2, column 1: the key \"field\" occurs twice"),
        ("x: {y: s3cret, y: 2}\nfield: a", "line 1, column 16: the key \"y\" occurs twice"),
        ("field: [s3cret]\n", "line 1, column 8: expected string scalar"),
        ("field: {a: s3cret}\n", "line 1, column 8: expected string scalar"),
        ("s3cret", "line 1, column 1: expected mapping start"),
        ("- s3cret\n", "line 1, column 1: expected mapping start"),
        ("a: s3cret: b\n", "line 1, column 10: mapping values are not allowed in this context"),
        ("field: !!int s3cret", "line 1, column 14: the value has a tag of another type; write it without the tag"),
        ("field: *s3cret", "line 1, column 8: the alias has no anchor"),
        ("field: 's3cret", "line 1, column 8: unclosed quote"),
    ] {
        assert_eq!(text(yaml), Err(error.to_owned()), "{yaml}");
    }
}

/// Integral floats are integers, quoted numbers are not
/// (docs/reference/azure-provider.md#yaml-scalars).
#[test]
fn an_integer_field_accepts_yaml_integers_only() {
    let range = "is a number outside of -2147483648 to 2147483647";
    for (written, expected) in [
        ("3", Ok(3)),
        ("-1", Ok(-1)),
        ("+3", Ok(3)),
        ("3.0", Ok(3)),
        ("1e2", Ok(100)),
        ("0x11", Ok(17)),
        ("0o17", Ok(15)),
        ("017", Ok(15)),
        ("1_0", Ok(10)),
        ("2147483647", Ok(i32::MAX)),
        ("-2147483648", Ok(i32::MIN)),
        ("2147483648", Err(range)),
        ("99999999999999999999999", Err(range)),
        ("2.5", Err("is not a whole number")),
        ("\"3\"", Err("is a number in quotes")),
        ("abc", Err("is text, not a number")),
        ("true", Err("is a boolean, not a number")),
        ("[1]", Err("is a list, not a number")),
        ("{a: 1}", Err("is a mapping, not a number")),
    ] {
        let number = yaml::from_str::<Number>(&format!("field: {written}\nother: 1\n"));
        assert_eq!(number.unwrap().unwrap().field.unwrap().0, expected, "{written}");
    }
    assert_eq!(yaml::from_str::<Number>("field: ~\n").unwrap().unwrap().field, None);
}

#[test]
fn long_comments_are_accepted() {
    let comments = "# a line of prose\n".repeat(500);
    assert_eq!(text(&format!("{comments}x:\n{comments}  - a\n{comments}field: b\n")), Ok(Some("b".into())));
}

#[test]
fn bombs_are_refused_at_the_limits() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let row = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb += &format!("a{level}: &a{level} [{row}]\n");
    }
    let deep = "[".repeat(100_000);
    let nested: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let long = "x".repeat(yaml::limits::INPUT + 1);
    let wide = "- a\n".repeat(yaml::limits::NODES + 1);
    let limit = "the text is too large, too deep or uses too many aliases";
    for (name, text, why) in [
        ("bomb", &bomb, limit),
        ("deep", &deep, "recursion limit exceeded"),
        ("nested", &nested, limit),
        ("long", &long, "the text is 1048577 bytes long; at most 1048576 are read"),
        ("wide", &wide, limit),
    ] {
        let all = yaml::documents(text).unwrap_err().to_string();
        let first = yaml::from_str::<serde_json::Value>(text).unwrap_err().to_string();
        assert!(all.contains(why) && first.contains(why), "{name}: {all}; {first}");
    }
}

#[test]
fn documents_skips_empty_ones_and_fails_as_a_whole() {
    let all = yaml::documents("---\na: 1\n---\n# nothing\n---\nb: 0755\nc: yes\n").unwrap();
    assert_eq!(all.len(), 2);
    assert!(all[1]["b"].is_number() && all[1]["c"].is_boolean(), "{all:?}");
    let error = yaml::documents("a: 1\n---\nb: [s3cret\n").unwrap_err();
    assert_eq!((error.line(), error.to_string().contains("s3cret")), (3, false), "{error}");
}

#[test]
fn base64_follows_gos_standard_encoding() {
    for (text, bytes) in [
        ("", &b""[..]),
        ("aGVsbG8=", b"hello"),
        ("aGVs\r\nbG8=\n", b"hello"),
        ("aGVsbG8\n=", b"hello"),
        ("\n", b""),
        ("+/8=", b"\xfb\xff"),
        // Go ignores the bits after the last byte.
        ("aGVsbG9=", b"hello"),
    ] {
        assert_eq!(encoding::base64(text).unwrap().as_slice(), bytes, "{text:?}");
    }
    for (text, error) in [
        ("aGVs bG8=", Error::Base64 { position: 5, length: 9 }),
        ("\r\naGVs bG8=", Error::Base64 { position: 7, length: 11 }),
        ("-_8=", Error::Base64 { position: 1, length: 4 }),
        ("aGVsbG8", Error::Base64Length { length: 7 }),
        ("aGVsb", Error::Base64Length { length: 5 }),
    ] {
        assert_eq!(encoding::base64(text).unwrap_err(), error, "{text:?}");
    }
    assert!(encoding::base64("aGVsbG8=aGVsbG8=").is_err());
    assert!(encoding::base64("====").is_err());
}

#[test]
fn hex_accepts_digits_of_any_case_and_nothing_else() {
    for (text, bytes) in [("", &b""[..]), ("00fF", b"\x00\xff"), ("DEADbeef", b"\xde\xad\xbe\xef")] {
        assert_eq!(encoding::hex(text).unwrap().as_slice(), bytes, "{text}");
    }
    for (text, error) in [
        ("abc", Error::HexLength { length: 3 }),
        ("ab cd", Error::Hex { position: 3, length: 5 }),
        ("abcd\n", Error::HexLineBreak { length: 5 }),
        ("0xab", Error::Hex { position: 2, length: 4 }),
        ("é", Error::Hex { position: 1, length: 2 }),
    ] {
        assert_eq!(encoding::hex(text).unwrap_err(), error, "{text:?}");
    }
    assert_eq!(encoding::utf8("é\n").as_slice(), "é\n".as_bytes());
}
