//! Pure. Why there is no connection to a host, or why it broke.

use std::io;

use super::endpoint::Service;
use crate::model::Reason;

/// Why a connection could not be established, or broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionFault {
    /// DNS says that the name does not exist.
    NameUnknown,
    /// The DNS lookup failed.
    NameLookup,
    /// The server's certificate is not signed by a trusted authority.
    UnknownIssuer,
    /// The server's certificate is for another name, expired, or not acceptable otherwise.
    Certificate,
    /// The TLS handshake failed for another cause.
    Handshake,
    /// No connection within the limit.
    ConnectTimeout,
    /// An error of the operating system.
    Io(io::ErrorKind),
    /// The proxy or the network refuses the connection.
    NoConnection,
    /// The connection was closed before the response was complete.
    CutOff,
}

impl ConnectionFault {
    pub(super) fn reason(self, service: Service) -> Reason {
        match (self, service) {
            (ConnectionFault::NameUnknown, Service::KeyVault) => Reason::VaultNotFound,
            (ConnectionFault::UnknownIssuer | ConnectionFault::Certificate, _) => Reason::TlsUntrusted,
            (ConnectionFault::ConnectTimeout, _) => Reason::Timeout,
            (ConnectionFault::NameUnknown, Service::EntraId | Service::TokenProxy | Service::Imds)
            | (
                ConnectionFault::NameLookup
                | ConnectionFault::Handshake
                | ConnectionFault::Io(_)
                | ConnectionFault::NoConnection
                | ConnectionFault::CutOff,
                _,
            ) => Reason::NetworkUnreachable,
        }
    }

    /// An unknown name and a bad certificate last longer than a request may be retried.
    pub(super) fn is_transient(self) -> bool {
        match self {
            ConnectionFault::NameUnknown | ConnectionFault::UnknownIssuer | ConnectionFault::Certificate => false,
            ConnectionFault::NameLookup
            | ConnectionFault::Handshake
            | ConnectionFault::ConnectTimeout
            | ConnectionFault::Io(_)
            | ConnectionFault::NoConnection
            | ConnectionFault::CutOff => true,
        }
    }
}
