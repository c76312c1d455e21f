//! Fills a fetch: by the built-in Azure provider, or by an external provider's socket.
//!
//! Start reading in `backends`. Knows no volume: it writes nothing, and a volume is a target path
//! here.

mod backends;
mod error;
pub mod external;
mod payload;

pub use backends::{Backends, FetchIdentity, Held, PreparedFetch};
pub use error::Error;
pub use payload::whole_payload;

pub use crate::azure::provider::{CallerFault, HeldFiles};
