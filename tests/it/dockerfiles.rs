//! The Dockerfiles: each image that they pull has a full version,
//! and a digest where the build passes one.
//!
//! Reads them as text; `make image` builds them. docs/release.md describes where digests come from.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

trials! { "dockerfiles":
    base_images_are_pinned,
    planted_tags_are_found,
}

/// Each Dockerfile, and the build arguments for the digests of the images that it pulls, in order.
const FILES: [(&str, &[&str]); 2] =
    [("Dockerfile.linux", &["RUST_DIGEST"]), ("Dockerfile.windows", &["RUST_DIGEST", "OS_DIGEST"])];

fn base_images_are_pinned() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).with_context(|| name.to_owned());
    let toolchain = read("rust-toolchain.toml")?;
    let toolchain = toolchain.lines().find_map(|line| line.strip_prefix("channel = "));
    let toolchain = toolchain.context("no channel")?.trim_matches('"').to_owned();
    for (name, digests) in FILES {
        let found = pulled(&read(name)?, &toolchain).with_context(|| name.to_owned())?;
        ensure!(found == *digests, "{name} has the digests {found:?} instead of {digests:?}");
    }
    let page = read("docs/release.md")?;
    for digest in FILES.iter().flat_map(|(_, digests)| *digests) {
        ensure!(page.contains(&format!("`{digest}`")), "docs/release.md does not name {digest}");
    }
    Ok(())
}

/// The build arguments for the digests of the images that a Dockerfile pulls.
fn pulled(text: &str, toolchain: &str) -> Result<Vec<String>> {
    let mut stages = vec!["scratch".to_owned()];
    let mut digests = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some(rest) = line.strip_prefix("FROM ") else { continue };
        let mut words = rest.split(' ').filter(|word| !word.starts_with("--"));
        let image = words.next().context("FROM nothing")?;
        if !stages.iter().any(|stage| stage == image) {
            digests.push(digest(text, image, toolchain).with_context(|| format!("line {}: {image}", at + 1))?);
        }
        if let (Some("AS"), Some(stage)) = (words.next(), words.next()) {
            stages.push(stage.to_owned());
        }
    }
    Ok(digests)
}

/// The build argument for the digest of an image.
fn digest(text: &str, image: &str, toolchain: &str) -> Result<String> {
    let (named, rest) = image.split_once("${").filter(|(named, _)| !named.ends_with(':')).map_or_else(
        || {
            // The tag is an argument itself, such as the version of the operating system.
            let end = image.find('}').context("no digest")?;
            Ok::<_, anyhow::Error>((&image[..=end], image[end + 1..].strip_prefix("${").context("no digest")?))
        },
        Ok,
    )?;
    let argument = rest.split_once(":+@$").context("the digest is not appended where it is given")?;
    let argument = (argument.0, argument.1.strip_suffix('}').context("the digest is not at the end")?);
    ensure!(argument.0 == argument.1, "{} is tested, and {} is used", argument.0, argument.1);
    let declared = |name: &str| {
        // A FROM sees only the arguments before the first FROM.
        let before = text.split("\nFROM ").next().unwrap_or_default();
        before.lines().any(|line| line.strip_prefix("ARG ").and_then(|rest| rest.split('=').next()) == Some(name))
    };
    ensure!(declared(argument.0), "{} is not declared before the first FROM", argument.0);
    let (repository, tag) = named.rsplit_once(':').context("no tag")?;
    ensure!(repository.contains('.') && repository.contains('/'), "{repository} names no registry");
    match tag.strip_prefix("${").and_then(|tag| tag.strip_suffix('}')) {
        Some(name) => ensure!(declared(name), "{name} is not declared before the first FROM"),
        None => {
            let version = tag.split('-').next().unwrap_or_default();
            ensure!(version == toolchain, "{version} is not the toolchain's version {toolchain}");
            ensure!(version.split('.').count() == 3, "{version} is not a full version");
        }
    }
    Ok(argument.0.to_owned())
}

fn planted_tags_are_found() -> Result<()> {
    let head = "ARG D=\nARG OS=1\n";
    for (text, expected) in [
        ("FROM scratch AS a\nFROM a\nFROM docker.io/library/rust:1.95.0-bookworm${D:+@$D} AS b\nFROM b", Ok(vec!["D"])),
        ("FROM mcr.microsoft.com/windows/nanoserver:${OS}${D:+@$D}", Ok(vec!["D"])),
        ("FROM docker.io/library/rust:1.95.0-bookworm", Err("no digest")),
        ("FROM docker.io/library/rust:1.95-bookworm${D:+@$D}", Err("1.95 is not the toolchain's")),
        ("FROM docker.io/library/rust:latest${D:+@$D}", Err("latest is not the toolchain's")),
        ("FROM docker.io/library/rust:1.95.0${E:+@$E}", Err("E is not declared")),
        ("FROM docker.io/library/rust:1.95.0${D:+@$OS}", Err("OS is used")),
        ("FROM rust:1.95.0${D:+@$D}", Err("names no registry")),
        ("FROM mcr.microsoft.com/windows/nanoserver:${OS}", Err("no digest")),
        ("FROM scratch AS a\nARG E\nFROM docker.io/library/rust:1.95.0${E:+@$E}", Err("E is not declared")),
    ] {
        let found = pulled(&format!("{head}{text}"), "1.95.0").map_err(|error| format!("{error:#}"));
        match expected {
            Ok(digests) => ensure!(found.as_ref().is_ok_and(|found| *found == digests), "{text}: {found:?}"),
            Err(word) => ensure!(found.as_ref().is_err_and(|found| found.contains(word)), "{text}: {found:?}"),
        }
    }
    Ok(())
}
