//! The response to a Mount: the contract of upstream's mock provider, and injected faults.
//!
//! A class has `objects`: YAML with an `array` of YAML texts, each with objectName and
//! objectVersion; beyond the contract, each can have `path`, `mode` and `size`. Its parameter
//! `answer`, or the one that `control` sets for all classes, injects a fault: see [`Fault`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyvault_csi_proto::provider::{Error, File, MountRequest, MountResponse, ObjectVersion};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";

/// The values of upstream's mock provider, by name.
const VALUES: [(&str, &str); 2] = [
    ("foo", "secret"),
    (
        "fookey",
        "-----BEGIN PUBLIC KEY-----\nVGhpcyBpcyBub3QgYSBrZXksIGJ1dCBhIHRlc3QgdmFsdWU=\n-----END PUBLIC KEY-----\n",
    ),
];

/// Further requests are not recorded.
const REQUEST_LIMIT: usize = 10_000;

/// The provider's state across calls.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether later mounts of a pod get the rotated value.
    pub(super) rotated: bool,
    /// The audiences for which requests must have a token.
    pub(super) audiences: Vec<String>,
    /// Values and versions that `control` set.
    pub(super) values: BTreeMap<String, (String, String)>,
    /// The fault for all classes; overrides their own.
    pub(super) fault: Option<String>,
    /// The requests, without tokens and values.
    pub(super) requests: Vec<Value>,
    /// The number of Version calls.
    pub(super) versions: usize,
    pods: BTreeSet<String>,
    calls: BTreeMap<String, usize>,
}

/// A response other than the successful one.
enum Fault {
    /// `code=NAME`: a response with that error code.
    Code(String),
    /// `status=NUMBER:TEXT`: a gRPC status.
    Status(Code, String),
    /// `quote`: a status that quotes the whole request.
    Quote,
    /// `versionless`: files without object versions.
    Versionless,
    /// `fileless`: object versions without files, as of providers that write into the target.
    Fileless,
    /// `hang`: no response.
    Hang,
    /// `delay=MILLISECONDS`: the successful response after that time.
    Delay(Duration),
    /// `unavailable=COUNT`: UNAVAILABLE for the first calls of each pod, then the successful
    /// response.
    Unavailable(usize),
}

/// When and how the service responds to a call.
pub(super) enum Outcome {
    Now(Box<Result<MountResponse, Status>>),
    After(Duration, Box<Result<MountResponse, Status>>),
    Never,
}

#[derive(Deserialize)]
struct Objects {
    array: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    object_name: String,
    #[serde(default)]
    object_version: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    mode: Option<i32>,
    #[serde(default)]
    size: Option<usize>,
}

type Strings = BTreeMap<String, String>;

pub(super) fn mount(state: &mut State, authority: &str, request: &MountRequest) -> Outcome {
    match check(state, authority, request) {
        Err(status) => Outcome::Now(Box::new(Err(status))),
        Ok(attributes) => respond(state, request, &attributes),
    }
}

/// The checks of upstream's mock provider; returns the attributes.
fn check(state: &mut State, authority: &str, request: &MountRequest) -> Result<Strings, Status> {
    let invalid = |what: &str| Status::invalid_argument(what.to_owned());
    if authority != "localhost" {
        return Err(invalid("the :authority is not localhost"));
    }
    let attributes: Strings = serde_json::from_str(&request.attributes).map_err(|_| invalid("attributes"))?;
    let secrets: Option<Strings> = serde_json::from_str(&request.secrets).map_err(|_| invalid("secrets"))?;
    let permission: u32 = serde_json::from_str(&request.permission).map_err(|_| invalid("permission"))?;
    if request.target_path.is_empty() {
        return Err(invalid("target_path"));
    }
    let tokens: BTreeMap<String, Value> = match attributes.get(TOKENS) {
        Some(tokens) => serde_json::from_str(tokens).map_err(|_| invalid("tokens"))?,
        None => BTreeMap::new(),
    };
    if state.requests.len() < REQUEST_LIMIT {
        let held = request.current_object_version.iter().map(|held| (held.id.clone(), held.version.clone()));
        let plain: Strings = attributes.clone().into_iter().filter(|(key, _)| key != TOKENS).collect();
        state.requests.push(json!({
            "attributes": plain,
            "secrets": secrets.map(|secrets| secrets.into_keys().collect::<Vec<_>>()),
            "permission": permission,
            "target": request.target_path,
            "held": held.collect::<Strings>(),
            "audiences": tokens.keys().collect::<Vec<_>>(),
        }));
    }
    let has_token = |audience: &String| tokens.get(audience).is_some_and(|token| token["token"].is_string());
    if let Some(missing) = state.audiences.iter().find(|audience| !has_token(audience)) {
        return Err(Status::unauthenticated(format!("no token for audience {missing}")));
    }
    Ok(attributes)
}

