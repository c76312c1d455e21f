//! Files of custom clouds: which of them a class can name,
//! and that it can name no other file of the node.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Kind, Permission};
use keyvault_csi_e2e::kubelet::Volume;
use tonic::Code;

use crate::harness::{Node, STACK, harness, stack_file};

trials! { "cloud_files":
    a_mounted_configmap_is_a_folder_of_clouds,
    a_file_of_the_node_never_says_where_a_token_goes,
    the_administrators_file_can_be_named_by_its_path,
}

/// Writes a file as the kubelet does into a ConfigMap's volume: `NAME` links through `..data` to
/// the newest generation.
pub(crate) fn as_configmap(folder: &Path, generation: &str, name: &str, content: &str) -> Result<()> {
    fs::create_dir_all(folder.join(generation))?;
    fs::write(folder.join(generation).join(name), content)?;
    symlink(generation, folder.join("..data_tmp"))?;
    fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
    if !folder.join(name).exists() {
        symlink(Path::new("..data").join(name), folder.join(name))?;
    }
    Ok(())
}

fn a_mounted_configmap_is_a_folder_of_clouds() -> Result<()> {
    let (setup, clouds) = harness().setup_with_clouds()?;
    as_configmap(&clouds, "..2026_11_22_00_00_00.1", "stack.json", "{}")?;
    let (node, vault) = (Node::start(setup)?, harness().vault_in_cloud(STACK.0));
    let value = vault.set("password");
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("cloudName".to_owned(), "AzureStackCloud".to_owned());
    parameters.insert("cloudEnvFileName".to_owned(), "stack.json".to_owned());
    node.class("demo", &parameters)?;
    let status = node.refused(&vault.volume("demo"))?;
    ensure!(status.message().contains("activeDirectoryEndpoint"), "{status}");
    // The next generation replaces the first, and the provider reads it at the next mount.
    as_configmap(&clouds, "..2026_11_22_00_00_01.2", "stack.json", &stack_file(""))?;
    for name in ["stack.json".to_owned(), clouds.join("stack.json").display().to_string()] {
        parameters.insert("cloudEnvFileName".to_owned(), name);
        node.class("demo", &parameters)?;
        let target = node.publish(&vault.volume("demo"))?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    parameters.insert("cloudEnvFileName".to_owned(), "absent.json".to_owned());
    node.class("demo", &parameters)?;
    let status = node.refused(&vault.volume("demo"))?;
    ensure!(status.message().contains("\"absent.json\" of --cloud-files-dir"), "{status}");
    Ok(())
}

/// Paths outside of the driver's folder of clouds. Those below the kubelet's root and beside the
/// folder have a twin that does not exist.
fn files_of_the_node(node: &Node, clouds: &Path) -> Result<Vec<String>> {
    let root = node.setup().kubelet_root();
    let written = [
        "pods/0d1f5a2e/containers/web/4f2c1a9b",
        "pods/0d1f5a2e/volume-subpaths/scratch/web/0",
        "pods/0d1f5a2e/etc-hosts",
        "pods/0d1f5a2e/volumes/kubernetes.io~empty-dir/x/cloud.json",
    ];
    let mut named = Vec::new();
    for path in written {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a parent")?)?;
        fs::write(&path, stack_file(""))?;
        named.extend([path.display().to_string(), path.with_extension("absent").display().to_string()]);
    }
    let around = |name: &str| clouds.join("..").join(name).display().to_string();
    named.extend([around("theirs.json"), around("absent.json")]);
    for name in ["/proc/kmsg", "/dev/zero", "/", "/etc/passwd", "/etc/absent", "out.json", "dangling.json"] {
        named.push(name.to_owned());
    }
    Ok(named)
}

/// The attack: a container writes the file of its own cloud into a pod's directory on the node, and
/// a class that uses the node's identity names that file. The vault and the login host would be the
/// attacker's; here they are those of the harness's custom cloud, which counts requests.
fn a_file_of_the_node_never_says_where_a_token_goes() -> Result<()> {
    let (setup, clouds) = harness().setup_with_clouds()?;
    symlink("../theirs.json", clouds.join("out.json"))?;
    symlink("/etc/absent.json", clouds.join("dangling.json"))?;
    fs::write(setup.folder.join("theirs.json"), stack_file(""))?;
    let (node, vault) = (Node::start(setup)?, harness().vault_in_cloud(STACK.0));
    vault.set("password");
    let identity = "cccccccc-0000-4000-8000-0000000000c1";
    harness().azure().add_managed_identity(&vault.tenant, identity);
    harness().azure().grant(&vault.name, identity, &[Permission::Get]);
    let named = files_of_the_node(&node, &clouds)?;
    let mut stack = vault.parameters(&["password"]);
    stack.insert("cloudName".to_owned(), "AzureStackCloud".to_owned());
    let with = |pairs: &[(&str, &str)]| {
        let mut parameters = stack.clone();
        parameters.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        parameters
    };
    let managed = with(&[("useVMManagedIdentity", "true"), ("userAssignedIdentityID", identity)]);
    let mut messages = Vec::new();
    for parameters in [&managed, &with(&[("clientID", identity)]), &stack] {
        for name in &named {
            let mut parameters = parameters.clone();
            parameters.insert("cloudEnvFileName".to_owned(), name.clone());
            node.class("demo", &parameters)?;
            let status = node.refused_within(&vault.volume("demo"), Duration::from_secs(5))?;
            ensure!(status.code() == Code::Unknown, "{status}");
            messages.push(status.message().replace(&format!("{name:?}"), "NAME"));
        }
    }
    // The message must not reveal which files exist.
    messages.dedup();
    ensure!(messages.len() == 1, "{messages:#?}");
    for word in ["cloudEnvFileName", "--cloud-files-dir", "--cloud-file", "AZURE_ENVIRONMENT_FILEPATH", "ClassInvalid"]
    {
        ensure!(messages[0].contains(word), "{word:?} is missing in: {}", messages[0]);
    }
    assert_eq!(vault.counters().total() + vault.entra().total(), 0, "the driver sent requests");
    // The same identity and class work with the administrator's file:
    // the refusals were for the file.
    fs::write(clouds.join("stack.json"), stack_file(""))?;
    let mut parameters = managed;
    parameters.insert("cloudEnvFileName".to_owned(), "stack.json".to_owned());
    node.class("demo", &parameters)?;
    node.publish(&Volume::of_class("default", "web", "demo"))?;
    assert_eq!(vault.counters().get(Kind::Get), 1);
    Ok(())
}

fn the_administrators_file_can_be_named_by_its_path() -> Result<()> {
    let mut setup = harness().setup();
    let file = setup.folder.join("default.json");
    fs::write(&file, stack_file(""))?;
    setup.environment.push(("AZURE_ENVIRONMENT_FILEPATH".to_owned(), file.display().to_string()));
    let beside = setup.folder.join("beside.json");
    fs::write(&beside, stack_file(""))?;
    let (node, vault) = (Node::start(setup)?, harness().vault_in_cloud(STACK.0));
    let value = vault.set("password");
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("cloudName".to_owned(), "AzureStackCloud".to_owned());
    for name in [None, Some(file.display().to_string())] {
        parameters.extend(name.map(|name| ("cloudEnvFileName".to_owned(), name)));
        node.class("demo", &parameters)?;
        let target = node.publish(&vault.volume("demo"))?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    for other in [beside.display().to_string(), "default.json".to_owned()] {
        parameters.insert("cloudEnvFileName".to_owned(), other);
        node.class("demo", &parameters)?;
        let status = node.refused(&vault.volume("demo"))?;
        ensure!(status.message().contains("is refused: only files of the driver's --cloud-files-dir"), "{status}");
    }
    Ok(())
}
