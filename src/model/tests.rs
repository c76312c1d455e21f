use std::collections::BTreeMap;

use super::*;

/// The pod `shop/web` without a UID, whose service account is `web`, with these attributes and
/// secrets.
pub(crate) fn caller(attributes: &[(&str, &str)], secrets: &[(&str, &str)]) -> Caller {
    let pod = PodRef { namespace: "shop".parse().unwrap(), name: "web".parse().unwrap(), uid: String::new() };
    let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let secrets = secrets.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect();
    Caller::new(pod, Some("web".parse().unwrap()), attributes, secrets)
}

fn exposed<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<&'a str, &'a str> {
    pairs.collect()
}

#[test]
fn a_caller_gives_back_what_was_sent_and_shows_none_of_it() {
    let (one, two) = (r#"{"a":{"token":"hunter1"}}"#, r#"{"a":{"token":"hunter2"}}"#);
    let caller = caller(&[("region", "r"), (TOKENS, one)], &[("pass", "hunter3"), (TOKENS, two)]);
    assert_eq!(caller.attributes().keys().collect::<Vec<_>>(), ["region"]);
    assert_eq!(caller.credentials().keys().collect::<Vec<_>>(), ["pass"]);
    assert_eq!(caller.tokens().unwrap().get("a").unwrap().expose_secret(), "hunter2", "the secrets count first");
    assert!(caller.tokens().unwrap().get("b").is_none());
    assert_eq!(exposed(caller.exposed_attributes()), [("region", "r"), (TOKENS, two)].into());
    assert_eq!(exposed(caller.exposed_secrets()), [("pass", "hunter3"), (TOKENS, two)].into());
    let text = format!("{caller:?} {:?} {:?}", caller.sent_tokens(), caller.tokens());
    assert!(text.contains("shop") && !text.contains("hunter"), "{text}");
    let bare = caller.without_tokens();
    assert_eq!(bare.tokens().unwrap_err(), TokensError::NotSent);
    assert_eq!(exposed(bare.exposed_attributes()), [("region", "r")].into());
}

fn file(name: &str, content: &[u8]) -> SecretFile {
    SecretFile { name: FileName::new(name).unwrap(), mode: FileMode::DEFAULT, content: content.to_vec().into() }
}

/// The path table of upstream (docs/reference/csi-driver.md#path-table), and our additions.
#[test]
fn file_names_follow_the_drivers_path_rules() {
    for good in ["i/am/well/behaved.txt", "name", "foo", "foo/bar", "foo\\bar", ".hidden", "a/..b", "a..b", "a b"] {
        assert!(FileName::new(good).is_ok(), "{good}");
    }
    let long_path = "a/".repeat(2048) + "b";
    let long_component = "c".repeat(256);
    let deep = "d/".repeat(16) + "e";
    for (bad, why) in [
        ("", FileNameError::Empty),
        ("/dev/null", FileNameError::Absolute),
        ("..sneaky.txt", FileNameError::Reserved),
        ("hello/there/../../../../../../etc/passwd", FileNameError::Traversal),
        ("hello/../etc/x", FileNameError::Traversal),
        ("foo////bar", FileNameError::NotClean),
        ("./a", FileNameError::NotClean),
        ("a/", FileNameError::NotClean),
        (".", FileNameError::NotClean),
        ("..", FileNameError::Traversal),
        ("..data", FileNameError::Reserved),
        ("a\0b", FileNameError::Nul),
        (&long_path, FileNameError::TooLong(4097)),
        (&long_component, FileNameError::ComponentTooLong(256)),
        (&deep, FileNameError::TooDeep(17)),
    ] {
        assert_eq!(FileName::new(bad), Err(why), "{bad}");
    }
}

#[test]
fn a_payload_refuses_two_files_of_one_path() {
    let twice = Payload::new(vec![file("a", b"1"), file("a", b"2")], vec![]).unwrap_err();
    assert_eq!(twice, PayloadError::Duplicate("a".into()));
    assert_eq!(twice.reason(), Reason::ClassInvalid);
}

#[test]
fn a_payload_refuses_a_file_that_is_a_directory_too() {
    for names in [["a", "a/b/c"], ["a/b/c", "a/b"]] {
        let both = Payload::new(names.iter().map(|name| file(name, b"")).collect(), vec![]).unwrap_err();
        assert!(matches!(both, PayloadError::FileAndDirectory { .. }), "{both}");
    }
}

#[test]
fn a_payload_is_limited_in_whole_pages() {
    let small = (0..1024).map(|i| file(&format!("f{i}"), b"x")).collect();
    assert!(Payload::new(small, vec![]).is_ok());
    let more = (0..1025).map(|i| file(&format!("f{i}"), b"x")).collect();
    assert_eq!(Payload::new(more, vec![]).unwrap_err().reason(), Reason::TooLarge);
    assert_eq!(Payload::new(vec![], vec![]).unwrap_err(), PayloadError::Empty);
}

#[test]
fn modes_are_permission_bits_only() {
    assert_eq!(FileMode::new(0o440).unwrap().to_string(), "0440");
    assert_eq!(FileMode::new(0o400).unwrap().group_readable().bits(), 0o440);
    assert!(FileMode::new(0o1777).is_none());
}

#[test]
fn secrets_do_not_print() {
    let text = format!("{:?}", file("a", b"hunter2"));
    assert!(!text.contains("hunter2") && !text.contains("104, 117"), "{text}");
    assert!(!format!("{:?}", SecretString::from("hunter2")).contains("hunter2"));
}

#[test]
fn reason_names_are_unique_words() {
    let mut names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_alphabetic())));
}

