//! A name server for the cluster: Azure's names lead to the emulator on this machine, all others do not exist.
//!
//! The driver's image has no C library and no hosts file of ours, so every look-up of a name in it comes here (RFC 1035 §4.1).
//! What was asked is remembered.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

static ASKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

const A: [u8; 4] = [0, 1, 0, 1];

/// Answers on an address as long as the process lives: Azure is at `azure`.
pub(crate) fn serve(address: Ipv4Addr, azure: Ipv4Addr) -> Result<()> {
    let socket = UdpSocket::bind((address, 53)).with_context(|| format!("port 53 of {address}"))?;
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer(&question[..length], azure) {
                // A client that has gone needs no answer.
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    Ok(())
}

/// Whether somebody asked for this name.
pub(crate) fn asked(name: &str) -> bool {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
}

fn answer(question: &[u8], azure: Ipv4Addr) -> Option<Vec<u8>> {
    let (name, end) = name(question)?;
    let kind = question.get(end..end + 4)?;
    let known = name.ends_with(".vault.azure.net") || name == "login.microsoftonline.com";
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    let found = known && kind == A;
    // The question, as an answer: recursion is there; NXDOMAIN for names that are not ours; no additional records.
    let mut answer = question[..end + 4].to_vec();
    answer[2..4].copy_from_slice(&[0x81, if known { 0x80 } else { 0x83 }]);
    answer[6..12].copy_from_slice(&[0, u8::from(found), 0, 0, 0, 0]);
    if found {
        // The name again by its place, type and class, a lifetime of a second, four bytes of address.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(azure.octets());
    }
    Some(answer)
}

/// The name in lower case, and where it ends.
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
