//! What a Mount is answered: the contract of upstream's mock provider, and faults that a class asks for.
//!
//! A class has `objects`: YAML with an `array` of YAML texts, each with objectName and objectVersion; beyond the contract each may
//! have `path`, `mode` and `size`. Its parameter `answer`, or the one that `control` has set for all, makes it fail: see [`Answer`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyvault_csi_proto::provider::{Error, File, MountRequest, MountResponse, ObjectVersion};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";

/// What upstream's mock has under these names.
const VALUES: [(&str, &str); 2] = [
    ("foo", "secret"),
    (
        "fookey",
        "-----BEGIN PUBLIC KEY-----\nVGhpcyBpcyBub3QgYSBrZXksIGJ1dCBhIHRlc3QgdmFsdWU=\n-----END PUBLIC KEY-----\n",
    ),
];

/// How many requests are remembered.
const REMEMBERED: usize = 10_000;

/// What the provider knows, across calls.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether pods that were seen before get the rotated value.
    pub(super) rotated: bool,
    /// The audiences for which tokens must come.
    pub(super) audiences: Vec<String>,
    /// Values and versions that were set by hand.
    pub(super) values: BTreeMap<String, (String, String)>,
    /// The answer for all, in place of what classes ask for.
    pub(super) answer: Option<String>,
    /// What was asked, without tokens and values.
    pub(super) requests: Vec<Value>,
    /// How often the version was asked for.
    pub(super) versions: usize,
    pods: BTreeSet<String>,
    calls: BTreeMap<String, usize>,
}

/// Something other than a good reply.
enum Answer {
    /// `code=NAME`: a reply with that error code.
    Code(String),
    /// `status=NUMBER:TEXT`: a gRPC status.
    Status(Code, String),
    /// `quote`: a status that quotes the whole request.
    Quote,
    /// `versionless`: files without object versions.
    Versionless,
    /// `fileless`: object versions without files, as providers answer that write into the target themselves.
    Fileless,
    /// `hang`: nothing, ever.
    Hang,
    /// `delay=MILLISECONDS`: a good reply after that time.
    Delay(Duration),
    /// `unavailable=COUNT`: so many times UNAVAILABLE for each pod, then a good reply.
    Unavailable(usize),
}

