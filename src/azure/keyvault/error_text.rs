//! Pure. The texts of refusals and connection faults: the cause and the fix.
//!
//! Composed only of values that are safe to show: there is no body here. The tables follow
//! docs/reference/azure-provider.md#entra-id-errors and
//! docs/reference/azure-provider.md#permissions.

use std::time::Duration;

use super::cloud::CloudResource;
use super::connection_fault::ConnectionFault;
use super::endpoint::Service;
use super::error_codes::ErrorCodes;
use super::refusal::Refusal;

/// What Entra ID's codes mean for an application, and the fix
/// (docs/reference/azure-provider.md#entra-id-errors).
const ENTRA_ID: &[(&str, &str)] = &[
    ("AADSTS90002", "there is no such tenant in this cloud; check tenantID and cloudName"),
    ("AADSTS900023", "tenantID is neither the id nor a domain of a tenant; correct it"),
    ("AADSTS900021", "tenantID is all zeros; give the tenant's id"),
    ("AADSTS900382", "the tenant is not in this cloud; check tenantID and cloudName"),
    ("AADSTS90038", "the tenant belongs to another cloud; check cloudName"),
    ("AADSTS700016", "the tenant has no application with this client id; check clientid and tenantID"),
    ("AADSTS700038", "the client id is all zeros; give the application's id as clientid"),
    ("AADSTS7000215", "the client secret is wrong; put the secret's value, not its id, in clientsecret"),
    ("AADSTS7000222", "the client secret has expired; create a new one and put it in clientsecret"),
    ("AADSTS7000218", "the client secret is missing; put it in clientsecret"),
    ("AADSTS7000112", "the application is disabled; enable it in Entra ID"),
    ("AADSTS7000229", "the application has no service principal in this tenant; create it (az ad sp create --id)"),
    ("AADSTS50034", "the tenant does not know this identity; check clientid and tenantID"),
    ("AADSTS500011", "the tenant does not know Key Vault's resource; check cloudName and tenantID"),
    (
        "AADSTS70021",
        "no federated credential of the identity fits the pod's token; check its issuer, subject and audience",
    ),
    (
        "AADSTS70025",
        "the identity has no federated credential at all; add one for the cluster's OIDC issuer and the pod's service account",
    ),
    (
        "AADSTS700211",
        "no federated credential of the identity names the cluster's issuer; set its issuer to the cluster's OIDC issuer URL",
    ),
    (
        "AADSTS700212",
        "no federated credential of the identity names the token's audience; set it to api://AzureADTokenExchange",
    ),
    (
        "AADSTS700213",
        "no federated credential of the identity names the pod; set its subject to system:serviceaccount:<namespace>:<service account>",
    ),
    (
        "AADSTS700023",
        "the assertion is for another address than the authority's; check cloudName, and activeDirectoryEndpoint of the cloud's file",
    ),
    (
        "AADSTS700024",
        "the assertion is not valid at this time; check the node's clock, and that the kubelet renews the pod's token (requiresRepublish)",
    ),
    (
        "AADSTS700027",
        "the assertion's signature is refused; add the certificate to the application, or renew it if it has expired",
    ),
    ("AADSTS5002723", "the assertion cannot be read; check that nothing but the kubelet writes the pod's tokens"),
    (
        "AADSTS50013",
        "the assertion's signature is refused; a new federated credential or signing key of the cluster takes some minutes",
    ),
    ("AADSTS501661", "Entra ID cannot read the cluster's OIDC issuer; make its discovery document and keys public"),
    ("AADSTS50166", "Entra ID cannot read the cluster's OIDC issuer; make its discovery document and keys public"),
    ("MSIS9607", "AD FS does not let the application read this resource; grant it in the application group"),
    (
        "MSIS9622",
        "AD FS does not know the application, or refuses its secret; check clientid, clientsecret and the cloud's file",
    ),
    ("AADSTS53003", "a conditional access policy blocks the application; let it in from the node's address"),
    ("AADSTS530003", "a conditional access policy blocks the application; let it in from the node's address"),
];

/// A duration in seconds, with tenths below ten.
pub(super) fn seconds(duration: &Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()).replace(".0 s", " s"),
        whole => format!("{whole} s"),
    }
}

