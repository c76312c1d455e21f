//! Limits of what a client of a gRPC socket can make the process keep: streams, connections,
//! headers and bytes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use libtest_mimic::Trial;

use crate::harness::{Node, Vault, harness};
use crate::plugin::Fixture;
use crate::raw_http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, RawHttp2, SETTINGS, call, frame,
};

trials! { "streams":
    unfinished_streams_do_not_grow_the_process,
    the_providers_socket_has_the_same_limits,
    an_incomplete_request_is_given_up,
    idle_connections_make_room_for_kubelets_and_the_probe,
    idle_connections_are_closed_when_there_are_many,
    streams_that_are_reset_at_once_end_the_connection,
    header_lists_are_limited_to_sixteen_kib,
}

/// The same attack with more connections, against the shipped program, and its memory a minute
/// later.
pub(crate) fn soak() -> Vec<Trial> {
    let big = || attack(&Node::start(harness().release_setup())?, 2_000, Duration::from_secs(60));
    vec![crate::trial("streams::soak_memory_is_back_after_a_minute", big).with_ignored_flag(true)]
}

const PUBLISH: &str = "/csi.v1.Node/NodePublishVolume";
const MOUNT: &str = "/v1alpha1.CSIDriverProvider/Mount";

/// RFC 9113 §7.
const REFUSED_STREAM: u32 = 0x7;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// The allowed growth of memory after an attack.
const MORE_KIB: u64 = 8 << 10;
/// The allowed growth during an attack: all limits together, in a build without optimisation.
const PEAK_KIB: u64 = 160 << 10;

/// Opens streams that never send their message, on one connection, until the server closes it.
fn open_streams(socket: &Path, path: &str) -> Result<()> {
    let mut client = RawHttp2::connect(socket)?;
    let block = call(path, &[]);
    let (mut refused, mut gone) = (0, false);
    for _ in 0..100_000 {
        gone = client.open(&block, 0).is_err();
        for frame in client.received().unwrap_or_default() {
            match (frame.kind, frame.code()) {
                (RST_STREAM, Some(code)) => {
                    ensure!(code == REFUSED_STREAM && frame.stream > 2 * 64, "{frame:?}");
                    refused += 1;
                }
                (GOAWAY, Some(code)) => {
                    ensure!(code == ENHANCE_YOUR_CALM, "{frame:?}");
                    gone = true;
                }
                _ => {}
            }
        }
        if gone {
            break;
        }
    }
    ensure!(gone && refused > 0, "{refused} streams were refused, and the connection is open");
    Ok(())
}

/// Opens a connection with the largest number of streams, each with large headers and an unfinished
/// message.
fn hoard(socket: &Path, path: &str) -> Result<RawHttp2> {
    let mut client = RawHttp2::connect(socket)?;
    let block = call(path, &[("x-padding", &"p".repeat(8_000))]);
    // The prefix of a message of 4 MiB (gRPC over HTTP/2, "Length-Prefixed-Message").
    let begun = [&[0, 0, 0x3f, 0xff, 0xff][..], &[b'm'; 4_000]].concat();
    for _ in 0..64 {
        // The server may close the connection meanwhile to serve other ones.
        let Ok(stream) = client.open(&block, 0) else { break };
        if client.send(&frame(DATA, 0, stream, &begun)).is_err() {
            break;
        }
    }
    Ok(client)
}

/// Attacks in all ways at once, and checks that another client is served and that the memory is
/// freed while the attackers' connections are still open.
fn attack(node: &Node, connections: usize, patience: Duration) -> Result<()> {
    let vault = harness().vault();
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let socket = node.setup().socket();
    // The pages of code for all of this, and the memory that a first publish keeps, do not count as
    // the attack's.
    open_streams(&socket, PUBLISH)?;
    drop(hoard(&socket, PUBLISH)?);
    check_served(node, &vault)?;
    let before = node.resident_kib()?;
    for _ in 0..10 {
        open_streams(&socket, PUBLISH)?;
    }
    let hoarded: Vec<RawHttp2> = (0..connections).map(|_| hoard(&socket, PUBLISH)).collect::<Result<_>>()?;
    let peak = node.resident_kib()?;
    ensure!(peak < before + PEAK_KIB, "{before} KiB grew to {peak}");
    check_served(node, &vault)?;
    let back = || Ok(node.resident_kib()? <= before + MORE_KIB);
    wait_for("the memory is freed", patience, back)
        .with_context(|| format!("{before} KiB, {peak} at the peak, {:?} now", node.resident_kib()))?;
    drop(hoarded);
    Ok(())
}

/// Checks that another client's publish and the probe get a response.
fn check_served(node: &Node, vault: &Vault) -> Result<()> {
    let volume = vault.volume("demo");
    node.publish(&volume)?;
    node.kubelet.unpublish(&volume)?;
    assert_eq!(node.health("/healthz")?, (200, "ok\n".to_owned()));
    Ok(())
}

fn unfinished_streams_do_not_grow_the_process() -> Result<()> {
    attack(&harness().node()?, 200, Duration::from_secs(90))
}

fn the_providers_socket_has_the_same_limits() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let socket = fixture.provider.setup().socket();
    open_streams(&socket, MOUNT)?;
    let _hoarded: Vec<RawHttp2> = (0..20).map(|_| hoard(&socket, MOUNT)).collect::<Result<_>>()?;
    assert_eq!(fixture.driver.health("")?, "SERVING");
    assert_eq!(fixture.provider.health("/healthz")?.0, 200);
    Ok(())
}

