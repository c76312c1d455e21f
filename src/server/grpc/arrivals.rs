//! Requests as they come in: counted for their connection until they are answered, and given up when they take too
//! long.
//!
//! Hands a request on when it has come whole, and not before: tonic makes room for the length that a message announces,
//! so that five bytes would cost four MiB. Reads no message. tonic calls this for each request before it looks for the
//! service; `places` decides what has to go.

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

use super::connections::Peer;
use super::places::Call;
use super::server::MESSAGE;

/// How long a request may take to come whole, from its head on.
const ARRIVAL: Duration = Duration::from_secs(10);

/// What stands before a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// Puts [`Arriving`] before a service.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals;

impl<S> Layer<S> for Arrivals {
    type Service = Arriving<S>;

    fn layer(&self, inner: S) -> Arriving<S> {
        Arriving { inner }
    }
}

/// A service whose requests are counted as they come.
#[derive(Debug, Clone)]
pub(crate) struct Arriving<S> {
    inner: S,
}

impl<S, B> Service<Request<Body>> for Arriving<S>
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
        let Some(Peer(place)) = request.extensions().get::<Peer>() else {
            // Every connection of ours has one.
            return self.inner.call(request).boxed();
        };
        let call = place.begin();
        let counted = call.clone();
        let answer = self.inner.call(request.map(|body| Body::new(Incoming::new(body, counted))));
        async move {
            let _open = call;
            answer.await
        }
        .boxed()
    }
}

/// A request's body.
struct Incoming {
    body: Body,
    /// What has come and was not handed on.
    frames: VecDeque<Frame<Bytes>>,
    /// Nothing once the request has come whole.
    coming: Option<Coming>,
}

/// A request that comes.
struct Coming {
    call: Call,
    bytes: usize,
    time: Pin<Box<Sleep>>,
}

impl Incoming {
    fn new(body: Body, call: Call) -> Incoming {
        let mut coming = Some(Coming { call, bytes: 0, time: Box::pin(tokio::time::sleep(ARRIVAL)) });
        if body.is_end_stream()
            && let Some(whole) = coming.take()
        {
            whole.call.serve();
        }
        Incoming { body, frames: VecDeque::new(), coming }
    }

    /// Collects what comes, until that is all. A message that is too long is for tonic to refuse, by its first bytes.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        while let Some(Coming { call, bytes, time }) = &mut self.coming {
            if time.poll_unpin(cx).is_ready() {
                call.give_up();
                let text = format!("the request did not come whole within {ARRIVAL:?}");
                return Poll::Ready(Err(Status::deadline_exceeded(text)));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
            let more = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
            *bytes += more;
            call.hold(more);
            if frame.is_none() || self.body.is_end_stream() || *bytes > PREFIX + MESSAGE {
                call.serve();
                self.coming = None;
            }
            self.frames.extend(frame);
        }
        Poll::Ready(Ok(()))
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        ready!(self.poll_whole(cx))?;
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.body.is_end_stream()
    }
}
