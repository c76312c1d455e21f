//! HTTP/2 frames that no gRPC client sends, on the sockets of driver and provider: floods end and
//! cost little memory.
//!
//! The tests encode frames (RFC 9113) and header blocks (RFC 7541) themselves, and never read a
//! response. The server may close the connection or stop reading; it must stay alive, its memory
//! bounded, and other clients served.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::provider::{ProviderProcess, UpstreamDriver};

use crate::harness::{Node, harness};
use crate::hostile::{Neighbour, Peak};

trials! { "hostile_frames":
    a_call_by_these_frames_is_answered,
    a_flood_of_continuations_ends,
    a_flood_of_empty_continuations_ends,
    header_blocks_that_unpack_to_hundreds_of_megabytes_end,
    a_table_that_is_resized_and_refilled_without_end_is_bounded,
    streams_that_are_reset_at_once_cost_nothing_lasting,
    settings_and_pings_with_unread_answers_are_bounded,
    window_updates_and_priorities_without_end_are_bounded,
    unrequested_data_is_bounded,
}

/// How many MiB the connections of two attackers may cost.
const MEMORY: u64 = 16;
/// How many MiB an attacker sends unless the server closes the connection;
/// KEYVAULT_CSI_FLOOD_MIB overrides it.
const FLOOD: usize = 8;
/// If a write blocks for this long, the server has stopped reading, and the flood is over.
const STUCK: Duration = Duration::from_millis(500);
/// How many connections an attacker opens in turn.
const AGAIN: usize = 5;
/// How long one MiB may take, in a debug build and on a busy machine.
const PATIENCE: Duration = Duration::from_secs(8);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The default SETTINGS_MAX_FRAME_SIZE.
const LARGEST: usize = 16_384;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field as HPACK's "literal without indexing, new name", with lengths below 127.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap_or(126);
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// The header block of a kubelet's call.
fn call() -> Vec<u8> {
    [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/csi.v1.Identity/Probe"),
        field(":authority", "localhost"),
        field("te", "trailers"),
        field("content-type", "application/grpc"),
    ]
    .concat()
}

/// A connection whose responses stay unread.
struct Attacker {
    stream: UnixStream,
    sent: usize,
    mib: usize,
    began: Instant,
}

impl Attacker {
    fn connect(socket: &Path) -> Result<Attacker> {
        let stream = UnixStream::connect(socket)?;
        stream.set_write_timeout(Some(STUCK))?;
        let mib = std::env::var("KEYVAULT_CSI_FLOOD_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(FLOOD);
        let mut attacker = Attacker { stream, sent: 0, mib, began: Instant::now() };
        ensure!(
            attacker.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat())?
        );
        Ok(attacker)
    }