pub(super) fn refusal(refusal: &Refusal) -> String {
    let codes: Vec<&str> = refusal.codes.all().collect();
    let codes = match codes.is_empty() {
        true => String::new(),
        false => format!(" {}", codes.join("/")),
    };
    let id = refusal.request_id.as_ref().map(|id| format!(" (request id {id})")).unwrap_or_default();
    let what = match refusal.service {
        Service::KeyVault => key_vault(refusal),
        Service::EntraId => entra_id(refusal),
        Service::TokenProxy => token_proxy(refusal),
        Service::Imds => imds(refusal),
    };
    format!("{} answered HTTP {}{codes}{id}: {what}", refusal.host, refusal.status)
}

fn key_vault(refusal: &Refusal) -> String {
    let who = match &refusal.client_id {
        Some(id) => format!("client id {id}"),
        None => "the class's identity".to_owned(),
    };
    if let Some(claims) = &refusal.claims {
        return format!(
            "Conditional Access or continuous access evaluation of the tenant requires claims that the token lacks{}; \
             let {who} in from the node's address in the policy for workload identities, or exclude it; the service \
             principal's sign-in logs in Entra ID name the policy",
            claims.shown()
        );
    }
    match refusal.status {
        300..400 => unexpected("a redirect, which is not followed"),
        401 => "the vault does not accept the token; check that tenantID is the tenant of the vault".to_owned(),
        403 => forbidden(&refusal.codes, &who, refusal.operation),
        404 if refusal.codes.is_not_found() => {
            "check the object's type, name and version; it may be deleted and wait for its recovery or purge".to_owned()
        }
        429 => throttled(refusal),
        400 => "the vault does not understand the request; check the object's name and version".to_owned(),
        500.. => "the vault has a fault of its own; if it lasts, see the Azure status page".to_owned(),
        _ => unexpected("an answer that a vault does not give"),
    }
}

fn forbidden(codes: &ErrorCodes, who: &str, collection: &str) -> String {
    let (what, role) = match collection {
        "keys" => ("keys", "the role \"Key Vault Crypto User\""),
        "certificates" => ("certificates", "the role \"Key Vault Certificate User\""),
        _ => ("secrets", "the role \"Key Vault Secrets User\""),
    };
    if codes.is_disabled() {
        format!("the {} or this version is disabled; enable it in the vault", what.trim_end_matches('s'))
    } else if codes.has("ForbiddenByConnection") || codes.has("ForbiddenByFirewall") {
        "the vault's network rules refuse the node's address; allow it, or use a private endpoint".to_owned()
    } else if codes.has("ForbiddenByRbac") {
        format!("grant {who} {role} on the vault; a new grant takes some minutes")
    } else if codes.has("ForbiddenByPolicy") || codes.has("AccessDenied") {
        format!(
            "add an access policy to the vault that allows {who} to get {what} (and to list them for objectVersionHistory)"
        )
    } else if codes.all().next().is_none() {
        format!(
            "grant {who} {role} on the vault; since no code came with the answer, a firewall or proxy may have given it"
        )
    } else {
        format!("grant {who} {role} on the vault, or an access policy with get on {what}; check its network rules too")
    }
}

/// `asked` is the vault's word: a DNS name, and at most as long as one may be.
pub(super) fn foreign_challenge(host: &str, asked: Option<&str>, resource: &CloudResource) -> String {
    let CloudResource { host: allowed, of_file } = resource;
    match (asked, of_file) {
        (None, _) => format!(
            "{host} asks for a token of a resource that is not a plain https address, and got none; check \
             keyvaultName, the cloud, the node's DNS, and any proxy in between"
        ),
        (Some(asked), false) => format!(
            "{host} asks for a token of {asked}, and got none: vaults of this cloud ask for one of {allowed}; check \
             keyvaultName, cloudName, the node's DNS, and any proxy in between"
        ),
        (Some(asked), true) => format!(
            "{host} asks for a token of {asked}, and got none: the cloud's file allows {allowed} and parent domains \
             of the vault; if {asked} is the Key Vault resource of this cloud, as its operator can confirm, set \
             keyVaultEndpoint of the cloud's file to https://{asked}/"
        ),
    }
}

