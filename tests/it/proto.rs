//! The generated gRPC code is what the `.proto` files say, and no message that carries secrets can be printed.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

trials! { "proto":
    the_generated_code_is_current,
    messages_with_secrets_do_not_print,
}

const FILES: [&str; 2] = ["csi.v1.rs", "pluginregistration.rs"];

fn the_generated_code_is_current() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir()?;
    let descriptors = protox::compile(["csi.proto", "pluginregistration.proto"], [root.join("proto")])?;
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .skip_debug([".csi.v1.NodePublishVolumeRequest"])
        .build_transport(false)
        .compile_fds(descriptors)?;
    for file in FILES {
        let (made, kept) = (fs::read_to_string(folder.path().join(file))?, root.join("src/csi/proto").join(file));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&kept, &made)?;
        }
        ensure!(made == fs::read_to_string(&kept)?, "{} is out of date: run `UPDATE=1 make test`", kept.display());
    }
    Ok(())
}

/// `csi.proto` marks secret fields; each message that has one must be without `Debug`.
fn messages_with_secrets_do_not_print() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = fs::read_to_string(root.join("proto/csi.proto"))?;
    let code = fs::read_to_string(root.join("src/csi/proto/csi.v1.rs"))?;
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
    ensure!(checked > 0, "no field is marked as secret");
    Ok(())
}
