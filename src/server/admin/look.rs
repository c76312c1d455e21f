//! One look at a socket for all who ask at the same time, and for a second after it began.
//!
//! Does not know what is looked at. However many ask, the socket is asked once a second; a failure is shared like a
//! success. Control comes from `health`.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// For how long a look counts.
const FRESH: Duration = Duration::from_secs(1);

/// What a look brings: nothing, or what is wrong, for the operator.
pub(super) type Seen = Result<(), String>;

/// How the look is taken; it must end by itself.
type Ask = dyn Fn() -> BoxFuture<'static, Seen> + Send + Sync;

/// The shared look.
pub(super) struct Look {
    ask: Box<Ask>,
    last: Mutex<Option<Last>>,
}

/// When the last look began, and what it brings.
type Last = (Instant, Shared<BoxFuture<'static, Seen>>);

impl Look {
    pub(super) fn new(ask: impl Fn() -> BoxFuture<'static, Seen> + Send + Sync + 'static) -> Look {
        Look { ask: Box::new(ask), last: Mutex::default() }
    }

    /// What the last look brings, or a new one where that is older than a second and over.
    pub(super) async fn now(&self) -> Seen {
        let look = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some((began, look)) if began.elapsed() < FRESH || look.peek().is_none() => look.clone(),
                Some(_) | None => last.insert((Instant::now(), begin((self.ask)()))).1.clone(),
            }
        };
        look.await
    }
}

/// In a task of its own: whoever asked first may go away, and another look would begin for each who does.
fn begin(asking: BoxFuture<'static, Seen>) -> Shared<BoxFuture<'static, Seen>> {
    let task = tokio::spawn(asking);
    async move { task.await.unwrap_or_else(|_| Err("the look at the socket was lost".to_owned())) }.boxed().shared()
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}
