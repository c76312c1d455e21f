//! Names of status objects and events, and values of node labels.
//!
//! Pure. A name that is short enough is exactly upstream's; a longer one is cut and gets a digest
//! of the whole name, so that every node and every version of this program derives the same one
//! (docs/differences.md).

use sha2::{Digest as _, Sha256};

use crate::model::{InvalidName, PodRef, ResourceName};

/// The longest object name (RFC 1123 subdomain).
const NAME: usize = 253;
/// The longest label value.
const LABEL: usize = 63;
/// Hexadecimal digits of a digest: 64 bits.
const DIGITS: usize = 16;

/// The label with the node of a status.
pub(super) const NODE_LABEL: &str = "internal.secrets-store.csi.k8s.io/node-name";

/// `<pod>-<namespace>-<class>`, shortened if it is too long.
pub(super) fn status_name(pod: &PodRef, class: &str) -> Result<ResourceName, InvalidName> {
    ResourceName::new(plain(pod, class)).or_else(|_| distinct_status_name(pod, class))
}

/// The name if the plain one belongs to another pod: pod `a`, namespace `b`, class `b-c` and pod
/// `a-b`, namespace `b`, class `c` have the same plain name.
pub(super) fn distinct_status_name(pod: &PodRef, class: &str) -> Result<ResourceName, InvalidName> {
    // None of the three can contain a slash, so that different triples have different digests.
    ResourceName::new(digested(&plain(pod, class), &format!("{}/{}/{class}", pod.namespace, pod.name), NAME))
}

/// The node's name as a label value.
pub(super) fn node_label(node: &str) -> String {
    if node.len() <= LABEL { node.to_owned() } else { digested(node, node, LABEL) }
}

/// A name for one event about an object.
pub(super) fn event_name(object: &str, distinct: &str) -> Result<ResourceName, InvalidName> {
    ResourceName::new(digested(object, distinct, NAME))
}

fn plain(pod: &PodRef, class: &str) -> String {
    format!("{}-{}-{class}", pod.name, pod.namespace)
}

/// The beginning of `name` and a digest of `whole`, together at most `longest` characters.
fn digested(name: &str, whole: &str, longest: usize) -> String {
    let mut digest = hex::encode(Sha256::digest(whole));
    digest.truncate(DIGITS);
    let room = longest - DIGITS - 1;
    let end = (0..=room.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    // A hyphen must not follow a dot.
    let beginning = name[..end].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    match beginning {
        "" => digest,
        beginning => format!("{beginning}-{digest}"),
    }
}
