//! The fixture of the tests of external providers: a driver with provider directories of its own,
//! and the reference provider as a process.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use keyvault_csi_e2e::driver::DriverSetup;
use keyvault_csi_e2e::kubelet::Volume;
use keyvault_csi_e2e::reference::{self, Options, RecordedRequest, ReferenceProvider};

use crate::harness::{Node, class_manifest, harness, provider_dirs, set_provider_dirs};

/// The name of upstream's mock.
pub(crate) const NAME: &str = "e2e-provider";
pub(crate) const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The argument that makes the test binary a reference provider: a separate process can be killed.
const ROLE: &str = "reference-provider";

/// Runs the reference provider if the command line asks for it.
pub(crate) fn run_reference_provider() -> Option<Result<()>> {
    let mut words = std::env::args_os().skip(1).peekable();
    words.next_if(|word| word == ROLE)?;
    let words = std::iter::once(ROLE.into()).chain(words);
    Some(Options::try_parse_from(words).map_err(Into::into).and_then(|options| reference::run(&options)))
}

/// The options of a provider in one of the driver's provider directories, by index.
pub(crate) fn options(setup: &DriverSetup, directory: usize, port: u16) -> Result<Options> {
    let socket = provider_dirs(setup)[directory].join(format!("{NAME}.sock"));
    Ok(Options { socket, control: format!("{}:{port}", setup.address).parse()? })
}

pub(crate) fn provider(options: &Options) -> Result<ReferenceProvider> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(ROLE);
    ReferenceProvider::start(command, options)
}

/// A driver, and a provider in its main directory.
pub(crate) fn driver_and_provider(flags: &[&str]) -> Result<(Node, ReferenceProvider)> {
    let node = driver(flags)?;
    let provider = provider(&options(node.setup(), 1, 8080)?)?;
    Ok((node, provider))
}

/// A driver without a provider.
pub(crate) fn driver(flags: &[&str]) -> Result<Node> {
    let mut setup = harness().setup();
    set_provider_dirs(&mut setup)?;
    setup.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    Node::start(setup)
}

/// The flags of a driver that rotates secrets.
pub(crate) const ROTATING: [&str; 2] = ["--enable-secret-rotation", "--rotation-poll-interval=200ms"];

/// The `objects` parameter of a class, from the fields of each object.
pub(crate) fn objects(objects: &[&str]) -> String {
    let text = |object: &&str| format!("  - |\n    {}\n", object.replace(", ", "\n    "));
    objects.iter().fold("array:\n".to_owned(), |all, object| all + &text(object))
}

/// The parameters of a class of these objects that requests this answer.
pub(crate) fn parameters(of: &[&str], answer: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::from([("objects".to_owned(), objects(of))]);
    if !answer.is_empty() {
        parameters.insert("answer".to_owned(), answer.to_owned());
    }
    parameters
}

/// Writes a class of the reference provider.
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

/// Tokens as the kubelet sends them.
pub(crate) fn tokens(audiences: &[&str]) -> String {
    let token = |audience: &&str| {
        let token =
            serde_json::json!({ "token": harness().secret("token"), "expirationTimestamp": "2030-01-01T00:00:00Z" });
        ((*audience).to_owned(), token)
    };
    serde_json::Value::Object(audiences.iter().map(token).collect()).to_string()
}

/// Sets a new value in the provider and returns it.
pub(crate) fn set_secret(provider: &ReferenceProvider, name: &str, version: &str) -> Result<String> {
    let value = harness().secret(name);
    provider.control("/secret", &[("name", name), ("value", &value), ("version", version)])?;
    Ok(value)
}

/// The last request to the provider.
pub(crate) fn last_request(provider: &ReferenceProvider) -> Result<RecordedRequest> {
    provider.requests()?.pop().context("the provider has no request")
}
