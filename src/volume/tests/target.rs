use crate::volume::{TargetPath, TargetPathError};

#[test]
fn only_clean_absolute_paths_are_targets() {
    let kubelets = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/v/mount";
    let target = TargetPath::new(kubelets).unwrap();
    assert_eq!(target.to_string(), kubelets);
    assert_eq!(target.name(), "mount");
    assert_eq!(target.parent().to_str(), Some("/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/v"));
    assert_eq!(TargetPath::new("/a/b/").unwrap(), TargetPath::new("/a/b").unwrap());
    for bad in ["a/b", "", "b"] {
        assert_eq!(TargetPath::new(bad), Err(TargetPathError::Relative), "{bad}");
    }
    for bad in ["/", "/a", "/a/../b", "/a/./b", "/a//b", "/a/b//", "/a/b\0", "/a/.."] {
        assert_eq!(TargetPath::new(bad), Err(TargetPathError::NotClean), "{bad}");
    }
    let long = "/a".repeat(2048);
    assert_eq!(TargetPath::new(&long), Err(TargetPathError::TooLong(4096)));
}
