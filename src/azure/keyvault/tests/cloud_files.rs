//! The files of custom clouds that a class can name.

use std::path::Path;

use super::super::{CloudFileError, CloudFileName, CloudFiles};

const CLOUD: &str = r#"{"activeDirectoryEndpoint": "https://login.x.y/", "keyVaultDNSSuffix": "vault.x.y"}"#;

/// The administrator's folder and file, and beside them a file that a pod can write.
fn files() -> (tempfile::TempDir, CloudFiles) {
    let outer = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(outer.path().join("clouds")).unwrap();
    for file in ["clouds/stack.json", "default.json", "theirs.json"] {
        std::fs::write(outer.path().join(file), CLOUD).unwrap();
    }
    let (folder, file) = (Some(outer.path().join("clouds")), Some(outer.path().join("default.json")));
    (outer, CloudFiles { folder, file })
}

fn read(files: &CloudFiles, name: &str) -> Result<String, String> {
    let name = CloudFileName::new(name).ok_or("no name")?;
    files.read(Some(&name)).map(|cloud| cloud.authority().to_owned()).map_err(|error| error.to_string())
}

#[test]
fn a_class_names_a_file_of_the_administrators() {
    let (outer, files) = files();
    let path = |below: &str| outer.path().join(below).display().to_string();
    for name in ["stack.json", &path("clouds/stack.json"), &path("clouds/./stack.json"), &path("default.json")] {
        assert_eq!(read(&files, name).as_deref(), Ok("login.x.y"), "{name}");
    }
    assert_eq!(files.read(None).unwrap().vault_suffix(), "vault.x.y");
    let text = read(&files, "absent.json").unwrap_err();
    assert!(text.contains("\"absent.json\" of --cloud-files-dir"), "{text}");
}

#[test]
fn any_other_path_is_refused_in_the_same_words_whatever_exists() {
    let (outer, files) = files();
    let path = |below: &str| outer.path().join(below).display().to_string();
    let refusal = |name: &str| match files.read(Some(&CloudFileName::new(name).unwrap())) {
        Err(error @ CloudFileError::Refused { .. }) => error.to_string().replace(name, "NAME"),
        other => panic!("{name}: {other:?}"),
    };
    let wanted = refusal("/absent");
    for word in ["cloudEnvFileName", "--cloud-files-dir", "--cloud-file", "AZURE_ENVIRONMENT_FILEPATH"] {
        assert!(wanted.contains(word), "{word:?} is missing in: {wanted}");
    }
    for name in [
        &path("theirs.json"),
        &path("absent.json"),
        &path("clouds/../theirs.json"),
        &path("clouds/../absent.json"),
        &path("clouds-beside"),
        "/",
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/1/root/etc/passwd",
        "/dev/zero",
        "//etc/passwd",
    ] {
        assert_eq!(refusal(name), wanted, "{name}");
    }
    for name in ["", ".", "..", "../theirs.json", "a/b", "a\0b", "/a\0b", "clouds/stack.json"] {
        assert!(CloudFileName::new(name).is_none(), "{name:?}");
    }
}

#[test]
fn without_settings_a_class_can_name_no_file() {
    let none = CloudFiles::default();
    for name in ["stack.json", "/etc/passwd", "/absent"] {
        assert!(read(&none, name).unwrap_err().contains("--cloud-files-dir"), "{name}");
    }
    assert!(matches!(none.read(None), Err(CloudFileError::NotNamed)));
    let beside = CloudFiles { folder: Some(Path::new("/absent-folder").to_owned()), file: None };
    assert!(matches!(beside.read(None), Err(CloudFileError::NotNamed)));
    assert!(read(&beside, "/etc/passwd").unwrap_err().contains("is refused"));
}
