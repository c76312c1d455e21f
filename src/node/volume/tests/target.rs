use crate::node::volume::{KubeletRoot, KubeletRootError, TargetPath, TargetPathError};

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

#[test]
fn a_root_is_cleaned_as_the_kubelet_cleans_it() {
    for (text, root) in [
        ("/var/lib/kubelet", "/var/lib/kubelet"),
        ("/var/lib/kubelet/", "/var/lib/kubelet"),
        ("//var/./lib//kubelet//", "/var/lib/kubelet"),
        ("/var/snap/microk8s/common/var/lib/kubelet/", "/var/snap/microk8s/common/var/lib/kubelet"),
        ("/k", "/k"),
    ] {
        assert_eq!(KubeletRoot::new(text).map(|root| root.to_string()).as_deref(), Ok(root), "{text}");
    }
    for bad in
        ["", "/", "//", "/.", "kubelet", "./kubelet", "/var/../kubelet", "/..", "/a\0", "/a".repeat(2048).as_str()]
    {
        assert_eq!(KubeletRoot::new(bad), Err(KubeletRootError), "{bad}");
    }
}

#[test]
fn only_the_path_of_a_kubelets_volume_is_parsed_as_one() {
    let parts = |text: &str| {
        let target = TargetPath::new(text).unwrap();
        target.kubelet_volume().map(|volume| (volume.root.to_owned(), volume.below.join("/")))
    };
    for root in ["/var/lib/kubelet", "/k", "/pods/1/volumes/kubernetes.io~csi/v/mount"] {
        let found = parts(&format!("{root}/pods/1/volumes/kubernetes.io~csi/v/mount"));
        assert_eq!(found, Some((root.to_owned(), "pods/1/volumes/kubernetes.io~csi/v".to_owned())), "{root}");
    }
    let bare = parts("/pods/1/volumes/kubernetes.io~csi/v/mount/");
    assert_eq!(bare, Some(("/".to_owned(), "pods/1/volumes/kubernetes.io~csi/v".to_owned())));
    for other in [
        "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/v/mount/x",
        "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/v",
        "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/v/Mount",
        "/var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/v/mount",
        "/var/lib/kubelet/pods/1/volume-subpaths/kubernetes.io~csi/v/mount",
        "/var/lib/kubelet/pods/1/x/volumes/kubernetes.io~csi/v/mount",
        "/var/lib/kubelet/volumes/kubernetes.io~csi/v/mount",
        "/kubernetes.io~csi/v/mount",
        "/v/mount",
    ] {
        assert_eq!(parts(other), None, "{other}");
    }
}