fn an_incomplete_request_is_given_up() -> Result<()> {
    let node = harness().node()?;
    let mut client = RawHttp2::connect(&node.setup().socket())?;
    let stream = client.open(&call(PUBLISH, &[]), 0)?;
    client.send(&frame(DATA, 0, stream, &[0, 0, 0, 1, 0, b'x']))?;
    // The response has the cause and ends the stream.
    let end = client.wait(|frame| frame.stream == stream && frame.kind == HEADERS && frame.flags & END_STREAM != 0)?;
    ensure!(end.payload.len() < 200, "{end:?}");
    // The connection stays open.
    let stream = client.open(&call("/csi.v1.Identity/Probe", &[]), 0)?;
    client.send(&frame(DATA, END_STREAM, stream, &[0; 5]))?;
    client.wait(|frame| frame.stream == stream && frame.kind == DATA)?;
    Ok(())
}

fn idle_connections_make_room_for_kubelets_and_the_probe() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let socket = node.setup().socket();
    // More than the limit of connections; half of them never send a byte.
    let mut idle = Vec::new();
    for _ in 0..1_300 {
        idle.push(RawHttp2::silent(&socket)?);
        idle.push(RawHttp2::connect(&socket)?);
    }
    check_served(&node, &vault)?;
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.id()))?.count();
    ensure!(open <= 2_048 + 256, "{open} descriptors are open");
    wait_for("the oldest connections are closed", Duration::from_secs(20), || {
        Ok(idle[0].is_closed()? && idle[500].is_closed()?)
    })?;
    let newest = idle.last_mut().context("none")?;
    newest.wait(|frame| frame.kind == SETTINGS)?;
    Ok(())
}

fn idle_connections_are_closed_when_there_are_many() -> Result<()> {
    let node = harness().node()?;
    let socket = node.setup().socket();
    let mut idle: Vec<RawHttp2> = (0..200).map(|_| RawHttp2::connect(&socket)).collect::<Result<_>>()?;
    let closed = |idle: &mut [RawHttp2]| {
        idle.iter_mut().try_fold(0, |sum, one| Ok::<usize, anyhow::Error>(sum + usize::from(one.is_closed()?)))
    };
    wait_for("most connections are closed", Duration::from_secs(60), || Ok(closed(&mut idle[..100])? == 100))?;
    // A few may stay, such as a driver's connection to its provider.
    ensure!(closed(&mut idle[150..])? == 0, "one of the newest connections was closed");
    Ok(())
}

fn streams_that_are_reset_at_once_end_the_connection() -> Result<()> {
    let node = harness().node()?;
    let before = node.resident_kib()?;
    for flags in [0, END_STREAM] {
        let mut client = RawHttp2::connect(&node.setup().socket())?;
        let block = call("/csi.v1.Identity/Probe", &[]);
        // In one write, so that the server reads each stream's opening and reset together.
        let pairs: Vec<u8> = (0..20_000)
            .flat_map(|number| {
                let stream = 2 * number + 1;
                let opened = frame(HEADERS, END_HEADERS | flags, stream, &block);
                [opened, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            })
            .collect();
        // The server closes the connection during this write, or a little later.
        let _ = client.send(&pairs);
        wait_for("the connection is closed", Duration::from_secs(20), || client.is_closed())?;
    }
    let after = node.resident_kib()?;
    ensure!(after <= before + MORE_KIB, "{before} KiB grew to {after}");
    assert_eq!(node.health("/healthz")?.0, 200);
    Ok(())
}

fn header_lists_are_limited_to_sixteen_kib() -> Result<()> {
    let node = harness().node()?;
    let probe = |length: usize| -> Result<RawHttp2> {
        let mut client = RawHttp2::connect(&node.setup().socket())?;
        let block = call("/csi.v1.Identity/Probe", &[("x-padding", &"p".repeat(length))]);
        let (first, rest) = block.split_at(block.len().min(16_000));
        client.send(&frame(HEADERS, if rest.is_empty() { END_HEADERS } else { 0 }, 1, first))?;
        for (at, part) in rest.chunks(16_000).enumerate() {
            let last = (at + 1) * 16_000 >= rest.len();
            client.send(&frame(CONTINUATION, if last { END_HEADERS } else { 0 }, 1, part))?;
        }
        client.send(&frame(DATA, END_STREAM, 1, &[0; 5]))?;
        Ok(client)
    };
    probe(15_000)?.wait(|frame| frame.kind == DATA)?;
    // A list that is too long gets the status 431 (RFC 6585 §5), as a literal or from the static
    // table.
    let response = probe(17_000)?.wait(|frame| frame.kind == HEADERS)?;
    ensure!(response.payload.windows(3).any(|text| text == b"431") || response.flags & END_STREAM != 0, "{response:?}");
    // A list that is much too long ends the connection.
    for length in [40_000, 200_000] {
        if let Ok(mut client) = probe(length) {
            wait_for("the connection is closed", Duration::from_secs(20), || client.is_closed())?;
        }
    }
    assert_eq!(node.health("/healthz")?.0, 200);
    Ok(())
}