    /// Sends bytes; false if the server closed the connection or stopped reading.
    fn send(&mut self, bytes: &[u8]) -> Result<bool> {
        let patience = PATIENCE * u32::try_from(self.mib)?;
        ensure!(self.began.elapsed() < patience, "the flood did not end: {} bytes were sent", self.sent);
        const ENOUGH: [ErrorKind; 4] =
            [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::WouldBlock, ErrorKind::TimedOut];
        match self.stream.write_all(bytes) {
            Ok(()) => {
                self.sent += bytes.len();
                Ok(true)
            }
            Err(error) if ENOUGH.contains(&error.kind()) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends pieces until the server closes the connection or stops reading;
    /// false if all were sent.
    fn flood(&mut self, mut piece: impl FnMut(u32) -> Vec<u8>) -> Result<bool> {
        // In large writes, so that the attacker is as fast as the server.
        let mut number = 0;
        while self.sent < self.mib << 20 {
            let mut bytes = Vec::with_capacity(LARGEST * 2);
            while bytes.len() < LARGEST {
                bytes.extend(piece(number));
                number += 1;
            }
            if !self.send(&bytes)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The servers behind sockets, and the clients that they must serve during an attack.
struct Fixture {
    node: Node,
    provider: ProviderProcess,
    neighbour: Neighbour,
}

impl Fixture {
    fn new() -> Result<Fixture> {
        let node = harness().node()?;
        let neighbour = Neighbour::new(&node)?;
        neighbour.is_served(&node)?;
        Ok(Fixture { node, provider: harness().provider_setup().start()?, neighbour })
    }

    /// The sockets, and the processes behind them.
    fn sockets(&self) -> [(PathBuf, u32); 3] {
        let setup = self.node.setup();
        [
            (setup.socket(), self.node.id()),
            (setup.registration_socket(), self.node.id()),
            (self.provider.setup().socket(), self.provider.id()),
        ]
    }

    /// Checks that other clients are served:
    /// pods, the kubelet's registration, and the provider's driver.
    fn serves(&self) -> Result<()> {
        self.neighbour.is_served(&self.node)?;
        self.node.kubelet.register(&self.node.setup().registration_socket())?;
        let version = UpstreamDriver::connect(&self.provider.setup().socket())?.version()?;
        ensure!(!version.runtime_version.is_empty(), "the provider does not answer");
        ensure!(self.node.health("/healthz")?.0 == 200, "the driver is not healthy");
        Ok(())
    }
}

/// Attacks each socket with two attackers in parallel, each with one connection after another. With
/// `must_end` the server must end each flood.
fn attack(must_end: bool, flood: impl Fn(&mut Attacker) -> Result<bool> + Sync) -> Result<()> {
    let fixture = Fixture::new()?;
    let one = |socket: &Path| -> Result<Vec<Attacker>> {
        let mut open = Vec::new();
        for _ in 0..AGAIN {
            let mut attacker = Attacker::connect(socket)?;
            let ended = flood(&mut attacker)?;
            ensure!(ended || !must_end, "the server read {} bytes", attacker.sent);
            // The connection stays open, unless the server closes it,
            // until the other clients were served.
            open.push(attacker);
            if !ended {
                break;
            }
        }
        Ok(open)
    };
    for (socket, process) in fixture.sockets() {
        let peak = Peak::of(process)?;
        let attacked = std::thread::scope(|scope| -> Result<()> {
            let attackers = [scope.spawn(|| one(&socket)), scope.spawn(|| one(&socket))];
            fixture.serves().context("during the attack")?;
            let open: Vec<_> = attackers
                .into_iter()
                .map(|attacker| attacker.join().ok().context("the attacker panicked")?)
                .collect::<Result<_>>()?;
            fixture.serves().context("with the connections open")?;
            drop(open);
            Ok(())
        });
        attacked.and_then(|()| peak.at_most(MEMORY)).with_context(|| socket.display().to_string())?;
        fixture.serves()?;
    }
    Ok(())
}

/// The servers answer a call of these frames, so no flood ends
/// because of an encoding mistake in this file.
fn a_call_by_these_frames_is_answered() -> Result<()> {
    let fixture = Fixture::new()?;
    for (socket, _) in fixture.sockets() {
        let mut attacker = Attacker::connect(&socket)?;
        // An empty message without compression.
        let frames = [frame(HEADERS, END_HEADERS, 1, &call()), frame(DATA, END_STREAM, 1, &[0; 5])];
        ensure!(attacker.send(&frames.concat())?);
        attacker.stream.set_read_timeout(Some(PATIENCE))?;
        loop {
            let mut head = [0; 9];
            attacker.stream.read_exact(&mut head).context("no answer")?;
            let [a, b, c, kind, _, s0, s1, s2, s3] = head;
            let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c]))?];
            attacker.stream.read_exact(&mut payload)?;
            if kind == HEADERS && u32::from_be_bytes([s0, s1, s2, s3]) == 1 {
                // `:status: 200` of the static table.
                ensure!(payload.first() == Some(&0x88), "{payload:?}");
                break;
            }
            ensure!(kind == SETTINGS || kind == WINDOW_UPDATE || kind == PING, "a frame of type {kind}: {payload:?}");
        }
    }
    Ok(())
}

/// CVE-2024-27316 and its kind: a header block that never ends.
fn a_flood_of_continuations_ends() -> Result<()> {
    // One field that never ends, so that the server cannot decode any of it.
    let filler = vec![b'a'; LARGEST];
    attack(true, |attacker| {
        let head = [call(), vec![0, 1, b'x', 0x7f, 0xff, 0xff, 0xff, 0x7f]].concat();
        if !attacker.send(&frame(HEADERS, 0, 1, &head))? {
            return Ok(true);
        }
        attacker.flood(|_| frame(CONTINUATION, 0, 1, &filler))
    })
}

fn a_flood_of_empty_continuations_ends() -> Result<()> {
    attack(true, |attacker| {
        if !attacker.send(&frame(HEADERS, 0, 1, &call()))? {
            return Ok(true);
        }
        attacker.flood(|_| frame(CONTINUATION, 0, 1, &[]))
    })
}

/// Single bytes that refer to one entry of the dynamic table:
/// sixty thousand times four thousand bytes.
fn header_blocks_that_unpack_to_hundreds_of_megabytes_end() -> Result<()> {
    const VALUE: usize = 4_000;
    // "Literal with incremental indexing", and its length as an integer of a 7-bit prefix.
    let mut entry = vec![0x40, 1, b'x', 0x7f];
    let rest = VALUE - 127;
    entry.extend([u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80, u8::try_from(rest >> 7).unwrap_or(0)]);
    entry.extend(vec![b'a'; VALUE]);
    // The first entry of the dynamic table is 62.
    let references = vec![0x80 | 62; LARGEST];
    attack(true, |attacker| {
        let mut stream = 1;
        attacker.flood(|number| {
            if number % 4 != 0 {
                let flags = if number % 4 == 3 { END_HEADERS } else { 0 };
                return frame(CONTINUATION, flags, stream, &references);
            }
            stream = 1 + number / 2;
            frame(HEADERS, 0, stream, &[call(), entry.clone()].concat())
        })
    })
}

/// Each block resizes the table to zero and to its maximum, and fills it.
fn a_table_that_is_resized_and_refilled_without_end_is_bounded() -> Result<()> {
    // Table sizes of 0 and 4,096; then fields with indexing.
    let sizes = [0x20, 0x3f, 0xe1, 0x1f];
    attack(false, |attacker| {
        attacker.flood(|number| {
            let indexed = (0..60).flat_map(|at| {
                let name = format!("k{at:02}");
                [&[0x40, 3], name.as_bytes(), &[40], &[b'v'; 40]].concat()
            });
            let block = [sizes.to_vec(), call(), indexed.collect()].concat();
            let stream = 1 + number * 2;
            [frame(HEADERS, END_HEADERS | END_STREAM, stream, &block), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
                .concat()
        })
    })
}

/// CVE-2023-44487: calls that the client resets before the response.
fn streams_that_are_reset_at_once_cost_nothing_lasting() -> Result<()> {
    attack(false, |attacker| {
        attacker.flood(|number| {
            let stream = 1 + number * 2;
            let open = frame(HEADERS, END_HEADERS, stream, &call());
            [open, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        })
    })
}

fn settings_and_pings_with_unread_answers_are_bounded() -> Result<()> {
    attack(false, |attacker| {
        attacker.flood(|number| match number % 2 {
            0 => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            _ => frame(PING, 0, 0, &u64::from(number).to_be_bytes()),
        })
    })
}

fn window_updates_and_priorities_without_end_are_bounded() -> Result<()> {
    attack(false, |attacker| {
        attacker.flood(|number| {
            let stream = 1 + number % 1_000_000 * 2;
            [frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])].concat()
        })
    })
}

/// A message with an announced length of four gigabytes, beyond the window of its stream.
fn unrequested_data_is_bounded() -> Result<()> {
    let filler = vec![0; LARGEST];
    attack(true, |attacker| {
        let open = frame(HEADERS, END_HEADERS, 1, &call());
        if !attacker.send(&[open, frame(DATA, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff])].concat())? {
            return Ok(true);
        }
        attacker.flood(|_| frame(DATA, 0, 1, &filler))
    })
}
