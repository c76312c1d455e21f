//! Names of status objects and values of node labels, also where upstream's would be too long.
//!
//! Pure. What fits is upstream's to the letter; what does not is cut and gets a digest of the whole behind it, so that
//! every node and every version of this program finds the same name (docs/differences.md).

use sha2::{Digest as _, Sha256};

use crate::model::{InvalidName, PodRef, ResourceName};

/// The longest name of an object (RFC 1123 subdomain).
const NAME: usize = 253;
/// The longest value of a label.
const LABEL: usize = 63;
/// Hexadecimal digits of a digest: 64 bits.
const DIGITS: usize = 16;

/// The label that says which node a status belongs to.
pub(super) const NODE_LABEL: &str = "internal.secrets-store.csi.k8s.io/node-name";

/// `<pod>-<namespace>-<class>`, shortened if need be.
pub(super) fn status_name(pod: &PodRef, class: &str) -> Result<ResourceName, InvalidName> {
    ResourceName::new(plain(pod, class)).or_else(|_| distinct_status_name(pod, class))
}

/// The name for a pod whose plain one is taken: `a`, `b` and class `b-c` share theirs with `a-b`, `b` and class `c`.
pub(super) fn distinct_status_name(pod: &PodRef, class: &str) -> Result<ResourceName, InvalidName> {
    // A slash cannot stand in any of the three, so that no two triples have one digest.
    ResourceName::new(digested(&plain(pod, class), &format!("{}/{}/{class}", pod.namespace, pod.name), NAME))
}

/// The node's name as a label's value.
pub(super) fn node_label(node: &str) -> String {
    if node.len() <= LABEL { node.to_owned() } else { digested(node, node, LABEL) }
}

/// A name for one event of a pod.
pub(super) fn event_name(pod: &PodRef, distinct: &str) -> Result<ResourceName, InvalidName> {
    ResourceName::new(digested(&pod.name, distinct, NAME))
}

fn plain(pod: &PodRef, class: &str) -> String {
    format!("{}-{}-{class}", pod.name, pod.namespace)
}

/// The beginning of `name`, and a digest of `whole`: at most `longest` characters.
fn digested(name: &str, whole: &str, longest: usize) -> String {
    let mut digest = hex::encode(Sha256::digest(whole));
    digest.truncate(DIGITS);
    let room = longest - DIGITS - 1;
    let end = (0..=room.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    // The character before the hyphen must be a letter or a digit where another name part ends.
    let beginning = name[..end].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    match beginning {
        "" => digest,
        beginning => format!("{beginning}-{digest}"),
    }
}
