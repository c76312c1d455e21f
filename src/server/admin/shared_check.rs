//! A health check whose result all requests of a second share.
//!
//! However many clients ask, the check runs once a second at most; a failure is shared like a
//! success.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// How long a result is served, from the start of its check.
const FRESH: Duration = Duration::from_secs(1);

/// The result of a check: healthy, or a text for the operator.
pub type Checked = Result<(), String>;

/// Starts a check. The future must complete within a deadline of its own.
pub type Check = Box<dyn Fn() -> BoxFuture<'static, Checked> + Send + Sync>;

/// The latest check.
pub(super) struct SharedCheck {
    check: Check,
    last: Mutex<Option<Last>>,
}

/// When the last check began, and its result.
type Last = (Instant, Shared<BoxFuture<'static, Checked>>);

impl SharedCheck {
    pub(super) fn new(check: Check) -> SharedCheck {
        SharedCheck { check, last: Mutex::default() }
    }

    /// The result of the last check, or of a new one if that is complete and older than a second.
    pub(super) async fn result(&self) -> Checked {
        let check = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some((began, check)) if began.elapsed() < FRESH || check.peek().is_none() => check.clone(),
                Some(_) | None => last.insert((Instant::now(), start((self.check)()))).1.clone(),
            }
        };
        check.await
    }
}

/// Runs the check in a task of its own: it must survive the client that started it, or each client
/// that disconnects would start another.
fn start(check: BoxFuture<'static, Checked>) -> Shared<BoxFuture<'static, Checked>> {
    let task = tokio::spawn(check);
    async move { task.await.unwrap_or_else(|_| Err("the health check was lost".to_owned())) }.boxed().shared()
}

impl fmt::Debug for SharedCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedCheck")
    }
}
