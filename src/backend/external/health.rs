//! Health checks of providers, if a flag turns them on, with a gauge of the results.
//!
//! No effect on mounts (docs/reference/csi-driver.md#provider-health). Checks the providers that
//! were discovered on this node; `metrics` bounds their number.

use std::time::Duration;

use keyvault_csi_proto::provider::VersionRequest;
use keyvault_csi_proto::provider::csi_driver_provider_client::CsiDriverProviderClient;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::{debug, info, warn};

use super::External;
use super::connect::Search;
use super::limits;
use super::socket::ProviderName;
use crate::server::telemetry::key;

/// The deadline of one check.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The protocol's version.
const PROTOCOL: &str = "v1alpha1";

/// The largest answer, in bytes: three short texts.
const ANSWER: usize = 64 << 10;

impl External {
    /// Checks each discovered provider at this interval; never returns.
    pub async fn watch_health(self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let names = self.metrics.providers().names();
            let names = names.iter().filter_map(|name| ProviderName::new(name));
            futures::future::join_all(names.map(|name| self.check(name))).await;
        }
    }

    async fn check(&self, name: ProviderName) {
        let outcome = self.version(&name).await;
        let changed = self.metrics.providers().set_healthy(name.as_str(), outcome.is_ok());
        match outcome {
            Ok(version) if changed => info!(provider = %name, version, "the provider answers"),
            Ok(version) => debug!(provider = %name, version, "the provider answers"),
            Err(text) if changed => warn!(provider = %name, { key::ERROR } = text, "the provider does not answer"),
            Err(text) => debug!(provider = %name, { key::ERROR } = text, "the provider does not answer"),
        }
    }

    /// The name and version that the provider reports.
    async fn version(&self, name: &ProviderName) -> Result<String, String> {
        let deadline = Instant::now() + TIMEOUT;
        let directories = &self.options.directories;
        let mut search = Search { name, directories, deadline, discovered: false };
        let channel = search.connect().await.map_err(|fault| fault.to_string())?;
        let mut client = CsiDriverProviderClient::new(channel).max_decoding_message_size(ANSWER);
        let call = client.version(VersionRequest { version: PROTOCOL.to_owned() });
        let answer = timeout_at(deadline, call).await.map_err(|_| format!("no answer within {TIMEOUT:?}"))?;
        let answer = answer.map_err(|status| cut(&format!("{:?}: {}", status.code(), status.message())))?.into_inner();
        Ok(cut(&format!("{} {} ({})", answer.runtime_name, answer.runtime_version, answer.version)))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(limits::SHOWN * 2).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
