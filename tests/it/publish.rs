//! Publishes: first and repeated, content, modes, groups, mount options.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::Kind;

use crate::harness::{harness, mounts_on};

trials! { "publish":
    a_volume_holds_what_the_vault_holds,
    publishing_twice_fetches_and_mounts_once,
    the_tmpfs_is_small_and_strict,
    files_have_upstreams_layout,
    alias_version_encoding_and_mode_are_honoured,
    a_mount_group_may_read_the_files,
    a_bare_directory_is_not_taken_for_a_volume,
    an_unfilled_mount_is_filled,
    an_interrupted_write_is_repaired_without_a_request,
    ten_objects_cost_eleven_requests_and_one_challenge,
    a_new_pod_gets_the_new_value,
}

fn a_volume_holds_what_the_vault_holds() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let (password, token) = (vault.set("password"), vault.set("token"));
    node.class("demo", &vault.parameters(&["password", "token"]))?;
    let target = node.publish(&vault.volume("demo"))?;
    assert_eq!(fs::read_to_string(target.join("password"))?, password);
    assert_eq!(fs::read_to_string(target.join("token"))?, token);
    assert_eq!(visible(&target)?, ["password", "token"]);
    Ok(())
}

fn publishing_twice_fetches_and_mounts_once() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    let stamp = |path: &Path| fs::symlink_metadata(path).map(|found| (found.ino(), found.mtime_nsec(), found.mtime()));
    let before = (stamp(&target)?, stamp(&target.join("..data"))?, vault.counters().total());
    vault.set("password");
    node.publish(&volume)?;
    assert_eq!(before, (stamp(&target)?, stamp(&target.join("..data"))?, vault.counters().total()));
    assert_eq!(mounts_on(&target)?.len(), 1);
    Ok(())
}

fn the_tmpfs_is_small_and_strict() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let target = node.publish(&vault.volume("demo"))?;
    let mounts = mounts_on(&target)?;
    let line = mounts.first().context("nothing is mounted")?;
    for option in ["tmpfs", "rw", "nosuid", "nodev", "noexec", "size=16416k", "mode=755"] {
        ensure!(line.split([' ', ',']).any(|word| word == option), "{option} is missing: {line}");
    }
    // User namespaces may not use noswap, and a kernel before 6.4 does not know it.
    let initial = fs::read_to_string("/proc/self/uid_map")?.contains("4294967295");
    if initial && kernel()? >= (6, 4) {
        ensure!(line.contains("noswap"), "noswap is missing: {line}");
    }
    assert_eq!(fs::metadata(&target)?.permissions().mode() & 0o7777, 0o755);
    Ok(())
}

fn kernel() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Ok((numbers.next().context("no release")??, numbers.next().context("no release")??))
}

fn files_have_upstreams_layout() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    let objects = "array:\n- |\n  objectName: password\n  objectType: secret\n  objectAlias: db/password\n";
    node.class("demo", &vault.parameters_of(objects))?;
    let target = node.publish(&vault.volume("demo"))?;
    assert_eq!(fs::read_link(target.join("db"))?, Path::new("..data/db"));
    let generation = fs::read_link(target.join("..data"))?;
    ensure!(generation.to_string_lossy().starts_with("..20"), "{}", generation.display());
    assert_eq!(fs::metadata(target.join("db/password"))?.permissions().mode() & 0o7777, 0o644);
    assert_eq!(fs::metadata(target.join("db"))?.permissions().mode() & 0o7777, 0o755);
    Ok(())
}

fn alias_version_encoding_and_mode_are_honoured() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let azure = harness().azure();
    let old = harness().secret("old");
    let version = azure.set_secret(&vault.name, "versioned", &old);
    let new = vault.set("versioned");
    azure.set_secret(&vault.name, "encoded", "AAEC/w==");
    azure.set_secret(&vault.name, "hexadecimal", "00fF10");
    let objects = format!(
        "array:
  - |
    objectName: versioned
    objectType: secret
    objectAlias: pinned
    objectVersion: {version}
    filePermission: 0400
  - |
    objectName: versioned
    objectType: secret
    objectVersion: latest
    filePermission: '0755'
  - '{{\"objectName\": \"encoded\", \"objectType\": \"secret\", \"objectEncoding\": \"Base64\"}}'
  - |
    objectName: hexadecimal
    objectType: secret
    objectEncoding: hex
"
    );
    node.class("demo", &vault.parameters_of(&objects))?;
    let target = node.publish(&vault.volume("demo"))?;
    let mode = |name: &str| fs::metadata(target.join(name)).map(|found| found.permissions().mode() & 0o7777);
    assert_eq!((fs::read_to_string(target.join("pinned"))?, mode("pinned")?), (old, 0o400));
    assert_eq!((fs::read_to_string(target.join("versioned"))?, mode("versioned")?), (new, 0o755));
    assert_eq!(fs::read(target.join("encoded"))?, [0, 1, 2, 255]);
    assert_eq!(fs::read(target.join("hexadecimal"))?, [0, 255, 16]);
    Ok(())
}

