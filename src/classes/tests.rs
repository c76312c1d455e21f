use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::model::Reason;
use tempfile::TempDir;

/// The service principal class of the user documentation, word for word.
const DOCUMENTED: &str = "\
# This is a SecretProviderClass example using service principal to access Keyvault
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: akvprovider-demo
spec:
  provider: azure
  parameters:
    usePodIdentity: \"false\"
    keyvaultName: <key-vault-name>
    objects:  |
      array:
        - |
          objectName: DemoSecret
          objectType: secret             # object types: secret, key or cert
          objectVersion: \"\"              # [OPTIONAL] object versions, default to latest if empty
    tenantId: <tenant-Id>                # The tenant ID of the Azure Key Vault instance
";

fn class(namespace: &str, name: &str) -> ClassRef {
    ClassRef { namespace: namespace.parse().unwrap(), name: name.parse().unwrap() }
}

/// A manifest of one class, with `value` as its only parameter.
fn manifest(namespace: &str, name: &str, value: &str) -> String {
    format!(
        "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{provider: azure, parameters: {{key: {value}}}}}\n"
    )
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> (TempDir, Directory) {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let directory = Directory::open(folder.path()).unwrap();
    (folder, directory)
}

/// The parameter of the class made by [`manifest`].
fn value(directory: &Directory, namespace: &str, name: &str) -> Result<String, String> {
    let class = directory.get(&class(namespace, name)).map_err(|error| error.to_string())?;
    Ok(class.parameters["key"].clone())
}

#[test]
fn the_documented_class_is_read_into_the_default_namespace() {
    let (_folder, directory) = directory(&[("a.yaml", DOCUMENTED)]);
    let class = directory.get(&class("default", "akvprovider-demo")).unwrap();
    assert_eq!(class.provider, "azure");
    let keys: Vec<_> = class.parameters.keys().map(String::as_str).collect();
    assert_eq!(keys, ["keyvaultName", "objects", "tenantId", "usePodIdentity"]);
    assert_eq!(class.parameters["usePodIdentity"], "false");
    assert!(class.parameters["objects"].starts_with("array:\n  - |\n    objectName: DemoSecret\n"));
}

#[test]
fn documents_lists_json_and_both_versions_are_read() {
    let json = r#"{"apiVersion":"secrets-store.csi.x-k8s.io/v1alpha1","kind":"SecretProviderClass",
        "metadata":{"name":"j","namespace":""},"spec":{"provider":"vault"}}"#;
    let indented = manifest("l", "m", "listed").replace('\n', "\n  ");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {indented}\n- kind: Secret\n- 5\n");
    let several = format!("{}---\nkind: Pod\n---\n[1]\n---\n{}", manifest("a", "x", "1a"), manifest("b", "x", "1b"));
    let other = manifest("a", "foreign", "x").replace("secrets-store.csi.x-k8s.io", "example.com");
    let files = [("j.json", json), ("l.yml", &list), ("s.yaml", &several), ("o.yaml", &other), ("n.txt", "[")];
    let (_folder, directory) = directory(&files);
    let j = directory.get(&class("default", "j")).unwrap();
    assert_eq!((j.provider.as_str(), j.parameters.len()), ("vault", 0));
    assert_eq!(value(&directory, "l", "m").as_deref(), Ok("listed"));
    assert_eq!((value(&directory, "a", "x"), value(&directory, "b", "x")), (Ok("1a".into()), Ok("1b".into())));
    assert!(value(&directory, "a", "foreign").is_err());
}

#[test]
fn details_about_a_missing_class_are_for_the_log_only() {
    let files =
        [("a.yaml", &*manifest("shop", "demo", "x")), ("b.yaml", "kind: [\n"), ("c.yaml", "a: 1\nb: 2\na: s3cret\n")];
    let (folder, directory) = directory(&files);
    let error = directory.get(&class("default", "demo")).unwrap_err();
    assert_eq!(error.reason(), Reason::ClassNotFound);
    assert_eq!(
        error.to_string(),
        "failed to get secretproviderclass default/demo: not found; the class must be in the pod's namespace, and some \
         manifests of the driver cannot be read: its log names them"
    );
    assert_eq!(
        error.detail().unwrap(),
        format!(
            "searched {}; a class of that name is in namespace shop; it may be in a file that cannot be read: \"b.yaml\" (line \
             1, column 7: unclosed bracket '['), \"c.yaml\" (line 3, column 1: the key \"a\" occurs twice)",
            folder.path().display()
        )
    );
    assert_eq!(value(&directory, "shop", "demo").as_deref(), Ok("x"));
}

