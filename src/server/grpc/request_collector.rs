//! Collects each request before a service sees it, counts it for its connection, and rejects it if
//! it does not arrive in time.
//!
//! tonic allocates the length that a message announces, so that five bytes would cost 4 MiB; this
//! layer therefore passes only complete requests on. It parses no message. `connection_limits`
//! decides which connection to close.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::connection_limits::Call;
use super::connections::Peer;

/// The largest message: gRPC's default, and upstream's.
pub(crate) const MESSAGE: usize = 4 << 20;

/// How long a request may take to arrive, counted from its headers.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The prefix of a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// Adds [`CollectRequests`] to a service.
#[derive(Debug, Clone)]
pub(crate) struct CollectRequestsLayer;

impl<S> Layer<S> for CollectRequestsLayer {
    type Service = CollectRequests<S>;

    fn layer(&self, inner: S) -> CollectRequests<S> {
        CollectRequests { inner }
    }
}

/// A service that receives complete requests only.
#[derive(Debug, Clone)]
pub(crate) struct CollectRequests<S> {
    inner: S,
}

impl<S, B> Service<Request<Body>> for CollectRequests<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(Peer(slot)) = request.extensions().get::<Peer>() else {
            // Every connection of our servers has one.
            return self.inner.call(request).boxed();
        };
        let call = slot.begin_call();
        let counted = call.clone();
        let response = self.inner.call(request.map(|body| Body::new(CollectedBody::new(body, counted))));
        async move {
            let _open = call;
            response.await
        }
        .boxed()
    }
}

/// A request's body.
struct CollectedBody {
    body: Body,
    /// Frames that arrived and were not passed on.
    frames: VecDeque<Frame<Bytes>>,
    /// `None` once the request is complete.
    arriving: Option<Arriving>,
}

/// A request that is still incomplete.
struct Arriving {
    call: Call,
    bytes: usize,
    time: Pin<Box<Sleep>>,
}

impl CollectedBody {
    fn new(body: Body, call: Call) -> CollectedBody {
        let mut arriving = Some(Arriving { call, bytes: 0, time: Box::pin(tokio::time::sleep(TIMEOUT)) });
        if body.is_end_stream()
            && let Some(request) = arriving.take()
        {
            request.call.complete();
        }
        CollectedBody { body, frames: VecDeque::new(), arriving }
    }

    /// Collects frames until the request is complete. tonic rejects a message that is too long by
    /// its prefix, so collecting stops there.
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        while let Some(Arriving { call, bytes, time }) = &mut self.arriving {
            if time.poll_unpin(cx).is_ready() {
                call.abandon();
                let text = format!("the request was not complete within {TIMEOUT:?}");
                return Poll::Ready(Err(Status::deadline_exceeded(text)));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
            let length = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
            *bytes += length;
            call.add_bytes(length);
            if frame.is_none() || self.body.is_end_stream() || *bytes > PREFIX + MESSAGE {
                call.complete();
                self.arriving = None;
            }
            self.frames.extend(frame);
        }
        Poll::Ready(Ok(()))
    }
}

impl HttpBody for CollectedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        ready!(self.poll_complete(cx))?;
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.body.is_end_stream()
    }
}