/// What a tenant might write where a name is asked for, so that it leads elsewhere in a URL, an
/// object or a log.
const HOSTILE: &[&str] = &[
    "",
    ".",
    "..",
    "../x",
    "../../../../api/v1/secrets",
    "a/b",
    "/a",
    "a/",
    "a?watch=true",
    "a#x",
    "a%2fb",
    "%2e%2e",
    "a b",
    " a",
    "a\n",
    "a\0b",
    "a\u{2028}b",
    "ä",
    "a&b=c",
    "a,b",
    "a;b",
    "a@b",
    "a:b",
    "a\\b",
    "$(a)",
    "{a}",
];

#[test]
fn names_follow_the_api_servers_rules() {
    for hostile in HOSTILE {
        assert!(ResourceName::new(*hostile).is_err(), "{hostile:?}");
        assert!(Namespace::new(*hostile).is_err(), "{hostile:?}");
        assert!(Uid::new(*hostile).is_err(), "{hostile:?}");
        assert!(hostile.is_empty() || check_label("a", hostile).is_err(), "{hostile:?}");
    }
    for good in ["a", "0", "a-b", "a.b-c.0", &"a".repeat(253)] {
        assert!(ResourceName::new(good).is_ok(), "{good}");
    }
    for bad in ["A", "-a", "a-", "a..b", ".a", "a.", "a.-b", "a_b", &"a".repeat(254)] {
        assert!(ResourceName::new(bad).is_err(), "{bad}");
    }
    assert!(Namespace::new("a".repeat(63)).is_ok() && Namespace::new("a".repeat(64)).is_err());
    assert!(Namespace::new("a.b").is_err(), "a namespace is one label");
    assert!(Uid::new("0d1f5a2e-1111-4c2b-8d55-AA00aa00aa00").is_ok() && Uid::new("u".repeat(64)).is_err());
    let text = ResourceName::new("../\n".repeat(100)).unwrap_err().to_string();
    assert!(
        text.starts_with("\"../\\n../") && text.contains("use at most 253 lower-case letters") && text.len() < 400,
        "{text}"
    );
}

#[test]
fn keys_and_values_follow_the_api_servers_rules() {
    for good in ["a", "A.b_c-9", "example.com/a", "a".repeat(63).as_str()] {
        assert!(check_label(good, "").is_ok() && check_annotation(good).is_ok(), "{good}");
    }
    for bad in ["", "-a", "a-", "/a", "a/", "a/b/c", "Example.com/a", "a b", "a".repeat(64).as_str()] {
        assert!(check_label(bad, "v").is_err(), "{bad}");
    }
    assert!(check_annotation("Example.com/A").is_ok(), "annotations may have capitals before the slash");
    assert!(check_label("a", &"v".repeat(63)).is_ok() && check_label("a", &"v".repeat(64)).is_err());
    assert!(check_label("a", "no value!").is_err() && check_label("a", "-v").is_err());
    for good in ["a", ".a", "a..b", "A_b-c", "k".repeat(253).as_str()] {
        assert!(is_secret_key(good), "{good}");
    }
    for bad in ["", ".", "..", "..a", "a/b", "a b", "ä", "k".repeat(254).as_str()] {
        assert!(!is_secret_key(bad), "{bad}");
    }
    let (key, value) = ("k".to_owned(), "v".repeat(256 << 10));
    assert!(!annotations_fit([(&key, &value)].into_iter()));
    assert!(annotations_fit([(&key, &value[1..].to_owned())].into_iter()));
}