#[test]
fn details_about_a_duplicate_class_name_both_files() {
    let text = manifest("a", "x", "one");
    let (folder, directory) = directory(&[("one.yaml", &text), ("two.yaml", &text)]);
    let error = directory.get(&class("a", "x")).unwrap_err();
    assert_eq!(error.reason(), Reason::ClassInvalid);
    assert!(error.to_string().contains("defined twice") && !error.to_string().contains(".yaml"), "{error}");
    assert_eq!(error.detail().unwrap(), "it is in \"one.yaml\" and in \"two.yaml\"");
    fs::remove_file(folder.path().join("two.yaml")).unwrap();
    assert_eq!(value(&directory, "a", "x").as_deref(), Ok("one"));
}

#[test]
fn an_invalid_class_does_not_affect_others() {
    let start = "failed to get secretproviderclass a/x: it is invalid: ";
    for (written, why) in [
        ("true", "spec.parameters.key is a boolean, not text: put it in quotes"),
        ("no", "spec.parameters.key is a boolean, not text: put it in quotes"),
        ("5", "spec.parameters.key is a number, not text: put it in quotes"),
        ("0755", "spec.parameters.key is a number, not text: put it in quotes"),
        ("~", "spec.parameters.key is null, not text: write \"\" or leave it out"),
        ("[a]", "spec.parameters.key is a list, not text: put a | behind the colon"),
    ] {
        let text = format!("{}---\n{}", manifest("a", "x", written), manifest("a", "good", "g"));
        let (_folder, directory) = directory(&[("f.yaml", &text)]);
        let error = directory.get(&class("a", "x")).unwrap_err();
        assert_eq!((error.to_string(), error.reason()), (format!("{start}{why}"), Reason::ClassInvalid));
        assert_eq!(value(&directory, "a", "good").as_deref(), Ok("g"));
    }
    let text = manifest("a", "x", "one").replace("/v1", "/v2");
    let (_folder, directory) = directory(&[("f.yaml", &text)]);
    let error = directory.get(&class("a", "x")).unwrap_err().to_string();
    assert!(
        error.ends_with("apiVersion secrets-store.csi.x-k8s.io/v2 is not known: use secrets-store.csi.x-k8s.io/v1")
    );
}

#[test]
fn changes_are_noticed_at_once_even_with_equal_size_and_time() {
    let (folder, directory) = directory(&[]);
    let path = folder.path().join("f.yaml");
    for round in 10..60 {
        fs::write(&path, manifest("a", "x", &format!("v{round}"))).unwrap();
        assert_eq!(value(&directory, "a", "x"), Ok(format!("v{round}")));
    }
    fs::remove_file(&path).unwrap();
    assert!(value(&directory, "a", "x").is_err());
}

/// With coarse file times, a file can change twice with one time.
#[test]
fn a_file_is_read_again_until_its_last_change_is_old_enough() {
    use super::directory::{FileState, read_changed};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f.yaml");
    fs::write(&path, "a: 1").unwrap();
    let written = std::time::SystemTime::now();
    let later = written + std::time::Duration::from_secs(10);
    let stamp = |read: FileState| match read {
        FileState::Changed(stamp, Ok(_)) => Some(stamp),
        FileState::Changed(_, Err(_)) | FileState::Unchanged | FileState::NotAFile => None,
    };
    let fresh = stamp(read_changed(&path, None, written).unwrap());
    assert!(fresh.is_some() && stamp(read_changed(&path, fresh, written).unwrap()).is_some());
    let settled = stamp(read_changed(&path, fresh, later).unwrap());
    assert!(matches!(read_changed(&path, settled, later).unwrap(), FileState::Unchanged));
    fs::write(&path, "a: 12").unwrap();
    assert!(stamp(read_changed(&path, settled, later).unwrap()).is_some());
}

