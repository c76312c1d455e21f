//! The built-in provider: a class and a caller in, a result for each object out.
//!
//! Parsing and rendering are pure; only `fetch` sends requests, through `keyvault`. Has no volume:
//! whether the objects together make one is decided in `backend`.

mod certificate;
mod certificate_login;
mod client_certificate;
mod cloud_file;
mod conversion;
mod credentials;
mod encode;
mod error;
mod fetch;
mod login;
mod mistake;
mod object;
mod object_fetch;
mod params;
mod render;
mod service_account;
mod versions;
mod warning;

pub use client_certificate::{CertificateError, CertificateText, ClientCertificate};
pub use cloud_file::DefaultCloud;
pub use conversion::HeldFiles;
pub use credentials::{CertificateProof, CredentialsError, Proof, ServicePrincipal, service_principal};
pub use encode::{RenderError, RenderFault};
pub use error::Error;
pub use fetch::{Azure, AzureFetch, ObjectResult};
pub use mistake::{Mistake, Mistakes, NearMiss, ObjectLabel};
pub use object::{Encoding, Format, ObjectSpec, ObjectType, Version};
pub use object_fetch::FetchedObject;
pub use params::{CLOUD_FILE, CloudChoice, IdentityMode, Params, attributes};
pub use render::{ObjectValue, Rendered, Rendering, SecretValue, render};
pub use service_account::{
    BINDING_AUDIENCE, CallerFault, OtherPod, TokenError, WORKLOAD_AUDIENCE, check_pod, fault_of, service_account,
};
pub use versions::{ListedVersion, VersionsError, newest};
pub use warning::{Finding, Warning};

pub use crate::azure::keyvault::Identity;

/// The limits of a class.
pub mod limits {
    /// The most objects of one class. A volume cannot hold many more files than a thousand
    /// (`model::limits::PAYLOAD`).
    pub const OBJECTS: usize = 500;
    /// How many mistakes of one class are listed: twenty fill the 1,024 characters of an event.
    pub const LISTED: usize = 20;
    /// How much of a value an error shows, in characters.
    pub const SHOWN: usize = 64;
}

#[cfg(test)]
mod tests;
