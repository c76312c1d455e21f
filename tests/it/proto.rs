//! The generated gRPC code is current, and no message with secrets implements `Debug`.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

trials! { "proto":
    the_generated_code_is_current,
    messages_with_secrets_have_no_debug_format,
}

const PROTOS: [&str; 4] = ["csi.proto", "pluginregistration.proto", "provider.proto", "health.proto"];

const FILES: [&str; 4] = ["csi.v1.rs", "pluginregistration.rs", "v1alpha1.rs", "grpc.health.v1.rs"];

fn the_generated_code_is_current() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir()?;
    let descriptors = protox::compile(PROTOS, [root.join("proto")])?;
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .skip_debug([
            ".csi.v1.NodePublishVolumeRequest",
            ".v1alpha1.MountRequest",
            ".v1alpha1.MountResponse",
            ".v1alpha1.File",
        ])
        .build_transport(false)
        .compile_fds(descriptors)?;
    for file in FILES {
        let (made, kept) = (fs::read_to_string(folder.path().join(file))?, root.join("proto/src").join(file));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&kept, &made)?;
        }
        ensure!(
            made == fs::read_to_string(&kept).unwrap_or_default(),
            "{} is out of date: run `UPDATE=1 make test`",
            kept.display()
        );
    }
    Ok(())
}

/// The `.proto` files mark secret fields; a message with one must not implement `Debug`.
fn messages_with_secrets_have_no_debug_format() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked = marked(&root.join("proto/csi.proto"), &root.join("proto/src/csi.v1.rs"))?
        + marked(&root.join("proto/provider.proto"), &root.join("proto/src/v1alpha1.rs"))?;
    ensure!(checked >= 4, "no field is marked as secret");
    Ok(())
}

fn marked(proto: &Path, code: &Path) -> Result<usize> {
    let (proto, code) = (fs::read_to_string(proto)?, fs::read_to_string(code)?);
    let mut message = "";
    let mut checked = 0;
    for line in proto.lines() {
        if let Some(name) = line.strip_prefix("message ") {
            message = name.trim_end_matches([' ', '{', '}']);
        }
        if line.contains("// secret") {
            let lines: Vec<&str> = code.lines().collect();
            let at = lines.iter().position(|line| *line == format!("pub struct {message} {{"));
            let attributes = lines[..at.unwrap_or_default()].iter().rev().take_while(|line| line.starts_with('#'));
            ensure!(attributes.clone().any(|line| line.contains("skip_debug")), "{message} can be printed");
            checked += 1;
        }
    }
    Ok(checked)
}
