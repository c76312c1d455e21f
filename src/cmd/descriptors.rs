//! Pure. Divides the limit of open file descriptors among the kinds of clients.
//!
//! Each share is a fraction of the limit, with an upper bound, so that one kind of client cannot
//! use up the descriptors of another. The rest, at least an eighth, is for listeners, the API
//! server, directories and files.

/// The connections of each kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Connections to the gRPC socket. The same number goes to other providers: each open call has
    /// at most one.
    pub(super) calls: usize,
    /// Clients of the health check.
    pub(super) health: usize,
    /// Clients of the metrics.
    pub(super) metrics: usize,
    /// Concurrent fetches from vaults, for all namespaces together. A name look-up needs four
    /// descriptors: two kinds of addresses, two name servers.
    pub(super) fetches: usize,
    /// Idle connections to Azure.
    pub(super) idle: usize,
}

impl Descriptors {
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

    /// The descriptors of all shares together.
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
    fn shares_have_upper_bounds() {
        let largest = Descriptors { calls: 2_048, health: 256, metrics: 64, fetches: 1_024, idle: 512 };
        assert_eq!(Descriptors::of(1 << 20), largest);
        assert_eq!(Descriptors::of(u64::MAX), largest);
    }

    #[test]
    fn every_share_is_at_least_one() {
        let Descriptors { calls, health, metrics, fetches, idle } = Descriptors::of(1);
        assert_eq!([calls, health, metrics, fetches, idle], [1; 5]);
    }
}
