//! The classes of the user's documents, word for word.

use super::*;

const SERVICE_PRINCIPAL: &str = r#"
    usePodIdentity: "false"
    keyvaultName: <key-vault-name>
    objects:  |
      array:
        - |
          objectName: DemoSecret
          objectType: secret             # object types: secret, key or cert
          objectVersion: ""              # [OPTIONAL] object versions, default to latest if empty
    tenantId: <tenant-Id>                # The tenant ID of the Azure Key Vault instance
"#;

const WORKLOAD_IDENTITY: &str = r#"
    usePodIdentity: "false"
    clientID: "${USER_ASSIGNED_CLIENT_ID}" # Setting this to use workload identity
    keyvaultName: ${KEYVAULT_NAME}       # Set to the name of your key vault
    cloudName: ""                         # [OPTIONAL for Azure] if not provided, the Azure environment defaults to AzurePublicCloud
    objects:  |
      array:
        - |
          objectName: secret1             # Set to the name of your secret
          objectType: secret              # object types: secret, key, or cert
          objectVersion: ""               # [OPTIONAL] object versions, default to latest if empty
        - |
          objectName: key1                # Set to the name of your key
          objectType: key
          objectVersion: ""
    tenantId: "${IDENTITY_TENANT}"        # The tenant ID of the key vault
"#;

fn parameters(yaml: &str) -> BTreeMap<String, String> {
    crate::formats::yaml::from_str(yaml).unwrap().unwrap()
}

#[test]
fn the_service_principal_class_of_the_documents_is_read() {
    let unfilled = Params::parse(&parameters(SERVICE_PRINCIPAL)).unwrap_err().to_string();
    assert!(unfilled.contains("tenantId \"<tenant-Id>\" contains '<', it looks like a placeholder"), "{unfilled}");
    assert!(unfilled.contains("keyvaultName \"<key-vault-name>\" contains '<', it looks like"), "{unfilled}");
    let filled = SERVICE_PRINCIPAL.replace("<key-vault-name>", "demo-kv").replace("<tenant-Id>", "contoso.com");
    let params = Params::parse(&parameters(&filled)).unwrap();
    assert_eq!((params.vault.as_str(), params.tenant.as_str()), ("demo-kv", "contoso.com"));
    assert_eq!(
        (params.identity.clone(), params.cloud.clone()),
        (IdentityMode::ServicePrincipal, CloudChoice::Default(None))
    );
    let [spec] = params.objects.as_slice() else { panic!("{params:?}") };
    assert_eq!(
        (spec.object_type, spec.file.as_str(), &spec.version),
        (ObjectType::Secret, "DemoSecret", &Version::Latest)
    );
    assert_eq!(params.near_misses.len(), 0);
}

#[test]
fn the_workload_identity_class_of_the_documents_is_read() {
    let filled = WORKLOAD_IDENTITY.replace("${KEYVAULT_NAME}", "demo-kv").replace("${IDENTITY_TENANT}", "t");
    let params = Params::parse(&parameters(&filled)).unwrap();
    assert_eq!(params.identity, IdentityMode::WorkloadIdentity { client_id: "${USER_ASSIGNED_CLIENT_ID}".into() });
    let ids: Vec<_> = params.objects.iter().map(|spec| spec.version_id(None)).collect();
    assert_eq!(ids, ["secret/secret1", "key/key1"]);
}