#[test]
fn an_unreadable_file_keeps_its_last_classes() {
    let files = [("f.yaml", &*manifest("a", "x", "old")), ("g.yaml", &*manifest("a", "z", "other"))];
    let (folder, directory) = directory(&files);
    let path = folder.path().join("f.yaml");
    for broken in [&b"kind: [\n"[..], b"\xff\xfe\xfd", &[b'a'; limits::FILE + 1]] {
        fs::write(&path, broken).unwrap();
        assert_eq!(value(&directory, "a", "x").as_deref(), Ok("old"));
        assert_eq!(value(&directory, "a", "z").as_deref(), Ok("other"));
    }
    fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    assert_eq!(value(&directory, "a", "x").as_deref(), Ok("old"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, manifest("a", "x", "new")).unwrap();
    assert_eq!(value(&directory, "a", "x").as_deref(), Ok("new"));
}

/// As a kubelet lays out and updates a ConfigMap volume.
#[test]
fn a_config_map_volume_is_followed_through_its_links() {
    let folder = TempDir::new().unwrap();
    let write = |generation: &str, value: &str| {
        fs::create_dir(folder.path().join(generation)).unwrap();
        fs::write(folder.path().join(generation).join("c.yaml"), manifest("a", "x", value)).unwrap();
        symlink(generation, folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    };
    write("..2026_01_01", "one");
    symlink("..data/c.yaml", folder.path().join("c.yaml")).unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    assert_eq!(value(&directory, "a", "x").as_deref(), Ok("one"));
    write("..2026_01_02", "two");
    assert_eq!(value(&directory, "a", "x").as_deref(), Ok("two"));
}

#[test]
fn hidden_files_subdirectories_and_pipes_are_not_read() {
    let hidden = manifest("a", "x", "hidden");
    let (folder, directory) = directory(&[(".f.yaml", &hidden), ("f.yaml~", &hidden)]);
    let below = folder.path().join("dir.yaml");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("f.yaml"), &hidden).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(folder.path().join("pipe.yaml")).status().unwrap();
    assert!(pipe.success());
    let error = value(&directory, "a", "x").unwrap_err();
    assert!(!error.contains("cannot be read"), "{error}");
}

#[test]
fn too_many_files_or_classes_are_an_error() {
    let (folder, directory) = directory(&[]);
    for at in 0..=limits::FILES {
        fs::File::create(folder.path().join(format!("{at}.yaml"))).unwrap();
    }
    let error = directory.get(&class("a", "x")).unwrap_err();
    assert!(error.to_string().ends_with("has more than 4096 manifest files"), "{error}");
    let (folder, _) = self::directory(&[]);
    for file in 0..11 {
        let all: String = (0..1000).map(|at| manifest("a", &format!("c{file}-{at}"), "x") + "---\n").collect();
        fs::write(folder.path().join(format!("{file}.yaml")), all).unwrap();
    }
    let error = Directory::open(folder.path()).unwrap_err();
    assert!(error.to_string().ends_with("has more than 10000 classes"), "{error}");
}

#[test]
fn a_missing_directory_is_an_error() {
    let folder = TempDir::new().unwrap();
    let error = Directory::open(folder.path().join("gone")).unwrap_err();
    assert!(error.to_string().contains("cannot be read: No such file"), "{error}");
    assert!(error.detail().unwrap().ends_with("gone") && !error.to_string().contains("gone"), "{error}");
    fs::write(folder.path().join("file"), "").unwrap();
    assert!(Directory::open(folder.path().join("file")).is_err());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn warnings(&self) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches("manifest cannot be read").count()
    }
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

#[test]
fn a_broken_file_is_logged_once_per_change() {
    // `tracing` caches for the whole process whether a log statement is enabled, and concurrent
    // tests without a subscriber would disable it. The first global subscriber stays, whichever
    // test sets it.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let (folder, directory) = directory(&[("f.yaml", "kind: [\n")]);
        assert_eq!(log.warnings(), 1);
        for _ in 0..3 {
            assert!(value(&directory, "a", "x").is_err());
        }
        assert_eq!(log.warnings(), 1);
        replace(&folder.path().join("f.yaml"), "kind: {\n");
        for _ in 0..3 {
            assert!(value(&directory, "a", "x").is_err());
        }
        assert_eq!(log.warnings(), 2);
        replace(&folder.path().join("f.yaml"), &manifest("a", "x", "one"));
        assert_eq!(value(&directory, "a", "x").as_deref(), Ok("one"));
        assert_eq!(log.warnings(), 2);
    });
}

#[tokio::test]
async fn classes_come_from_either_source() {
    let (_folder, directory) = directory(&[("f.yaml", &manifest("a", "x", "one"))]);
    let classes = Classes::Directory(directory);
    assert_eq!(classes.get(&class("a", "x")).await.unwrap().parameters["key"], "one");
    assert_eq!(classes.get(&class("a", "y")).await.unwrap_err().reason(), Reason::ClassNotFound);
}

#[test]
fn a_class_without_a_name_breaks_its_file() {
    for name in ["", "5", "yes"] {
        let (_folder, directory) = directory(&[("f.yaml", &manifest("a", name, "one"))]);
        let error = directory.get(&class("a", "x")).unwrap_err().detail().unwrap();
        assert!(error.contains("\"f.yaml\" (a SecretProviderClass has no metadata.name that is text"), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn no_manifest_panics(text in "[-:|>&*!{}\\[\\],'\"#% \nab0~]{0,120}") {
        let _ = manifest::parse(&text);
        let _ = manifest::parse(&manifest("a", "x", &text));
    }
}
