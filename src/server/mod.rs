//! What every role serves with: gRPC on Unix sockets, probes and metrics over HTTP, logs.

pub mod admin;
pub mod grpc;
pub mod metrics;
pub mod telemetry;
