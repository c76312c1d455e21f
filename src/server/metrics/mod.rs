//! Metrics: one set for each role, and one for all roles that fetch.
//!
//! Names, labels and scope labels are upstream's, so that dashboards keep working
//! (docs/reference/csi-driver.md#metrics); `reason` is added. Label values come from closed lists
//! only. `admin` serves the text.

mod classic;
mod exposition;
mod fetch;
mod labels;
mod node;
mod provider_calls;
mod providers;
mod rotation;

pub use self::exposition::{Exposition, Format};
pub use self::fetch::FetchMetrics;
pub use self::labels::BACKOFF_REASONS;
pub use self::node::NodeMetrics;
pub use self::provider_calls::ProviderMetrics;
pub use self::providers::{Cause, Provider, Providers};
pub use self::rotation::Rotation;
