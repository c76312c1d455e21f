//! The recorded side of Azure: raw answers over HTTPS, and over HTTP at the metadata service's
//! address, by a server that knows nothing of Key Vault, Entra ID and the emulator.
//!
//! It owns port 443 of its private network, so that the driver reaches it under Azure's real host
//! names. A test's script answers each request; the answers are in `fixtures/azure`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Map, Value};

/// The name of the vault in the documents. Its other names have a number.
pub(crate) const VAULT: &str = "contoso-recorded";
pub(crate) const LOGIN: &str = "login.microsoftonline.com";
/// The login host, the domain of the vaults, and a vault of an Azure Stack Hub.
pub(crate) const STACK: (&str, &str, &str) =
    ("adfs.rack.contoso.example", "vault.rack.contoso.example", "contoso-recorded.vault.rack.contoso.example");
/// How many vaults have names.
const VAULTS: usize = 60;

const HTTPS: ([u8; 4], u16) = ([127, 0, 0, 1], 443);
const IMDS: ([u8; 4], u16) = ([169, 254, 169, 254], 80);

/// A vault for each number: the driver learns a vault's challenge once.
pub(crate) fn vault(number: usize) -> String {
    assert!(number < VAULTS, "raise VAULTS");
    format!("{VAULT}{number}")
}

/// The names that resolve to the server.
pub(crate) fn names() -> Vec<String> {
    let vaults = (0..VAULTS).map(|number| format!("{}.vault.azure.net", vault(number)));
    let others = [LOGIN, STACK.0, STACK.2].map(str::to_owned);
    vaults.chain(others).chain([format!("{VAULT}.vault.azure.net")]).collect()
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: String,
}

impl Request {
    /// Method, host and path, and whether it has a token.
    pub(crate) fn line(&self) -> String {
        let token = if self.authorization.is_some() { " with token" } else { "" };
        format!("{} {}{}{token}", self.method, self.host, self.path)
    }
}

/// A raw answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The recorded answer of this name. `service` names another one, whose headers come first.
    pub(crate) fn of_service(service: &str, name: &str) -> Answer {
        let all: Value = serde_json::from_str(include_str!("fixtures/azure/answers.json")).unwrap();
        let answer = &all[name];
        let headers = [service, name].into_iter().filter_map(|name| all[name]["headers"].as_object()).flatten();
        let body = answer["text"].as_str().map_or_else(|| answer["body"].to_string(), str::to_owned);
        let status = answer["status"].as_u64().unwrap_or_else(|| panic!("no answer {name}"));
        Answer {
            status: u16::try_from(status).unwrap(),
            headers: headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
            body: body.into_bytes(),
        }
    }

    /// An answer of Entra ID, AD FS or a metadata service.
    pub(crate) fn recorded(name: &str) -> Answer {
        Answer::of_service("", name)
    }

    /// An answer of a vault, with the headers of every one.
    pub(crate) fn vault(name: &str) -> Answer {
        Answer::of_service("vault", name)
    }

    /// A document of the recorded vault by its path.
    pub(crate) fn document(path: &str) -> Option<Answer> {
        let body = documents().get(path)?.to_string().into_bytes();
        Some(Answer { body, ..Answer::vault("vault") })
    }

    /// The same with the first header of this name replaced, or with one more.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Answer {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with fields of its JSON replaced; `null` removes one.
    pub(crate) fn with_fields(mut self, fields: Value) -> Answer {
        let mut body: Map<String, Value> = serde_json::from_slice(&self.body).unwrap();
        body.extend(fields.as_object().unwrap().clone());
        body.retain(|_, value| !value.is_null());
        self.body = Value::from(body).to_string().into_bytes();
        self
    }
}

/// The recorded vault's documents by path.
pub(crate) fn documents() -> BTreeMap<String, Value> {
    serde_json::from_str(include_str!("fixtures/azure/keyvault.json")).unwrap()
}

type Script = dyn Fn(&Request) -> Option<Answer> + Send + Sync;

/// The running server; its threads end with the process.
pub(crate) struct RecordedAzure {
    pub(crate) ca: String,
    script: Arc<Mutex<Arc<Script>>>,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl RecordedAzure {
    /// Starts it in the process's private network, without answers.
    pub(crate) fn start() -> Result<RecordedAzure> {
        // An error means that the process has a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (ca, config) = certificates()?;
        let nothing: Arc<Script> = Arc::new(|_| None);
        let azure = RecordedAzure { ca, script: Arc::new(Mutex::new(nothing)), seen: Arc::default() };
        azure.listen(HTTPS.into(), Some(config))?;
        azure.listen(IMDS.into(), None)?;
        Ok(azure)
    }

    /// Answers by this script from now on, and forgets the requests so far.
    pub(crate) fn answer(&self, script: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
        self.seen.lock().unwrap().clear();
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests in order, see [`Request::line`].
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }

    fn listen(&self, address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Result<()> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let (script, seen) = (self.script.clone(), self.seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, seen, tls) = (script.clone(), seen.clone(), tls.clone());
                // A client that breaks off the connection ends its thread.
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        let stream = StreamOwned::new(ServerConnection::new(config)?, stream);
                        converse(stream, &script, &seen)
                    }
                    None => converse::<TcpStream>(stream, &script, &seen),
                });
            }
        });
        Ok(())
    }
}

/// A certificate authority as PEM, and a server with a certificate for all names.
fn certificates() -> Result<(String, Arc<ServerConfig>)> {
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.pem();
    let key = rcgen::KeyPair::generate()?;
    let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
    let certificate = rcgen::CertificateParams::new(names())?.signed_by(&key, &issuer)?;
    let key = key.serialize_der().try_into().map_err(anyhow::Error::msg)?;
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((ca, Arc::new(config)))
}

/// Serves one connection until the client closes it.
fn converse<S: Read + Write>(stream: S, script: &Mutex<Arc<Script>>, seen: &Mutex<Vec<Request>>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream)? {
        seen.lock().unwrap().push(request.clone());
        let script = script.lock().unwrap().clone();
        let text = "the script has no answer".to_owned().into_bytes();
        let answer = script(&request).unwrap_or(Answer { status: 599, headers: Vec::new(), body: text });
        let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let out = stream.get_mut();
        out.write_all(&[head.as_bytes(), b"\r\n", &answer.body].concat())?;
        out.flush()?;
    }
    Ok(())
}

fn read<S: Read>(stream: &mut BufReader<S>) -> Result<Option<Request>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    let header = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    let mut body = vec![0; header("content-length").map_or(Ok(0), |length| length.parse())?];
    stream.read_exact(&mut body)?;
    let mut words = head.split(' ');
    let method = words.next().context("a method")?.to_owned();
    let target = words.next().context("a target")?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request {
        method,
        host: header("host").context("a host")?,
        path: path.to_owned(),
        query: query.to_owned(),
        authorization: header("authorization"),
        body: String::from_utf8(body)?,
    }))
}
