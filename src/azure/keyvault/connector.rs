//! A layer around the HTTP client's connector: counts the connections that it opens, and holds the
//! permit of the fetch until a connection is established.
//!
//! The client goes on connecting when the request found another connection meanwhile, or was
//! cancelled: without this layer such a connection would count for no namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tower::{Layer, Service};

use super::fetch_permits::current_permit;

/// How many connections a client has opened. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenedConnections(Arc<AtomicUsize>);

impl OpenedConnections {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S> Layer<S> for OpenedConnections {
    type Service = CountingConnector<S>;

    fn layer(&self, inner: S) -> CountingConnector<S> {
        CountingConnector { inner, opened: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(super) struct CountingConnector<S> {
    inner: S,
    opened: OpenedConnections,
}

impl<To, S> Service<To> for CountingConnector<S>
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
        let (permit, connecting) = (current_permit(), self.inner.call(to));
        async move {
            let _held = permit;
            connecting.await
        }
        .boxed()
    }
}
