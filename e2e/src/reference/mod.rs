//! A provider for tests of drivers: an independent implementation of the provider protocol, with
//! fault injection.
//!
//! It follows the contract of the mock provider in upstream's end-to-end tests
//! (docs/reference/csi-driver.md#end-to-end-scenarios), so that its scenarios can run. It shares
//! the protocol's messages with the product and no other code. `contract` computes the response to
//! a Mount, `control` changes it over HTTP, `service` serves gRPC.

mod contract;
mod control;
mod options;
mod process;
mod run;
mod service;

pub use options::Options;
pub use process::{RecordedRequest, ReferenceProvider};
pub use run::run;
