//! Responses of a hostile vault or login service: their size costs the driver little memory, and
//! neighbours are served.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault, Kind};
use tonic::Status;

use crate::harness::{Node, Vault, harness};
use crate::hostile::{Neighbour, Peak};

trials! { "hostile_vaults":
    bodies_of_64_mib_and_without_end_are_not_read_to_their_end,
    gzip_bombs_are_not_unpacked_to_their_end,
    heads_of_a_megabyte_are_refused,
    a_list_whose_next_link_never_ends_is_given_up,
}

/// As many as one fetch requests concurrently.
const OBJECTS: usize = 16;
/// How many MiB sixteen responses of the largest size may take together: 2 MiB each with their
/// buffers, and the process's own needs.
const MEMORY: u64 = 48;
/// How long one attacked publish may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The publish's deadline: the driver retries transient errors until then.
const DEADLINE: Duration = Duration::from_secs(5);

/// A driver, a neighbour, and a vault whose class `demo` mounts sixteen secrets.
fn ready() -> Result<(Node, Neighbour, Vault)> {
    let (node, vault) = (harness().node()?, harness().vault());
    let names: Vec<String> = (0..OBJECTS).map(|number| format!("object-{number}")).collect();
    names.iter().for_each(|name| drop(vault.set(name)));
    node.class("demo", &vault.parameters(&names.iter().map(String::as_str).collect::<Vec<_>>()))?;
    let neighbour = Neighbour::new(&node)?;
    neighbour.is_served(&node)?;
    Ok((node, neighbour, vault))
}

/// Publishes while all requests of this kind get this response: the publish must fail in time and
/// in little memory, and the neighbour must be served.
fn attacked(kind: Kind, action: &Action) -> Result<Status> {
    let (node, neighbour, vault) = ready()?;
    let host = if kind == Kind::Token { &vault.tenant } else { &vault.name };
    harness().azure().add_fault(Fault::new(action.clone()).host(host).kind(kind));
    let (peak, began) = (Peak::of(node.id())?, Instant::now());
    let status = std::thread::scope(|scope| -> Result<Status> {
        let refused = scope.spawn(|| node.refused_within(&vault.volume("demo"), DEADLINE));
        neighbour.is_served(&node)?;
        refused.join().ok().context("the call panicked")?
    });
    let status = status.with_context(|| format!("{kind:?} {action:?}"))?;
    ensure!(began.elapsed() < PATIENCE, "{kind:?} {action:?} took {:?}", began.elapsed());
    peak.at_most(MEMORY).with_context(|| format!("{kind:?} {action:?}"))?;
    ensure!(status.message().len() < 16 << 10, "the text is {} bytes long", status.message().len());
    neighbour.is_served(&node)?;
    Ok(status)
}

fn bodies_of_64_mib_and_without_end_are_not_read_to_their_end() -> Result<()> {
    for bytes in [64 << 20, u64::MAX] {
        for kind in [Kind::Challenge, Kind::Token, Kind::Get] {
            let status = attacked(kind, &Action::HugeBody { bytes })?;
            ensure!(status.message().contains("TooLarge"), "{kind:?}: {status}");
        }
    }
    Ok(())
}

fn gzip_bombs_are_not_unpacked_to_their_end() -> Result<()> {
    for kind in [Kind::Token, Kind::Get] {
        let status = attacked(kind, &Action::GzipBomb { bytes: 1 << 40 })?;
        ensure!(status.message().contains("TooLarge"), "{kind:?}: {status}");
    }
    Ok(())
}

fn heads_of_a_megabyte_are_refused() -> Result<()> {
    for kind in [Kind::Challenge, Kind::Token, Kind::Get] {
        attacked(kind, &Action::HugeHead { bytes: 1 << 20 })?;
    }
    Ok(())
}

fn a_list_whose_next_link_never_ends_is_given_up() -> Result<()> {
    let (node, neighbour, vault) = ready()?;
    let objects = "array:\n  - |\n    objectName: object-0\n    objectType: secret\n    objectVersionHistory: 3\n";
    node.class("demo", &vault.parameters_of(objects))?;
    let url = format!("https://{}/secrets/object-0/versions?api-version=7.5&again", vault.host());
    harness().azure().add_fault(Fault::new(Action::NextLink { url }).host(&vault.name).kind(Kind::ListVersions));
    let peak = Peak::of(node.id())?;
    let status = node.refused_within(&vault.volume("demo"), PATIENCE)?;
    ensure!(status.message().contains("more than") && status.message().contains("TooLarge"), "{status}");
    let lists = vault.counters().get(Kind::ListVersions);
    // The limit, without a retry.
    ensure!(lists <= 100, "{lists} pages were read");
    peak.at_most(MEMORY)?;
    neighbour.is_served(&node)
}