fn respond(state: &mut State, request: &MountRequest, attributes: &Strings) -> Outcome {
    let fault = state.fault.clone().or_else(|| attributes.get("answer").cloned());
    let uid = attributes.get(POD_UID).cloned().unwrap_or_default();
    let calls = state.calls.entry(uid).or_default();
    *calls += 1;
    let calls = *calls;
    let fail = |status| Outcome::Now(Box::new(Err(status)));
    let success = |state: &mut State| Box::new(response(state, attributes));
    let fault = match fault.as_deref().map(parse_fault) {
        None => return Outcome::Now(success(state)),
        Some(None) => return fail(Status::invalid_argument("unknown answer")),
        Some(Some(fault)) => fault,
    };
    match fault {
        Fault::Code(code) => {
            let versions = vec![ObjectVersion { id: "secret/none".to_owned(), version: "v1".to_owned() }];
            let response = MountResponse { object_version: versions, error: Some(Error { code }), files: Vec::new() };
            Outcome::Now(Box::new(Ok(response)))
        }
        Fault::Status(code, text) => fail(Status::new(code, text)),
        Fault::Quote => fail(Status::unknown(format!("cannot serve {} with {}", request.attributes, request.secrets))),
        Fault::Versionless => Outcome::Now(Box::new(
            success(state).map(|response| MountResponse { object_version: Vec::new(), ..response }),
        )),
        Fault::Fileless => {
            Outcome::Now(Box::new(success(state).map(|response| MountResponse { files: Vec::new(), ..response })))
        }
        Fault::Hang => Outcome::Never,
        Fault::Delay(time) => Outcome::After(time, success(state)),
        Fault::Unavailable(count) if calls <= count => fail(Status::unavailable("not yet")),
        Fault::Unavailable(_) => Outcome::Now(success(state)),
    }
}

fn parse_fault(text: &str) -> Option<Fault> {
    let (what, value) = text.split_once('=').unwrap_or((text, ""));
    Some(match what {
        "code" => Fault::Code(value.to_owned()),
        "status" => {
            let (code, text) = value.split_once(':')?;
            Fault::Status(Code::from_i32(code.parse().ok()?), text.to_owned())
        }
        "quote" => Fault::Quote,
        "versionless" => Fault::Versionless,
        "fileless" => Fault::Fileless,
        "hang" => Fault::Hang,
        "delay" => Fault::Delay(Duration::from_millis(value.parse().ok()?)),
        "unavailable" => Fault::Unavailable(value.parse().ok()?),
        _ => return None,
    })
}

fn response(state: &mut State, attributes: &Strings) -> Result<MountResponse, Status> {
    let uid = attributes.get(POD_UID).cloned().unwrap_or_default();
    let invalid = |_| Status::invalid_argument("objects");
    let objects = attributes.get("objects").ok_or_else(|| Status::invalid_argument("there are no objects"))?;
    let objects: Objects = serde_saphyr::from_str(objects).map_err(invalid)?;
    let rotated = state.rotated && state.pods.contains(&uid);
    let mut response = MountResponse::default();
    for text in &objects.array {
        let object: Object = serde_saphyr::from_str(text).map_err(invalid)?;
        let (value, version) = value(state, &object, rotated)?;
        let Object { object_name: name, path, mode, size, .. } = object;
        let contents = match size {
            Some(size) => value.bytes().cycle().take(size).collect(),
            None => value.into_bytes(),
        };
        // Without a mode by default, like upstream's mock provider.
        let file = File { path: path.unwrap_or_else(|| name.clone()), mode: mode.unwrap_or_default(), contents };
        response.files.push(file);
        response.object_version.push(ObjectVersion { id: format!("secret/{name}"), version });
    }
    state.pods.insert(uid);
    Ok(response)
}

fn value(state: &State, object: &Object, rotated: bool) -> Result<(String, String), Status> {
    let name = &object.object_name;
    if let Some(set) = state.values.get(name) {
        return Ok(set.clone());
    }
    let known = VALUES.iter().find(|(known, _)| known == name);
    let (_, value) = known.ok_or_else(|| Status::not_found(format!("secret {name} not found")))?;
    if rotated {
        return Ok(("rotated".to_owned(), "v2".to_owned()));
    }
    let version = object.object_version.clone().filter(|version| !version.is_empty());
    Ok(((*value).to_owned(), version.unwrap_or_else(|| "v1".to_owned())))
}
