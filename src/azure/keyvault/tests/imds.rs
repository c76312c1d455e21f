//! The node's metadata service: its requests, its retries, and a node without it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::super::http::Http;
use super::super::{Credential, Error, VaultSecret};
use super::server::{Azure, CLIENT_ID, QUICK, open_as, options, with_imds};
use super::{Reason, get};

const TOKEN: &str = r#"{"access_token":"t","expires_in":"3600","expires_on":"9","token_type":"Bearer"}"#;

/// A metadata service that gives these answers in order, and records the heads of the requests.
struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn start(answers: &[(&'static str, &'static str)]) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Service { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, answers) = (Arc::clone(&service.seen), answers.to_vec());
        std::thread::spawn(move || {
            for (head, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                seen.lock().unwrap().push(request.join("\n"));
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {head}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        service
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn fetch(address: SocketAddr, client_id: Option<&str>) -> Result<Arc<VaultSecret>, Error> {
    let azure = Azure::well().await;
    let vaults = with_imds(Http::new(azure.client(), QUICK.request_timeout).unwrap(), address, QUICK, options());
    let credential = Credential::ManagedIdentity { client_id: client_id.map(str::to_owned) };
    get(&open_as(&vaults, "myvault", credential, Duration::from_secs(60)), "db").await
}

#[tokio::test]
async fn the_metadata_service_is_asked_for_the_vaults_resource() {
    for (client_id, more) in [(None, String::new()), (Some(CLIENT_ID), format!("&client_id={CLIENT_ID}"))] {
        let service = Service::start(&[("200 OK", TOKEN)]);
        fetch(service.address, client_id).await.unwrap();
        let head = service.seen().remove(0);
        let path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
        assert!(head.starts_with(&format!("GET {path}{more} HTTP/1.1\n")), "{head}");
        assert!(head.contains("\nmetadata: true"), "{head}");
    }
}

#[tokio::test]
async fn the_expiration_of_a_token_may_be_a_number_or_a_string() {
    for body in [
        r#"{"access_token":"t","expires_in":3600}"#,
        r#"{"access_token":"t","expires_on":"4102444800"}"#,
        r#"{"access_token":"t"}"#,
    ] {
        fetch(Service::start(&[("200 OK", body)]).address, None).await.unwrap();
    }
    for (body, words) in [("{}", "holds no token"), (r#"{"access_token":[]}"#, "another format")] {
        let error = fetch(Service::start(&[("200 OK", body)]).address, None).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// The service is unavailable while it is updated, and throttles with Retry-After
/// (docs/reference/azure-provider.md#metadata-service).
#[tokio::test]
async fn an_unavailable_metadata_service_is_retried() {
    let away = [
        ("404 X", "{}"),
        ("410 X", "{}"),
        ("500 X", "{}"),
        ("410 X", "{}"),
        ("503 X", "{}"),
        ("410 X", "{}"),
        ("410 X", "{}"),
    ];
    let service = Service::start(&[&away[..], &[("200 OK", TOKEN)]].concat());
    fetch(service.address, None).await.unwrap();
    assert_eq!(service.seen().len(), 8, "more tries than for other services");
    let service = Service::start(&[("429 X\r\nretry-after: 1", "{}"), ("200 OK", TOKEN)]);
    let started = Instant::now();
    fetch(service.address, None).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After was not kept");
    let service = Service::start(&[("400 X", r#"{"error":"invalid_request"}"#)]);
    let error = fetch(service.address, None).await.unwrap_err();
    assert_eq!((error.reason(), service.seen().len()), (Reason::CredentialsRejected, 1));
    assert!(error.to_string().contains("userAssignedIdentityID"), "{error}");
}

#[tokio::test]
async fn without_a_metadata_service_three_tries_are_made() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = fetch(closed, None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("gave up after 3 tries") && text.contains("check that the node is an Azure VM"), "{text}");
    assert_eq!(error.reason(), Reason::NetworkUnreachable);
}