/// What the service does with a call.
pub(super) enum Outcome {
    Reply(Box<Result<MountResponse, Status>>),
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

/// Answers one Mount.
pub(super) fn mount(state: &mut State, authority: &str, request: &MountRequest) -> Outcome {
    match checked(state, authority, request) {
        Err(status) => Outcome::Reply(Box::new(Err(status))),
        Ok(attributes) => answer(state, request, &attributes),
    }
}

/// What upstream's mock insists on.
fn checked(state: &mut State, authority: &str, request: &MountRequest) -> Result<Strings, Status> {
    let faulty = |what: &str| Status::invalid_argument(what.to_owned());
    if authority != "localhost" {
        return Err(faulty("the :authority is not localhost"));
    }
    let attributes: Strings = serde_json::from_str(&request.attributes).map_err(|_| faulty("attributes"))?;
    let secrets: Option<Strings> = serde_json::from_str(&request.secrets).map_err(|_| faulty("secrets"))?;
    let permission: u32 = serde_json::from_str(&request.permission).map_err(|_| faulty("permission"))?;
    if request.target_path.is_empty() {
        return Err(faulty("target_path"));
    }
    let tokens: BTreeMap<String, Value> = match attributes.get(TOKENS) {
        Some(tokens) => serde_json::from_str(tokens).map_err(|_| faulty("tokens"))?,
        None => BTreeMap::new(),
    };
    if state.requests.len() < REMEMBERED {
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
    let comes = |audience: &String| tokens.get(audience).is_some_and(|token| token["token"].is_string());
    if let Some(missing) = state.audiences.iter().find(|audience| !comes(audience)) {
        return Err(Status::unauthenticated(format!("no token for audience {missing}")));
    }
    Ok(attributes)
}

fn answer(state: &mut State, request: &MountRequest, attributes: &Strings) -> Outcome {
    let wanted = state.answer.clone().or_else(|| attributes.get("answer").cloned());
    let uid = attributes.get(POD_UID).cloned().unwrap_or_default();
    let calls = state.calls.entry(uid).or_default();
    *calls += 1;
    let calls = *calls;
    let fails = |status| Outcome::Reply(Box::new(Err(status)));
    let good = |state: &mut State| Box::new(reply(state, attributes));
    let answer = match wanted.as_deref().map(parsed) {
        None => return Outcome::Reply(good(state)),
        Some(None) => return fails(Status::invalid_argument("there is no such answer")),
        Some(Some(answer)) => answer,
    };
    match answer {
        Answer::Code(code) => {
            let versions = vec![ObjectVersion { id: "secret/none".to_owned(), version: "v1".to_owned() }];
            let reply = MountResponse { object_version: versions, error: Some(Error { code }), files: Vec::new() };
            Outcome::Reply(Box::new(Ok(reply)))
        }
        Answer::Status(code, text) => fails(Status::new(code, text)),
        Answer::Quote => {
            fails(Status::unknown(format!("cannot serve {} with {}", request.attributes, request.secrets)))
        }
        Answer::Versionless => {
            Outcome::Reply(Box::new(good(state).map(|reply| MountResponse { object_version: Vec::new(), ..reply })))
        }
        Answer::Fileless => {
            Outcome::Reply(Box::new(good(state).map(|reply| MountResponse { files: Vec::new(), ..reply })))
        }
        Answer::Hang => Outcome::Never,
        Answer::Delay(time) => Outcome::After(time, good(state)),
        Answer::Unavailable(count) if calls <= count => fails(Status::unavailable("not yet")),
        Answer::Unavailable(_) => Outcome::Reply(good(state)),
    }
}

fn parsed(text: &str) -> Option<Answer> {
    let (what, value) = text.split_once('=').unwrap_or((text, ""));
    Some(match what {
        "code" => Answer::Code(value.to_owned()),
        "status" => {
            let (code, text) = value.split_once(':')?;
            Answer::Status(Code::from_i32(code.parse().ok()?), text.to_owned())
        }
        "quote" => Answer::Quote,
        "versionless" => Answer::Versionless,
        "fileless" => Answer::Fileless,
        "hang" => Answer::Hang,
        "delay" => Answer::Delay(Duration::from_millis(value.parse().ok()?)),
        "unavailable" => Answer::Unavailable(value.parse().ok()?),
        _ => return None,
    })
}

fn reply(state: &mut State, attributes: &Strings) -> Result<MountResponse, Status> {
    let uid = attributes.get(POD_UID).cloned().unwrap_or_default();
    let faulty = |_| Status::invalid_argument("objects");
    let objects = attributes.get("objects").ok_or_else(|| Status::invalid_argument("there are no objects"))?;
    let objects: Objects = serde_saphyr::from_str(objects).map_err(faulty)?;
    let rotated = state.rotated && state.pods.contains(&uid);
    let mut reply = MountResponse::default();
    for text in &objects.array {
        let object: Object = serde_saphyr::from_str(text).map_err(faulty)?;
        let (value, version) = value(state, &object, rotated)?;
        let Object { object_name: name, path, mode, size, .. } = object;
        let contents = match size {
            Some(size) => value.bytes().cycle().take(size).collect(),
            None => value.into_bytes(),
        };
        // Without a mode, as upstream's mock.
        let file = File { path: path.unwrap_or_else(|| name.clone()), mode: mode.unwrap_or_default(), contents };
        reply.files.push(file);
        reply.object_version.push(ObjectVersion { id: format!("secret/{name}"), version });
    }
    state.pods.insert(uid);
    Ok(reply)
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
