//! docs/reference/azure-provider.md#objects and docs/reference/azure-provider.md#parameter-tests.

use super::*;
use crate::model::{FileMode, FileName};
use proptest::prelude::*;

#[test]
fn an_object_has_defaults() {
    let expected = ObjectSpec {
        object_type: ObjectType::Secret,
        name: "secret1".into(),
        version: Version::Latest,
        history: 0,
        format: Format::Pem,
        encoding: Encoding::Utf8,
        mode: None,
        file: FileName::new("secret1").unwrap(),
    };
    assert_eq!(object(&secret("")), Ok(expected.clone()));
    assert_eq!(object("{\"objectType\":\"secret\",\"objectName\":\"secret1\"}"), Ok(expected.clone()));
    assert_eq!(object(&secret("objectVersion: \"\"\nobjectAlias:\nobjectFormat: ~\nunknown: [1]")), Ok(expected));
}

#[test]
fn every_text_is_trimmed() {
    let spec = object(
        "objectName: \" secret1 \"\nobjectType: 'secret '\nobjectAlias: ' a b '\nobjectVersion: ' latest '\n\
         objectFormat: ' PFX '\nobjectEncoding: ' BasE64 '\nfilePermission: ' 0600 '\nobjectVersionHistory: 3\n",
    )
    .unwrap();
    assert_eq!(spec.file.as_str(), "a b");
    assert_eq!((spec.format, spec.encoding, spec.history), (Format::Pfx, Encoding::Base64, 3));
    assert_eq!((spec.version, spec.mode), (Version::Latest, FileMode::new(0o600)));
}

#[test]
fn scalars_of_any_type_arrive_as_text() {
    let spec = object("objectName: 0755\nobjectType: secret\nobjectAlias: 1e5\nfilePermission: 0400\n").unwrap();
    assert_eq!((spec.name.as_str(), spec.file.as_str(), spec.mode), ("0755", "1e5", FileMode::new(0o400)));
    let named = |name: &str| object(&format!("objectName: {name}\nobjectType: secret\n")).map(|spec| spec.name);
    for name in ["true", "0x1f", "123", "2020-01-01", "yes"] {
        assert_eq!(named(name).as_deref(), Ok(name));
    }
    assert_eq!(named("\"null\"").as_deref(), Ok("null"));
    for version in ["12345678901234567890123456789012", "1234567890123456789012345678e012"] {
        let spec = object(&secret(&format!("objectVersion: {version}"))).unwrap();
        assert_eq!(spec.version, Version::Pinned(version.into()));
    }
}

#[test]
fn types_are_exact() {
    for (word, object_type) in
        [("secret", ObjectType::Secret), ("key", ObjectType::Key), ("cert", ObjectType::Certificate)]
    {
        let spec = object(&format!("objectName: a\nobjectType: {word}\n")).unwrap();
        assert_eq!((spec.object_type, spec.version_id(None)), (object_type, format!("{word}/a")));
    }
    let fix = "use secret, key or cert, in lower case";
    for word in ["Secret", "SECRET", "certificate", "certs"] {
        let lines = format!("objectName: a\nobjectType: {word}\n");
        assert_eq!(mistake(&lines), format!("objectType {word:?} is not an object type: {fix}"));
    }
    assert_eq!(mistake("objectName: a\n"), format!("objectType is not set: {fix}"));
}

#[test]
fn formats_and_encodings_follow_the_type() {
    for (lines, format, encoding) in [
        ("objectType: cert", Format::Pem, Encoding::Utf8),
        ("objectType: cert\nobjectFormat: PEM", Format::Pem, Encoding::Utf8),
        ("objectType: secret\nobjectFormat: PFX", Format::Pfx, Encoding::Utf8),
        ("objectType: secret\nobjectFormat: pfx", Format::Pfx, Encoding::Utf8),
        ("objectType: secret\nobjectEncoding: BasE64", Format::Pem, Encoding::Base64),
        ("objectType: secret\nobjectEncoding: UTF-8", Format::Pem, Encoding::Utf8),
        ("objectType: secret\nobjectEncoding: HEX", Format::Pem, Encoding::Hex),
    ] {
        let spec = object(&format!("objectName: a\n{lines}\n")).unwrap();
        assert_eq!((spec.format, spec.encoding), (format, encoding), "{lines}");
    }
    for (lines, wrong) in [
        ("objectType: secret\nobjectFormat: pkcs", "objectFormat \"pkcs\" is not a format: use pem or pfx"),
        (
            "objectType: secret\nobjectEncoding: utf-16",
            "objectEncoding \"utf-16\" is not an encoding: use utf-8, base64 or hex",
        ),
    ] {
        assert_eq!(mistake(&format!("objectName: a\n{lines}\n")), wrong);
    }
    for (lines, wrong) in [
        ("objectType: cert\nobjectFormat: pfx", "objectFormat is pfx, but objectType is cert"),
        ("objectType: cert\nobjectFormat: PFX", "objectFormat is pfx, but objectType is cert"),
        ("objectType: key\nobjectFormat: pfx", "objectFormat is pfx, but objectType is key"),
        ("objectType: cert\nobjectEncoding: base64", "objectEncoding is set, but objectType is cert"),
        ("objectType: key\nobjectEncoding: utf-8", "objectEncoding is set, but objectType is key"),
    ] {
        let text = mistake(&format!("objectName: a\n{lines}\n"));
        assert!(text.starts_with(wrong), "{text}");
    }
}

