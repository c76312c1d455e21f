//! A real tonic server on a real Unix socket, with the adapter and, to prove that it is necessary,
//! without.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, EncodeBuf};
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, UnaryService};
use tonic::transport::server::UdsConnectInfo;
use tonic::transport::{Endpoint, Server};

use super::recorded::{Recording, recordings};
use super::*;

/// Messages without decoding.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, message: Vec<u8>, output: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        output.put_slice(&message);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        Ok(Some(input.copy_to_bytes(input.remaining()).to_vec()))
    }
}

/// Answers each call with the authority of the request and the length of the message.
#[derive(Clone)]
struct AuthorityService;

impl Service<http::Request<Body>> for AuthorityService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert!(request.extensions().get::<UdsConnectInfo>().is_some(), "the connect info passes through");
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        Box::pin(async move { Ok(Grpc::new(Raw).unary(Answer { authority }, request).await) })
    }
}

struct Answer {
    authority: String,
}

impl UnaryService<Vec<u8>> for Answer {
    type Response = Vec<u8>;
    type Future = BoxFuture<'static, Result<tonic::Response<Vec<u8>>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<Vec<u8>>) -> Self::Future {
        let answer = format!("{} {}", self.authority, request.into_inner().len());
        Box::pin(async move { Ok(tonic::Response::new(answer.into_bytes())) })
    }
}

/// A server in its own directory; it stops when the value is dropped.
struct Running {
    socket: PathBuf,
    _directory: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

impl Running {
    fn start(adapted: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("csi.sock");
        let listener = UnixListenerStream::new(UnixListener::bind(&socket).expect("a socket"));
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        tokio::spawn(async move {
            if adapted {
                let incoming = listener.map(|stream| stream.map(LocalhostAuthority::new));
                Server::builder().serve_with_incoming_shutdown(AuthorityService, incoming, stopped).await
            } else {
                Server::builder().serve_with_incoming_shutdown(AuthorityService, listener, stopped).await
            }
        });
        Self { socket, _directory: directory, _stop: stop }
    }
}

/// The end of a stream.
#[derive(Debug, PartialEq)]
enum Reply {
    Answered(String),
    Reset(u32),
    GoAway(u32),
    Closed,
}

const PROTOCOL_ERROR: u32 = 1;

/// A client that writes frames and reads frames.
struct RawClient {
    stream: UnixStream,
    decoder: Decoder<'static>,
}

impl RawClient {
    /// Connects as a kubelet does: SETTINGS with the preface, and the acknowledgement after the
    /// server's.
    async fn connect(socket: &Path) -> Self {
        let mut client = Self::open(socket).await;
        let [settings, ack] = Recording::settings();
        client.send(&[PREFACE.to_vec(), settings]).await;
        while client.read_frame().await.is_some_and(|(kind, flags, _, _)| kind != SETTINGS || flags & ACK != 0) {}
        client.send(&[ack]).await;
        client
    }

    async fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.expect("the server listens");
        Self { stream, decoder: Decoder::new() }
    }

    async fn send(&mut self, frames: &[Vec<u8>]) {
        self.stream.write_all(&frames.concat()).await.expect("written");
    }

    async fn read_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        let read = async {
            self.stream.read_exact(&mut head).await?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.stream.read_exact(&mut payload).await?;
            Ok::<_, io::Error>(payload)
        };
        let payload = tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer in time").ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Reads until the stream ends; asserts that a response has the status OK.
    async fn reply(&mut self, id: u32) -> Reply {
        let mut message = Vec::new();
        let mut status = None;
        while let Some((kind, flags, stream, payload)) = self.read_frame().await {
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
            match kind {
                GOAWAY => return Reply::GoAway(code(4)),
                RST_STREAM if stream == id => return Reply::Reset(code(0)),
                HEADERS => {
                    let fields = self.decoder.decode(&payload).expect("h2's HPACK");
                    status = fields.into_iter().find(|(name, _)| name == b"grpc-status").or(status);
                }
                DATA => message.extend(payload),
                _ => {}
            }
            if stream == id && flags & END_STREAM != 0 && matches!(kind, DATA | HEADERS) {
                assert_eq!(status.expect("a status").1, b"0");
                return Reply::Answered(String::from_utf8_lossy(&message[5..]).into_owned());
            }
        }
        Reply::Closed
    }

