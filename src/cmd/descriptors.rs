//! Pure. How the file descriptors that the process may have are shared out.
//!
//! Every share is a part of the limit that is in force, and no larger than what is of use, so that what one kind of
//! client opens never takes what another needs. What is left over, an eighth at least, is for listeners, the API
//! server, and directories and files.

/// How many connections each kind of client may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Connections to the gRPC socket. As many go to other providers, since each open call has at most one.
    pub(super) calls: usize,
    /// Clients of the health check.
    pub(super) health: usize,
    /// Clients of the metrics.
    pub(super) metrics: usize,
    /// Fetches from vaults that may use a connection, for all namespaces together. Looking up a name needs four
    /// descriptors for a moment: two kinds of addresses, two name servers.
    pub(super) fetches: usize,
    /// Connections to Azure that may lie idle.
    pub(super) idle: usize,
}

impl Descriptors {
    /// The shares of this limit.
    pub(super) fn of(limit: u64) -> Descriptors {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let part = |divisor: usize, most: usize| (limit / divisor).clamp(1, most);
        Descriptors {
            calls: part(5, 2_048),
            health: part(24, 256),
            metrics: part(48, 64),
            fetches: part(12, 1_024),
            idle: part(12, 512),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the shares may open together.
    fn sum(shares: Descriptors) -> usize {
        let Descriptors { calls, health, metrics, fetches, idle } = shares;
        2 * calls + health + metrics + 4 * fetches + idle
    }

    #[test]
    fn an_eighth_of_the_limit_is_left_over() {
        for limit in [48, 64, 256, 1_024, 4_096, 65_536, 1 << 20, u64::from(u32::MAX)] {
            let (all, limit) = (sum(Descriptors::of(limit)), usize::try_from(limit).unwrap());
            assert!(all <= limit - limit / 8, "{all} of {limit}");
        }
    }

    #[test]
    fn shares_end_where_more_is_of_no_use() {
        let most = Descriptors { calls: 2_048, health: 256, metrics: 64, fetches: 1_024, idle: 512 };
        assert_eq!(Descriptors::of(1 << 20), most);
        assert_eq!(Descriptors::of(u64::MAX), most);
    }

    #[test]
    fn every_share_has_something() {
        let Descriptors { calls, health, metrics, fetches, idle } = Descriptors::of(1);
        assert_eq!([calls, health, metrics, fetches, idle], [1; 5]);
    }
}
