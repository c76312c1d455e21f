//! What the tests of other providers stand on: a driver that looks for sockets in folders of its own, and the reference provider
//! as a process beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use keyvault_csi_e2e::driver::DriverSetup;
use keyvault_csi_e2e::kubelet::Volume;
use keyvault_csi_e2e::reference::{self, Options, RecordedRequest, ReferenceProvider};

use crate::harness::{Node, class_manifest, harness};

/// The name of upstream's mock.
pub(crate) const NAME: &str = "e2e-provider";
pub(crate) const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The word that makes the test binary a reference provider: a process of its own, so that it can be killed.
const ROLE: &str = "reference-provider";

/// Runs as a reference provider if the command line says so.
pub(crate) fn is_provider() -> Option<Result<()>> {
    let mut words = std::env::args_os().skip(1).peekable();
    words.next_if(|word| word == ROLE)?;
    let words = std::iter::once(ROLE.into()).chain(words);
    Some(Options::try_parse_from(words).map_err(Into::into).and_then(|options| reference::run(&options)))
}

/// Where a driver of this setup looks: the additional folder, then the main one.
pub(crate) fn folders(setup: &DriverSetup) -> [PathBuf; 2] {
    ["more", "providers"].map(|folder| setup.folder.join(folder))
}

/// Makes a driver of this setup look there.
pub(crate) fn look_there(setup: &mut DriverSetup) -> Result<()> {
    let [more, main] = folders(setup);
    for folder in [&more, &main] {
        std::fs::create_dir_all(folder)?;
    }
    setup.flags.push(format!("--additional-provider-volume-paths={}", more.display()));
    setup.flags.push(format!("--provider-volume={}", main.display()));
    Ok(())
}

/// How a provider for a driver of this setup is started.
pub(crate) fn options(setup: &DriverSetup, folder: usize, port: u16) -> Result<Options> {
    let socket = folders(setup)[folder].join(format!("{NAME}.sock"));
    Ok(Options { socket, control: format!("{}:{port}", setup.address).parse()? })
}

/// Starts a provider.
pub(crate) fn provider(options: &Options) -> Result<ReferenceProvider> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(ROLE);
    ReferenceProvider::start(command, options)
}

/// A driver and a provider in its main folder.
pub(crate) fn both(flags: &[&str]) -> Result<(Node, ReferenceProvider)> {
    let node = driver(flags)?;
    let provider = provider(&options(node.setup(), 1, 8080)?)?;
    Ok((node, provider))
}

/// A driver without a provider.
pub(crate) fn driver(flags: &[&str]) -> Result<Node> {
    let mut setup = harness().setup();
    look_there(&mut setup)?;
    setup.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    Node::start(setup)
}

/// The flags of a driver that rotates.
pub(crate) const ROTATING: [&str; 2] = ["--enable-secret-rotation", "--rotation-poll-interval=200ms"];

/// The `objects` of a class: each is the YAML of one object.
pub(crate) fn objects(objects: &[&str]) -> String {
    let text = |object: &&str| format!("  - |\n    {}\n", object.replace(", ", "\n    "));
    objects.iter().fold("array:\n".to_owned(), |all, object| all + &text(object))
}

/// The parameters of a class of these objects that wants this answer.
pub(crate) fn parameters(of: &[&str], answer: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::from([("objects".to_owned(), objects(of))]);
    if !answer.is_empty() {
        parameters.insert("answer".to_owned(), answer.to_owned());
    }
    parameters
}

/// Writes a class of the provider.
pub(crate) fn class(node: &Node, name: &str, of: &[&str], answer: &str) -> Result<()> {
    let manifest = class_manifest("default", name, Some(NAME), &parameters(of, answer));
    node.manifest(&format!("{name}.yaml"), &manifest)
}

/// A pod's volume without credentials.
pub(crate) fn volume(class: &str) -> Volume {
    Volume::of_class("default", "web", class)
}

/// A pod's volume with tokens for these audiences.
pub(crate) fn with_tokens(mut volume: Volume, audiences: &[&str]) -> Volume {
    volume.attributes.insert(TOKENS.to_owned(), tokens(audiences));
    volume
}

/// Tokens as a kubelet brings them.
pub(crate) fn tokens(audiences: &[&str]) -> String {
    let token = |audience: &&str| {
        let token =
            serde_json::json!({ "token": harness().secret("token"), "expirationTimestamp": "2030-01-01T00:00:00Z" });
        ((*audience).to_owned(), token)
    };
    serde_json::Value::Object(audiences.iter().map(token).collect()).to_string()
}

/// Sets a value of the provider and remembers it as secret.
pub(crate) fn set(provider: &ReferenceProvider, name: &str, version: &str) -> Result<String> {
    let value = harness().secret(name);
    provider.control("/secret", &[("name", name), ("value", &value), ("version", version)])?;
    Ok(value)
}

/// The last request that the provider saw.
pub(crate) fn last(provider: &ReferenceProvider) -> Result<RecordedRequest> {
    provider.requests()?.pop().context("the provider was not asked")
}
