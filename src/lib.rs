//! keyvault-csi: Azure Key Vault secrets, keys and certificates as files in Kubernetes pods.
//!
//! The modules stand in reading order. A module imports only what stands below it in this list of layers, and each
//! outside crate has one home; `tests/it/tidy.rs` holds both rules.
//!
//! ```text
//! cmd → csi, plugin, mirror → volume → external, provider → keyvault → model → formats
//!                      classes, compute, grpc, k8s, platform, metrics, news, telemetry are leaves beside them
//! ```

pub mod cmd;

pub mod csi;
pub mod mirror;
pub mod plugin;
pub mod volume;

pub mod external;
pub mod provider;

pub mod keyvault;

pub mod model;

pub mod formats;

pub mod classes;
pub mod compute;
pub mod grpc;
pub mod k8s;
pub mod platform;

pub mod admin;
pub mod metrics;
pub mod news;
pub mod telemetry;