fn a_mount_group_may_read_the_files() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    let objects = "array:\n- |\n  objectName: password\n  objectType: secret\n  filePermission: '0400'\n";
    node.class("demo", &vault.parameters_of(objects))?;
    // In a user namespace the only group is the caller's own, 0; elsewhere any group works.
    let initial = fs::read_to_string("/proc/self/gid_map")?.contains("4294967295");
    let group = if initial { 2000 } else { 0 };
    let mut volume = vault.volume("demo");
    volume.fs_group = Some(group);
    let target = node.publish(&volume)?;
    let found = fs::metadata(target.join("password"))?;
    assert_eq!((found.gid(), found.permissions().mode() & 0o7777), (group, 0o440));
    Ok(())
}

fn a_bare_directory_is_not_taken_for_a_volume() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let password = vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    // As after a reboot: the directory, even with a file in it, but no tmpfs.
    let volume = vault.volume("demo");
    node.kubelet.prepare(&volume)?;
    let target = node.kubelet.target(&volume);
    fs::create_dir(&target)?;
    fs::write(target.join("leftover"), "x")?;
    node.publish(&volume)?;
    assert_eq!(mounts_on(&target)?.len(), 1);
    assert_eq!(visible(&target)?, ["password"]);
    assert_eq!(fs::read_to_string(target.join("password"))?, password);
    node.kubelet.unpublish(&volume)?;
    ensure!(!target.exists(), "the directory remains");
    Ok(())
}

fn an_unfilled_mount_is_filled() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let password = vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    node.kubelet.prepare(&volume)?;
    let target = node.kubelet.target(&volume);
    fs::create_dir(&target)?;
    mount_tmpfs(&target)?;
    node.publish(&volume)?;
    assert_eq!(mounts_on(&target)?.len(), 1);
    assert_eq!(fs::read_to_string(target.join("password"))?, password);
    Ok(())
}

fn an_interrupted_write_is_repaired_without_a_request() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let password = vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    fs::remove_file(target.join("password"))?;
    std::os::unix::fs::symlink("..data/gone", target.join("gone"))?;
    std::os::unix::fs::symlink("..lost", target.join("..data_tmp"))?;
    fs::create_dir(target.join("..lost"))?;
    let before = vault.counters().total();
    node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("password"))?, password);
    assert_eq!(visible(&target)?, ["password"]);
    assert_eq!(fs::read_dir(&target)?.count(), 3, "..data, one generation, one link");
    assert_eq!(vault.counters().total(), before);
    Ok(())
}

fn ten_objects_cost_eleven_requests_and_one_challenge() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let names: Vec<String> = (0..10).map(|number| format!("object-{number}")).collect();
    for name in &names {
        vault.set(name);
    }
    node.class("demo", &vault.parameters(&names.iter().map(String::as_str).collect::<Vec<_>>()))?;
    node.publish(&vault.volume("demo"))?;
    let counted = |kind| (vault.counters().get(kind), vault.entra().get(kind));
    assert_eq!(counted(Kind::Challenge).0, 1, "the first request to a vault is a challenge");
    assert_eq!(counted(Kind::Get).0, 10);
    assert_eq!(counted(Kind::Token).1, 1);
    assert_eq!(vault.entra().total(), 1, "no discovery");
    node.publish(&vault.volume("demo"))?;
    assert_eq!(counted(Kind::Challenge).0, 1, "a challenge is cached");
    assert_eq!(counted(Kind::Token).1, 1, "the identity's token is cached");
    assert_eq!(vault.counters().total() + vault.entra().total(), 12 + 10);
    Ok(())
}

fn a_new_pod_gets_the_new_value() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let old = vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let first = node.publish(&vault.volume("demo"))?;
    let new = vault.set("password");
    let second = node.publish(&vault.volume("demo"))?;
    assert_eq!(fs::read_to_string(first.join("password"))?, old);
    assert_eq!(fs::read_to_string(second.join("password"))?, new);
    Ok(())
}

fn visible(target: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(target)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.retain(|name| !name.starts_with(".."));
    names.sort();
    Ok(names)
}

fn mount_tmpfs(target: &Path) -> Result<()> {
    let flags = rustix::mount::MountFlags::empty();
    Ok(rustix::mount::mount("tmpfs", target, "tmpfs", flags, None)?)
}
