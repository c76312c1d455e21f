use super::*;

fn file(name: &str, content: &[u8]) -> SecretFile {
    SecretFile { name: FileName::new(name).unwrap(), mode: FileMode::DEFAULT, content: content.to_vec().into() }
}

/// The path table of upstream (spec/driver.md §11.2), and our additions.
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
