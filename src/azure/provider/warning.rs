//! Warnings about objects that are mounted, but not as their owner may expect.
//!
//! Pure.

use std::fmt;

/// What the user should know about an object that was rendered; never has content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Type and name of the object, with the index of the version in history mode.
    pub object: String,
    /// The finding.
    pub finding: Finding,
}

/// What rendering found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The certificates do not form one chain by their key identifiers, and stand in the archive's
    /// order.
    ChainNotOrdered,
    /// The class asks for PFX, but the certificate is stored as PEM.
    StaysPem,
    /// The archive has certificates but no key.
    NoPrivateKey,
    /// The `.crt` and `.key` files are empty, since the file is an archive.
    EmptyHalves,
    /// So many PEM blocks cannot be read, and are in neither of the `.crt` and `.key` files.
    DamagedBlocks(usize),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        match self.finding {
            Finding::ChainNotOrdered => f.write_str(
                "its certificates do not form one chain by their key identifiers and are written in the order of the PFX; \
                 import the certificate again with its whole chain, each certificate once",
            ),
            Finding::StaysPem => f.write_str(
                "objectFormat is pfx, but the vault stores this certificate as PEM, so the file is PEM; set the content \
                 type of the certificate's policy to application/x-pkcs12",
            ),
            Finding::NoPrivateKey => f.write_str(
                "the certificate comes without its private key; make the key exportable in the certificate's policy, or use \
                 objectType cert",
            ),
            Finding::EmptyHalves => f.write_str(
                "its .crt and .key files are empty since objectFormat is pfx; leave objectFormat out to fill them",
            ),
            Finding::DamagedBlocks(count) => {
                write!(f, "{count} PEM blocks cannot be read and are missing from its .crt and .key files")
            }
        }
    }
}