    async fn call(&mut self, id: u32, authority: Option<&str>) -> Reply {
        let mut list: Vec<_> = authority.map(|authority| (":authority", authority)).into_iter().collect();
        list.extend([
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/pluginregistration.Registration/GetInfo"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]);
        // A new encoder for each call: these blocks do not refer to older fields in the adapter's
        // table.
        let block = loona_hpack::Encoder::new().encode(list.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        self.send(&[frame(HEADERS, END_HEADERS, id, &block), frame(DATA, END_STREAM, id, &[0; 5])]).await;
        self.reply(id).await
    }
}

fn answered(text: &str) -> Reply {
    Reply::Answered(text.to_owned())
}

/// Authorities of kubelets, valid ones, and invalid ones that no kubelet sends.
fn authorities() -> Vec<String> {
    let mut all: Vec<_> = [
        "/var/lib/kubelet/plugins/secrets-store.csi.k8s.io/csi.sock",
        "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fsecrets-store.csi.k8s.io-reg.sock",
        "localhost",
        "vault.example:443",
        "",
        "a b",
        "\u{e4}\u{0}\u{7f}",
    ]
    .map(str::to_owned)
    .to_vec();
    all.push("/".repeat(10_240));
    all
}

#[tokio::test]
async fn every_authority_reaches_the_handler_as_localhost() {
    let server = Running::start(true);
    for authority in authorities() {
        let mut client = RawClient::connect(&server.socket).await;
        assert_eq!(client.call(1, Some(&authority)).await, answered("localhost 0"), "{authority:?}");
        assert_eq!(client.call(3, Some(&authority)).await, answered("localhost 0"), "{authority:?} again");
    }
}

#[tokio::test]
async fn a_call_without_authority_reaches_the_handler_without() {
    let server = Running::start(true);
    let mut client = RawClient::connect(&server.socket).await;
    assert_eq!(client.call(1, None).await, answered(" 0"));
}

/// The reason for the adapter. If this test fails, h2 accepts paths, and the adapter can be
/// deleted.
#[tokio::test]
async fn without_the_adapter_a_path_is_a_protocol_error() {
    let server = Running::start(false);
    for authority in &authorities()[..2] {
        let mut client = RawClient::connect(&server.socket).await;
        assert_eq!(client.call(1, Some(authority)).await, Reply::Reset(PROTOCOL_ERROR));
    }
    let mut client = RawClient::connect(&server.socket).await;
    assert_eq!(client.call(1, Some("localhost")).await, answered("localhost 0"));
}

#[tokio::test]
async fn recorded_conversations_are_answered() {
    let server = Running::start(true);
    for recording in recordings() {
        let mut client = RawClient::connect(&server.socket).await;
        for call in &recording.calls {
            client.send(&call.frames()).await;
            let answer = format!("localhost {}", call.message.len() - 5);
            assert_eq!(client.reply(call.stream).await, answered(&answer));
            client.send(&[frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 115]), frame(PING, 0, 0, &[0; 8])]).await;
        }
        client.send(&[frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0client transport shutdown")]).await;
        while client.read_frame().await.is_some() {}
    }
}

#[tokio::test]
async fn tonics_client_is_served_in_parallel_with_large_messages() {
    let server = Running::start(true);
    let socket = server.socket.clone();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://vault.example:443");
    let channel = endpoint.connect_with_connector(connector).await.expect("connected");
    let calls = (0..32_usize).map(|number| {
        let mut client = tonic::client::Grpc::new(channel.clone());
        async move {
            let length = number * 40_000;
            client.ready().await.expect("ready");
            let mut request = tonic::Request::new(vec![7_u8; length]);
            let value = "v".repeat(number * 100).parse().expect("a value");
            request.metadata_mut().insert("x-number", value);
            let path = http::uri::PathAndQuery::from_static("/a.B/C");
            let answer = client.unary(request, path, Raw).await.expect("answered");
            assert_eq!(answer.into_inner(), format!("localhost {length}").into_bytes());
        }
    });
    futures::future::join_all(calls).await;
}

/// An error of a client ends its own connection only.
#[tokio::test]
async fn a_broken_connection_ends_and_others_go_on() {
    let server = Running::start(true);
    let mut bystander = RawClient::connect(&server.socket).await;
    let oversized = frame(HEADERS, END_HEADERS, 1, &[0x82; 16_385]);
    let interrupted = [frame(HEADERS, 0, 1, &[0x82]), frame(PING, 0, 0, &[0; 8])].concat();
    for bytes in [oversized, interrupted, frame(HEADERS, END_HEADERS, 1, &[0x80])] {
        let mut client = RawClient::connect(&server.socket).await;
        client.send(&[bytes]).await;
        while client.read_frame().await.is_some() {}
    }
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16; 100]] {
        let mut client = RawClient::open(&server.socket).await;
        client.send(&[garbage.to_vec()]).await;
        let mut rest = Vec::new();
        drop(client.stream.read_to_end(&mut rest).await);
    }
    // h2 refuses these, not the adapter.
    let push = frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]);
    for bytes in [push, frame(CONTINUATION, END_HEADERS, 1, &[0x82]), frame(HEADERS, END_HEADERS, 0, &[0x82])] {
        let mut client = RawClient::connect(&server.socket).await;
        client.send(&[bytes]).await;
        assert_eq!(client.reply(1).await, Reply::GoAway(PROTOCOL_ERROR));
    }
    assert_eq!(bystander.call(1, Some("/x")).await, answered("localhost 0"));
}
