//! The token proxy's name and options (docs/reference/azure-provider.md#identity-binding).

use super::super::endpoint::Endpoint;
use super::super::endpoint::Service;
use super::super::token_proxy::name_of;
use super::super::{TokenProxyError, TokenProxyOptions};
use super::server::{Azure, LOGIN, token_proxy};
use super::{Error, Reason};

fn names(names: &[&str]) -> Option<String> {
    name_of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
}

#[test]
fn the_proxys_name_is_computed_as_aks_does() {
    for (id, name) in [
        ("696995ccb303450001b31a18", "aeaf29ip1hi5q38ebc3u4daum81u0unk52t5bg50j25234fmuj78g.ests.aks"),
        ("abc123def456", "avimke6u6l2eeq8qc1cneuaq4sl2e1av9t4clqgun97le32hub670.ests.aks"),
    ] {
        let own = format!("hcp-kubernetes.{id}.svc.cluster.local");
        assert_eq!(names(&["kubernetes", "kubernetes.default.svc.cluster.local", &own]).as_deref(), Some(name));
        assert_eq!(
            names(&[&own, "hcp-kubernetes.another.svc.cluster.local"]).as_deref(),
            Some(name),
            "the first is used"
        );
        assert_eq!(name.find('.'), Some(53));
    }
    for none in
        [&[][..], &["kubernetes.default.svc"], &["hcp-kubernetes..svc.cluster.local"], &["hcp-kubernetes.a.svc"]]
    {
        assert_eq!(names(none), None, "{none:?}");
    }
}

#[test]
fn the_proxys_options_are_checked_at_the_start() {
    let new = |url: &str, name: &str| TokenProxyOptions::new(url, name, "/ca.crt".into()).map(|_| ());
    for (url, name) in
        [("", ""), ("https://10.0.0.1:6443/base", ""), ("https://[::1]/", "a.ests.aks"), ("https://x.y", "A-1.b")]
    {
        assert_eq!(new(url, name), Ok(()), "{url} {name}");
    }
    for (url, words) in [
        ("proxy", "is not a URL"),
        ("http://proxy", "does not start with https://"),
        ("https://u@proxy", "a user"),
        ("https://u:p@proxy", "a user"),
        ("https://proxy?a", "a query"),
        ("https://proxy#a", "a fragment"),
    ] {
        let text = new(url, "").unwrap_err().to_string();
        assert!(text.starts_with("--token-proxy-url ") && text.contains(words), "{text}");
    }
    for name in ["a/b", "10.0.0.1", "a b", "a:443", "..", "ä"] {
        assert_eq!(new("", name), Err(TokenProxyError::Name), "{name}");
    }
}

#[tokio::test]
async fn a_cluster_without_bindings_fails_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let proxy = token_proxy("", "", file.to_str().unwrap());
    for (content, words) in
        [(None, "give --sni-name"), (Some(""), "holds no CA certificate"), (Some("x"), "holds no CA certificate")]
    {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let error = proxy.route().await.err().unwrap();
        assert!(
            matches!(&error, Error::TokenProxy(text) if text.contains(words) && text.contains("ca.crt")),
            "{error}"
        );
        assert_eq!(error.reason(), Reason::IdentityUnavailable);
    }
}

/// A new CA file is used for the next token, unless it is damaged or missing.
#[tokio::test]
async fn the_clusters_ca_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let (azure, another) = (Azure::well().await, Azure::well().await);
    // The URL has an address, the certificate the name of the flag.
    let proxy = token_proxy(&format!("https://{}", azure.address()), LOGIN, file.to_str().unwrap());
    let send = async || {
        let route = proxy.route().await.unwrap();
        let endpoint = Endpoint { service: Service::TokenProxy, host: "proxy", operation: "token" };
        route
            .http
            .exchange(endpoint, reqwest::Request::new(reqwest::Method::POST, route.url), 1 << 10)
            .await
            .map(|_| ())
    };
    for content in [Some(azure.bundle()), Some(""), Some("-----BEGIN CERTIFICATE-----\n"), None] {
        match content {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        assert_eq!(send().await, Ok(()), "{content:?}");
    }
    std::fs::write(&file, another.bundle()).unwrap();
    assert_eq!(send().await.unwrap_err().reason(), Reason::TlsUntrusted);
    std::fs::write(&file, azure.bundle()).unwrap();
    assert_eq!(send().await, Ok(()));
    assert!(azure.seen().iter().all(|request| request.host.starts_with(LOGIN)), "{:?}", azure.seen());
}
