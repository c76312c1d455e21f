//! The reason and the fix for each of Entra ID's codes
//! (docs/reference/azure-provider.md#entra-id-errors).

use super::Reason;
use super::get;
use super::server::{Azure, Kind, status};

#[tokio::test]
async fn each_code_of_entra_id_has_a_reason_and_a_fix() {
    let (rejected, tenant) = (Reason::CredentialsRejected, Reason::TenantNotFound);
    for (code, reason, words) in [
        (90002, tenant, "check tenantID and cloudName"),
        (900023, tenant, "tenantID is neither the id nor a domain"),
        (900021, tenant, "give the tenant's id"),
        (90038, tenant, "check cloudName"),
        (900382, tenant, "check tenantID and cloudName"),
        (700016, rejected, "check clientid and tenantID"),
        (700038, rejected, "give the application's id as clientid"),
        (7000215, rejected, "put the secret's value, not its id, in clientsecret"),
        (7000222, rejected, "create a new one and put it in clientsecret"),
        (7000218, rejected, "put it in clientsecret"),
        (7000112, rejected, "enable it in Entra ID"),
        (7000229, rejected, "az ad sp create"),
        (50034, rejected, "check clientid and tenantID"),
        (500011, rejected, "check cloudName and tenantID"),
        (70021, rejected, "check its issuer, subject and audience"),
        (70025, rejected, "add one for the cluster's OIDC issuer"),
        (700211, rejected, "set its issuer to the cluster's OIDC issuer URL"),
        (700212, rejected, "set it to api://AzureADTokenExchange"),
        (700213, rejected, "set its subject to system:serviceaccount:<namespace>:<service account>"),
        (700023, rejected, "check cloudName, and activeDirectoryEndpoint"),
        (700024, rejected, "check the node's clock"),
        (700027, rejected, "add the certificate to the application, or renew it"),
        (5002723, rejected, "nothing but the kubelet writes the pod's tokens"),
        (50013, rejected, "takes some minutes"),
        (50166, rejected, "make its discovery document and keys public"),
        (501661, rejected, "make its discovery document and keys public"),
        (53003, rejected, "let it in from the node's address"),
        (530003, rejected, "let it in from the node's address"),
        (1, rejected, "https://login.microsoftonline.com/error"),
    ] {
        let body = format!(r#"{{"error_codes":[{code}],"error_description":"AADSTS{code}: QUOTED"}}"#);
        let azure =
            Azure::start(move |request, _| (request.kind == Kind::Token).then(|| status(400, &body)).flatten()).await;
        let error = get(&azure.vault(), "db").await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.reason(), reason, "{text}");
        assert!(text.contains(words) && text.contains(&format!("HTTP 400 AADSTS{code}:")), "{text}");
        assert!(!text.contains("QUOTED"), "{text}");
        assert_eq!(azure.counts(), [1, 1, 0], "it is final");
    }
}
