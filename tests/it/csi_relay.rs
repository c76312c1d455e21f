//! A relay between csi-sanity and the driver, for `csi_sanity`.
//!
//! Passes the bytes of Identity and Node calls on, and changes two messages, by merging fields into
//! them: csi-sanity calls a Controller service only where the driver claims one, and publishes
//! without `readonly`, which the driver refuses as upstream does. In place of a controller, it
//! answers the calls with which csi-sanity creates and deletes its volumes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use axum::extract::State;
use bytes::{Buf as _, BufMut as _, Bytes};
use keyvault_csi_e2e::kubelet::{Volume, connect};
use keyvault_csi_proto::csi::plugin_capability::{Service, Type, service};
use keyvault_csi_proto::csi::{GetPluginCapabilitiesResponse, NodePublishVolumeRequest, PluginCapability};
use prost::Message;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};

use crate::harness::tree;

const CONTROLLER: &str = "/csi.v1.Controller/";
const GET_PLUGIN_CAPABILITIES: &str = "/csi.v1.Identity/GetPluginCapabilities";
const NODE_PUBLISH_VOLUME: &str = "/csi.v1.Node/NodePublishVolume";

/// A running relay. Dropping it stops it.
pub(crate) struct Relay {
    pub(crate) socket: PathBuf,
    record: Arc<Mutex<Record>>,
    _runtime: tokio::runtime::Runtime,
}

/// The contents of a volume's files by path.
pub(crate) type Contents = BTreeMap<String, Vec<u8>>;

/// The calls that the relay received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// The path of each call, and the code of its answer.
    pub(crate) calls: Vec<(String, Code)>,
    /// The files after each successful publish.
    pub(crate) published: Vec<Option<Contents>>,
}

impl Record {
    /// How many calls of this method got this code.
    pub(crate) fn count(&self, method: &str, code: Code) -> usize {
        self.calls.iter().filter(|(path, answer)| path == method && *answer == code).count()
    }
}

/// Where Identity and Node calls go.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    /// The driver on this socket.
    Driver(PathBuf),
    /// No driver: the relay answers each call with an empty message.
    Nowhere,
}

impl Relay {
    /// Serves on a socket in `folder`; each volume that a client creates is `volume`.
    pub(crate) fn start(folder: &Path, destination: &Destination, volume: &Volume) -> Result<Relay> {
        let socket = folder.join("relay.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let record = Arc::<Mutex<Record>>::default();
        let driver = match destination {
            Destination::Driver(driver) => Some(runtime.block_on(connect(driver))?),
            Destination::Nowhere => None,
        };
        let calls = Calls { driver, volume: Arc::new(volume.clone()), record: Arc::clone(&record) };
        let listener = {
            let _context = runtime.enter();
            UnixListener::bind(&socket)?
        };
        let routes = Routes::from(axum::Router::new().fallback(serve).with_state(calls));
        runtime.spawn(Server::builder().add_routes(routes).serve_with_incoming(UnixListenerStream::new(listener)));
        Ok(Relay { socket, record, _runtime: runtime })
    }

    pub(crate) fn record(&self) -> Record {
        self.record.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Calls {
    driver: Option<Channel>,
    volume: Arc<Volume>,
    record: Arc<Mutex<Record>>,
}

async fn serve(
    State(calls): State<Calls>,
    request: http::Request<axum::body::Body>,
) -> http::Response<tonic::body::Body> {
    let method = request.uri().path().to_owned();
    let answer = tower::service_fn(move |request| calls.clone().answer(method.clone(), request));
    tonic::server::Grpc::new(BytesCodec).unary(answer, request).await
}

impl Calls {
    async fn answer(self, method: String, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let answer = match method.strip_prefix(CONTROLLER) {
            Some(call) => self.controller(call, request.get_ref()).map(Response::new),
            None => self.pass_on(&method, request).await,
        };
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.record.lock().unwrap().calls.push((method, code));
        answer
    }

    async fn pass_on(&self, method: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        match method {
            GET_PLUGIN_CAPABILITIES => {
                let claimed = Service { r#type: service::Type::ControllerService.into() };
                let capability = PluginCapability { r#type: Some(Type::Service(claimed)) };
                let addition = GetPluginCapabilitiesResponse { capabilities: vec![capability] };
                Ok(self.send(method, request).await?.map(|message| merge(&message, &addition)))
            }
            NODE_PUBLISH_VOLUME => {
                let target = decode::<NodePublishVolumeRequest>(request.get_ref())?.target_path;
                let addition = NodePublishVolumeRequest { readonly: true, ..NodePublishVolumeRequest::default() };
                let response = self.send(method, request.map(|message| merge(&message, &addition))).await?;
                self.record.lock().unwrap().published.push(contents(Path::new(&target)));
                Ok(response)
            }
            _ => self.send(method, request).await,
        }
    }

    async fn send(&self, method: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let Some(driver) = self.driver.clone() else { return Ok(Response::new(Bytes::new())) };
        let path = method.parse().map_err(|error| Status::internal(format!("{method}: {error}")))?;
        let mut client = tonic::client::Grpc::new(driver);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        client.unary(request, path, BytesCodec).await
    }

    /// The calls around volumes, as far as csi-sanity's Node specs make them.
    fn controller(&self, call: &str, request: &Bytes) -> Result<Bytes, Status> {
        let message = match call {
            // No capability of a controller.
            "ControllerGetCapabilities" => Vec::new(),
            "CreateVolume" => {
                let context = self.volume.context().into_iter().collect();
                let volume = CreatedVolume { volume_id: self.volume.id(), volume_context: context };
                CreateVolumeResponse { volume: Some(volume) }.encode_to_vec()
            }
            "DeleteVolume" if decode::<DeleteVolumeRequest>(request)?.volume_id == self.volume.id() => Vec::new(),
            _ => return Err(Status::unimplemented(format!("the relay does not answer {call}"))),
        };
        Ok(message.into())
    }
}

/// The contents of a volume's files by path; `None` if there is no volume.
fn contents(target: &Path) -> Option<Contents> {
    let files = tree(target).ok()?;
    Some(files.into_iter().map(|(path, (_, content))| (path, content)).collect())
}

fn decode<M: Message + Default>(bytes: &Bytes) -> Result<M, Status> {
    M::decode(bytes.clone()).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Sets fields of a message, and adds elements to its lists: of two encodings in a row, a decoder
/// merges the second into the first. Unknown fields stay.
fn merge<M: Message>(message: &Bytes, addition: &M) -> Bytes {
    [message.as_ref(), &addition.encode_to_vec()].concat().into()
}

/// Fields of `CreateVolumeResponse` in the CSI specification; `proto/csi.proto` has no controller.
#[derive(Clone, PartialEq, Message)]
struct CreateVolumeResponse {
    #[prost(message, optional, tag = "1")]
    volume: Option<CreatedVolume>,
}

/// Fields of `Volume` in the CSI specification.
#[derive(Clone, PartialEq, Message)]
struct CreatedVolume {
    #[prost(string, tag = "2")]
    volume_id: String,
    #[prost(map = "string, string", tag = "3")]
    volume_context: HashMap<String, String>,
}

/// Fields of `DeleteVolumeRequest` in the CSI specification.
#[derive(Clone, PartialEq, Message)]
struct DeleteVolumeRequest {
    #[prost(string, tag = "1")]
    volume_id: String,
}

/// Messages as the bytes that they are.
#[derive(Debug, Clone, Copy)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> BytesCodec {
        BytesCodec
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