#[test]
fn the_file_is_the_alias_or_the_name() {
    for (alias, file) in [("", "secret1"), ("a", "a"), ("db/password", "db/password"), (".hidden", ".hidden")] {
        assert_eq!(object(&secret(&format!("objectAlias: {alias:?}"))).unwrap().file.as_str(), file);
    }
    let fix = "use a plain relative path below the mount, such as db/password";
    for (alias, wrong) in [
        ("secret1/..", "\"secret1/..\" contains \"..\""),
        ("../secret1", "\"../secret1\" contains \"..\""),
        ("a..b", "\"a..b\" contains \"..\""),
        (
            "/secret1",
            "\"/secret1\" cannot be used, the file name must be relative to the mount, but it starts with '/'",
        ),
        (
            "./a",
            "\"./a\" cannot be used, the file name is not in its shortest form: no empty component, no '.', no trailing '/'",
        ),
        (
            "a//b",
            "\"a//b\" cannot be used, the file name is not in its shortest form: no empty component, no '.', no trailing '/'",
        ),
        ("a\0b", "\"a\\0b\" cannot be used, the file name holds a NUL byte"),
    ] {
        let lines = secret(&format!("objectAlias: {}", serde_json::to_string(alias).unwrap()));
        assert_eq!(mistake(&lines), format!("objectAlias {wrong}: {fix}"));
    }
}

#[test]
fn names_are_key_vaults() {
    let fix = "use the object's name in the vault: 1 to 127 ASCII letters, digits and '-'";
    let long = "a".repeat(128);
    for (name, wrong) in [
        ("", "is not set"),
        ("/secret1", "\"/secret1\" contains '/'"),
        ("secret1/..", "\"secret1/..\" contains '/'"),
        ("../secret1", "\"../secret1\" contains '.'"),
        ("db_pass", "\"db_pass\" contains '_'"),
        ("a%2fb", "\"a%2fb\" contains '%'"),
        (&long, "is 128 characters long"),
    ] {
        let lines = format!("objectName: {name:?}\nobjectType: secret\n");
        assert_eq!(mistake(&lines), format!("objectName {wrong}: {fix}"));
        let aliased = format!("{lines}objectAlias: fine\n");
        assert_eq!(mistake(&aliased), format!("objectName {wrong}: {fix}"));
    }
    assert_eq!(
        mistake("ObjectName: a\nobjectType: secret\n"),
        format!("objectName is not set: {fix} (ObjectName is ignored, the name is spelt objectName)")
    );
}

#[test]
fn a_version_is_latest_or_32_hex_digits() {
    assert_eq!(object(&secret("objectVersion: latest")).unwrap().version, Version::Latest);
    let fix = "use the 32 hex digits of the version in quotes, or leave it out for the latest";
    for (version, wrong) in [
        ("Latest", "\"Latest\" contains 'L'"),
        ("../../keys/k", "\"../../keys/k\" contains '.'"),
        ("abc", "is 3 characters long"),
        ("1.2345678901234568e+31", "\"1.2345678901234568e+31\" contains '.'"),
    ] {
        assert_eq!(mistake(&secret(&format!("objectVersion: {version}"))), format!("objectVersion {wrong}: {fix}"));
    }
}

#[test]
fn history_is_an_integer_and_more_than_one_means_history() {
    for (written, expected) in [("0", false), ("1", false), ("-5", false), ("4", true), ("2.0", true), ("~", false)] {
        let spec = object(&secret(&format!("objectVersionHistory: {written}"))).unwrap();
        assert_eq!(spec.has_history(), expected, "{written}");
    }
    let spec = object(&secret("objectVersionHistory: 9\nobjectAlias: folder/multiple-versions")).unwrap();
    assert_eq!((spec.version_id(Some(8)), spec.version_id(None)), ("secret/secret1/8".into(), "secret/secret1".into()));
    let fix = "write a whole number without quotes, for example 2";
    for (written, wrong) in
        [("\"2\"", "is a number in quotes"), ("two", "is text, not a number"), ("1.5", "is not a whole number")]
    {
        let text = mistake(&secret(&format!("objectVersionHistory: {written}")));
        assert_eq!(text, format!("objectVersionHistory {wrong}: {fix}"));
    }
}

