//! A name server for the driver's pods: Azure's names resolve to the emulator, and no other name
//! exists.
//!
//! The driver's image has no C library and no hosts file of ours, so it queries this server for
//! every name (RFC 1035 §4.1). The queried names are recorded.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

static QUERIED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

const A: [u8; 4] = [0, 1, 0, 1];

/// Serves on an address as long as the process runs; Azure's names have the address `azure`.
pub(crate) fn serve(address: Ipv4Addr, azure: Ipv4Addr) -> Result<()> {
    let socket = UdpSocket::bind((address, 53)).with_context(|| format!("port 53 of {address}"))?;
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            if let Some(response) = respond(&question[..length], azure) {
                // An error means that the client does not exist any more.
                let _ = socket.send_to(&response, from);
            }
        }
    });
    Ok(())
}

/// Whether a pod queried this name.
pub(crate) fn was_queried(name: &str) -> bool {
    QUERIED.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
}

fn respond(question: &[u8], azure: Ipv4Addr) -> Option<Vec<u8>> {
    let (name, end) = name(question)?;
    let kind = question.get(end..end + 4)?;
    let known = name.ends_with(".vault.azure.net") || name == "login.microsoftonline.com";
    QUERIED.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    let found = known && kind == A;
    // The question as a response: recursion available; NXDOMAIN for other names; no additional
    // records.
    let mut response = question[..end + 4].to_vec();
    response[2..4].copy_from_slice(&[0x81, if known { 0x80 } else { 0x83 }]);
    response[6..12].copy_from_slice(&[0, u8::from(found), 0, 0, 0, 0]);
    if found {
        // A pointer to the name, type and class, a TTL of one second, four bytes of address.
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        response.extend(azure.octets());
    }
    Some(response)
}

/// The name in lower case, and the offset after it.
fn name(question: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}
