//! The emulator's clock: whole Unix seconds, as all its protocols use them.

/// The current Unix time in seconds.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