#[test]
fn modes_are_octal_text_up_to_0777() {
    for (written, mode) in
        [("0600", 0o600), ("600", 0o600), ("+644", 0o644), ("\"0755\"", 0o755), ("0", 0), ("0777", 0o777)]
    {
        assert_eq!(object(&secret(&format!("filePermission: {written}"))).unwrap().mode, FileMode::new(mode));
    }
    assert_eq!(object(&secret("filePermission: ''")).unwrap().mode, None);
    let fix = "write the mode as octal text in quotes, for example \"0644\"; some tools turn an unquoted 0644 into 420";
    for (written, wrong) in [
        ("0900", "\"0900\" is not octal"),
        ("900", "\"900\" is not octal"),
        ("493", "\"493\" is not octal"),
        ("0o755", "\"0o755\" is not octal"),
        ("rw-", "\"rw-\" is not octal"),
        ("-1", "\"-1\" is not octal"),
        ("'+'", "\"+\" is not octal"),
        ("0_6", "\"0_6\" is not octal"),
        ("1777", "\"1777\" is above 0777"),
        ("7777777777777777777777777", "\"7777777777777777777777777\" is above 0777"),
    ] {
        assert_eq!(mistake(&secret(&format!("filePermission: {written}"))), format!("filePermission {wrong}: {fix}"));
    }
}

#[test]
fn all_mistakes_of_an_object_are_found() {
    let all = object(
        "objectName: a_b\nobjectAlias: /x\nobjectType: sekret\nobjectVersion: v1\nobjectVersionHistory: '2'\n\
         objectFormat: der\nobjectEncoding: utf8\nfilePermission: 999\n",
    )
    .unwrap_err();
    let fields: Vec<_> = all.iter().map(|mistake| mistake.field).collect();
    assert_eq!(
        fields,
        [
            "objectType",
            "objectFormat",
            "objectEncoding",
            "objectName",
            "objectVersion",
            "objectVersionHistory",
            "filePermission",
            "objectAlias",
        ]
    );
    assert!(all.iter().all(|mistake| mistake.object.as_ref().unwrap().to_string() == "object 1 (sekret a_b)"));
}

#[test]
fn broken_yaml_is_one_mistake_with_its_line() {
    for (lines, wrong) in [
        ("objectName: a\nobjectName: b\n", "line 2, column 1: the key \"objectName\" occurs twice"),
        ("objectName: [a]\n", "line 1, column 13: expected string scalar"),
        ("objectType: secret\nobjectName: {a: b}\n", "line 2, column 13: expected string scalar"),
    ] {
        assert!(
            mistake(lines).starts_with(&format!("its text cannot be read as YAML, {wrong}: ")),
            "{}",
            mistake(lines)
        );
    }
}

fn field() -> impl Strategy<Value = String> {
    let names = proptest::sample::select(super::super::mistake::FIELDS);
    let values = prop_oneof![
        ".{0,40}",
        "[a-z./\\\\]{0,20}",
        Just("secret".to_owned()),
        "[0-9a-f]{32}",
        "[0-7]{1,4}",
        "(a|\\.|\\.\\.|/){1,8}",
    ];
    (names, values).prop_map(|(name, value)| format!("{name}: {}\n", serde_json::to_string(&value).unwrap_or_default()))
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}", raw in proptest::collection::vec(any::<u8>(), 0..200)) {
        let raw = String::from_utf8_lossy(&raw).into_owned();
        for text in [text, raw] {
            let _ = object(&text);
            let _ = Params::parse(&map(&[("objects", &text), ("keyvaultName", &text), ("tenantID", &text)]));
        }
    }

    #[test]
    fn no_yaml_like_text_panics(text in "[-:|>&*!{}\\[\\],'\"#%@` \nab0~?<]{0,80}") {
        let _ = object(&text);
        let _ = Params::parse(&map(&[("objects", &text)]));
    }

    #[test]
    fn every_accepted_file_lies_below_the_mount(fields in proptest::collection::vec(field(), 0..6), alias in "(a|\\.|\\.\\.|/|\\\\| ){0,8}") {
        let quoted = serde_json::to_string(&alias).unwrap_or_default();
        for lines in [fields.concat(), secret(&format!("objectAlias: {quoted}"))] {
            if let Ok(spec) = object(&lines) {
                let path = std::path::Path::new("/mnt").join(spec.file.as_str());
                let plain = |part| matches!(part, std::path::Component::Normal(_) | std::path::Component::RootDir);
                prop_assert!(path.starts_with("/mnt") && path.components().all(plain), "{path:?}");
                prop_assert!(path != std::path::Path::new("/mnt") && !spec.file.as_str().contains(".."));
            }
        }
    }
}
