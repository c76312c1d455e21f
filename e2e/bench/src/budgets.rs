//! The budgets of the figures.

/// The name of a figure, its limit, and whether the limit is an upper or a lower bound.
pub(crate) const BUDGETS: &[(&str, f64, Better)] = &[
    ("idle_pss_mib", 12.0, Better::Less),
    ("pss_200x10_mib", 24.0, Better::Less),
    ("memory_per_volume_kib", 8.0, Better::Less),
    ("publish_10_unknown_requests", 11.0, Better::Less),
    ("publish_10_known_requests", 10.0, Better::Less),
    ("publish_10_fresh_requests", 0.0, Better::Less),
    ("shared_cycle_100x10_requests", 10.0, Better::Less),
    ("quiet_cycle_api_writes", 0.0, Better::Less),
    ("publish_10_20ms_unknown_p50_ms", 60.0, Better::Less),
    ("publish_10_20ms_known_p50_ms", 32.0, Better::Less),
    ("publish_10_20ms_fresh_p50_ms", 6.0, Better::Less),
    ("publish_10_0ms_known_p50_ms", 5.0, Better::Less),
    ("throughput_32_one_identity_per_s", 250.0, Better::More),
    ("cpu_s_per_1000_publishes", 1.5, Better::Less),
    ("quiet_cycle_1000x10_cpu_ms", 20.0, Better::Less),
    ("unshared_1000_first_mount_p99_ms", 1_000.0, Better::Less),
    ("start_to_registered_ms", 150.0, Better::Less),
    ("binary_mb", 16.0, Better::Less),
    ("image_mb", 20.0, Better::Less),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}