fn entra_id(refusal: &Refusal) -> String {
    if let Some((_, meaning)) = ENTRA_ID.iter().find(|(code, _)| refusal.codes.has(code)) {
        return (*meaning).to_owned();
    }
    match refusal.status {
        429 => throttled(refusal),
        400 | 401 | 403 => {
            "the credentials were refused; check the client id, what it logs in with, and tenantID (codes: https://login.microsoftonline.com/error)"
                .to_owned()
        }
        500.. => "Entra ID has a fault of its own; if it lasts, see the Azure status page".to_owned(),
        _ => unexpected("an answer that Entra ID does not give"),
    }
}

/// The proxy forwards Entra ID's responses; its own have no code.
fn token_proxy(refusal: &Refusal) -> String {
    match refusal.status {
        400 | 401 | 403 if !ENTRA_ID.iter().any(|(code, _)| refusal.codes.has(code)) => {
            "the token proxy refuses the pod; check the AKS identity binding of clientID, and that a ClusterRole lets the pod's service account use it (verb use-managed-identity)".to_owned()
        }
        404 => "the token proxy is not there; check that identity bindings are enabled in this AKS cluster, and --token-proxy-url".to_owned(),
        _ => entra_id(refusal),
    }
}

fn imds(refusal: &Refusal) -> String {
    match refusal.status {
        400 => "the node has no such identity, or has several and the class names none; assign it to the node's VM scale set, and check userAssignedIdentityID".to_owned(),
        404 | 410 => "the metadata service is starting or being updated; if it lasts, check that the node is an Azure VM".to_owned(),
        429 => throttled(refusal),
        401 | 403 => "the metadata service refuses the node; check that the node is an Azure VM, network policies and metadata restrictions".to_owned(),
        500.. => "the metadata service has a fault of its own; if it lasts, restart the node".to_owned(),
        _ => "an answer that the metadata service does not give; check that the node is an Azure VM".to_owned(),
    }
}

fn throttled(refusal: &Refusal) -> String {
    match &refusal.retry_after {
        Some(wait) => format!("too many requests; it asks to wait {}", seconds(wait)),
        None => "too many requests; lengthen rotationPollInterval or spread the load over more vaults".to_owned(),
    }
}

fn unexpected(what: &str) -> String {
    format!("{what}; check the vault's name, the cloud, and any proxy in between")
}

pub(super) fn unreachable(service: Service, host: &str, fault: &ConnectionFault, proxied: bool) -> String {
    let fix = match proxied {
        _ if service == Service::Imds => {
            "check that the node is an Azure VM, and that no network policy or firewall rule closes this address"
        }
        _ if service == Service::TokenProxy => "check network policies, --token-proxy-url and --sni-name",
        true => "check the proxy that HTTPS_PROXY names, and NO_PROXY",
        false => "check the node's outbound network (firewall, network policy, private endpoint, HTTPS_PROXY)",
    };
    let bundle = match service {
        Service::TokenProxy => "check --token-proxy-ca-file",
        Service::KeyVault | Service::EntraId | Service::Imds => {
            "add the CA to the system's certificates, or set SSL_CERT_FILE to its bundle"
        }
    };
    match fault {
        ConnectionFault::NameUnknown => format!("{host} is not known to DNS; {}", names(service)),
        ConnectionFault::NameLookup => format!("{host} could not be looked up in DNS; {}", names(service)),
        ConnectionFault::UnknownIssuer => {
            format!("the certificate of {host} is signed by an unknown authority; {bundle}")
        }
        ConnectionFault::Certificate => format!(
            "the certificate of {host} is not acceptable (wrong name, expired or revoked); check DNS, the node's clock, and any proxy in between"
        ),
        ConnectionFault::Handshake => format!("the TLS handshake with {host} failed; {fix}"),
        ConnectionFault::ConnectTimeout => format!("no connection to {host} in time; {fix}"),
        ConnectionFault::Io(kind) => format!("the connection to {host} failed: {kind}; {fix}"),
        ConnectionFault::NoConnection => format!("no connection to {host}; {fix}"),
        ConnectionFault::CutOff => format!("the connection to {host} broke before the answer was complete; {fix}"),
    }
}

fn names(service: Service) -> &'static str {
    match service {
        Service::KeyVault => "check keyvaultName and cloudName, and the private DNS zone if the vault has one",
        Service::EntraId => "check cloudName and the node's DNS",
        Service::TokenProxy => {
            "set dnsPolicy: ClusterFirstWithHostNet for the driver's pods, or give --token-proxy-url and --sni-name"
        }
        Service::Imds => "check that the node is an Azure VM",
    }
}
