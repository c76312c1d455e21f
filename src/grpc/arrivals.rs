//! Requests as they come in: counted for their connection until they are answered, and given up when they take too long.
//!
//! Reads no message. tonic calls this for each request before it looks for the service; `places` decides what has to go.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::connections::Peer;
use super::places::Call;

/// How long a request may take to come whole, from its head on.
const ARRIVAL: Duration = Duration::from_secs(10);

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
    /// Nothing once the request has come whole.
    coming: Option<(Call, Pin<Box<Sleep>>)>,
}

impl Incoming {
    fn new(body: Body, call: Call) -> Incoming {
        if body.is_end_stream() {
            call.serve();
            return Incoming { body, coming: None };
        }
        Incoming { body, coming: Some((call, Box::pin(tokio::time::sleep(ARRIVAL)))) }
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some((_, time)) = &mut self.coming
            && time.poll_unpin(cx).is_ready()
        {
            let text = format!("the request did not come whole within {ARRIVAL:?}");
            return Poll::Ready(Some(Err(Status::deadline_exceeded(text))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let is_over = !matches!(frame, Some(Ok(_))) || self.body.is_end_stream();
        if let Some((call, _)) = &self.coming {
            let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
            call.hold(bytes);
            if is_over {
                call.serve();
                self.coming = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
