//! What is done whenever the HTTP client opens a connection: it is counted, and keeps the place of the fetch for which
//! it is opened.
//!
//! The client goes on connecting when a request has found another connection meanwhile, or has no reader any more:
//! without this such a connection would belong to nobody. Opens nothing itself. Control comes from reqwest, and goes on
//! to its connector.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tower::{Layer, Service};

use super::places;

/// How many connections a client has opened. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Opened(Arc<AtomicUsize>);

impl Opened {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S> Layer<S> for Opened {
    type Service = Opening<S>;

    fn layer(&self, inner: S) -> Opening<S> {
        Opening { inner, opened: self.clone() }
    }
}

/// The client's connector, watched.
#[derive(Debug, Clone)]
pub(super) struct Opening<S> {
    inner: S,
    opened: Opened,
}

impl<To, S> Service<To> for Opening<S>
where
    S: Service<To>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, to: To) -> Self::Future {
        self.opened.0.fetch_add(1, Ordering::Relaxed);
        let (place, connecting) = (places::in_hand(), self.inner.call(to));
        async move {
            let _kept = place;
            connecting.await
        }
        .boxed()
    }
}
