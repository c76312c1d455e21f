//! Which mount is a pod's volume. What is read from one is seen in tests/it.

use std::path::PathBuf;

use super::super::files::target;

#[test]
fn a_volume_is_found_by_uid_and_name_in_what_the_kernel_tells() {
    let ours = "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/vol/mount";
    let mounts: Vec<PathBuf> = [
        "/tmp",
        "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~empty-dir/vol",
        "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/vol/mount/below",
        "/var/lib/kubelet/pods/u-2/volumes/kubernetes.io~csi/vol/mount",
        ours,
    ]
    .map(PathBuf::from)
    .into();
    assert_eq!(target(&mounts, "u-1", "vol"), Some(PathBuf::from(ours).as_path()));
    // Texts of which a path is made lead nowhere else.
    for (uid, volume) in [
        ("u-1", "other"),
        ("u-3", "vol"),
        ("", "vol"),
        ("u-1", ""),
        ("../pods/u-1", "vol"),
        ("u-1/volumes/kubernetes.io~csi/vol/mount/../../../../../u-1", "vol"),
        ("u-1", "../kubernetes.io~csi/vol"),
        ("u-1", "vol/mount/.."),
        ("u-1\0", "vol"),
        ("*", "vol"),
    ] {
        assert_eq!(target(&mounts, uid, volume), None, "{uid} {volume}");
    }
}
