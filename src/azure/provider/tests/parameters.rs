//! docs/reference/azure-provider.md#parameters, docs/reference/azure-provider.md#parameter-tests
//! and docs/reference/azure-provider.md#mount-tests.

use super::*;
use crate::azure::keyvault::CloudFileName;
use crate::model::{Class, ClassRef, ClassSpec};

#[test]
fn values_are_trimmed() {
    let params = with(&[
        ("keyvaultName", " testkv "),
        ("tenantID", "\ttenant\n"),
        ("clientID", " id "),
        ("cloudName", " azurestackcloud "),
        ("cloudEnvFileName", " /etc/cloud.json "),
    ])
    .unwrap();
    assert_eq!((params.vault.as_str(), params.tenant.as_str()), ("testkv", "tenant"));
    assert_eq!(params.identity, IdentityMode::WorkloadIdentity { client_id: "id".into() });
    assert_eq!(params.cloud, CloudChoice::File(CloudFileName::new("/etc/cloud.json").unwrap()));
}

#[test]
fn booleans_are_gos_words() {
    for word in ["1", "t", "T", "TRUE", "true", "True", " true "] {
        let params = with(&[("useVMManagedIdentity", word)]).unwrap();
        assert_eq!(params.identity, IdentityMode::ManagedIdentity { client_id: None }, "{word}");
    }
    for word in ["", " ", "0", "f", "F", "FALSE", "false", "False"] {
        let params = with(&[("usePodIdentity", word), ("useAzureTokenProxy", word)]).unwrap();
        assert_eq!(params.identity, IdentityMode::ServicePrincipal, "{word}");
    }
    for word in ["tru", "test", "yes", "no", "on", "invalid", "tRUE", "2"] {
        for key in ["usePodIdentity", "useVMManagedIdentity", "useAzureTokenProxy"] {
            let expected = format!("{key} {word:?} is not a boolean: use \"true\" or \"false\"");
            assert_eq!(mistakes(&[(key, word)]), expected);
        }
    }
}

#[test]
fn the_tenant_has_two_spellings_and_the_newer_wins() {
    for (pairs, expected) in [
        (&[("tenantID", "new"), ("tenantId", "old")][..], "new"),
        (&[("tenantID", ""), ("tenantId", "old")], "old"),
        (&[("tenantID", " "), ("tenantId", " old ")], "old"),
        (&[("tenantID", "ADFS")], "ADFS"),
        (&[("tenantID", "contoso.onmicrosoft.com")], "contoso.onmicrosoft.com"),
    ] {
        assert_eq!(with(pairs).unwrap().tenant, expected, "{pairs:?}");
    }
    let fix = "use the id or the domain of the vault's Entra tenant";
    assert_eq!(mistakes(&[("tenantID", "")]), format!("tenantID is not set: {fix}"));
    assert_eq!(mistakes(&[("tenantID", "a/b")]), format!("tenantID \"a/b\" contains '/': {fix}"));
}

#[test]
fn a_vault_name_has_3_to_24_letters_digits_and_hyphens() {
    for name in ["abc", "A-1", "-a-", "1--2", "abcdefghijklmnopqrstuvwx"] {
        assert_eq!(with(&[("keyvaultName", name)]).unwrap().vault, name);
    }
    let fix = "use the vault's name, not its address: 3 to 24 ASCII letters, digits and '-'";
    for (name, wrong) in [
        ("kv", "\"kv\" is 2 characters long"),
        ("abcdefghijklmnopqrstuvwxy", "\"abcdefghijklmnopqrstuvwxy\" is 25 characters long"),
        ("test_kv", "\"test_kv\" contains '_'"),
        ("kv.vault.azure.net", "\"kv.vault.azure.net\" contains '.'"),
        ("kväult", "\"kväult\" contains 'ä'"),
        ("a\u{1b}[0m", "\"a\\u{1b}[0m\" contains '\\u{1b}'"),
        ("${KV}", "\"${KV}\" contains '$', it looks like a placeholder that was not filled in"),
    ] {
        assert_eq!(mistakes(&[("keyvaultName", name)]), format!("keyvaultName {wrong}: {fix}"));
    }
}

#[test]
fn cloud_names_have_any_case() {
    for (name, canonical) in [
        ("AZUREPUBLICCLOUD", "AzurePublicCloud"),
        ("azureusgovernmentcloud", "AzureUSGovernmentCloud"),
        ("AzureChinaCloud", "AzureChinaCloud"),
        ("AZUREGermanCloud", "AzureGermanCloud"),
        ("AzureStackCloud", "AzureStackCloud"),
    ] {
        assert_eq!(with(&[("cloudName", name)]).unwrap().cloud, CloudChoice::Named(canonical.into()));
    }
    assert_eq!(with(&[("cloudEnvFileName", "/unused")]).unwrap().cloud, CloudChoice::Default(Some("/unused".into())));
    let public = with(&[("cloudName", "AzurePublicCloud"), ("cloudEnvFileName", "/unused")]).unwrap();
    assert_eq!(public.cloud, CloudChoice::Named("AzurePublicCloud".into()));
    assert_eq!(
        mistakes(&[("cloudName", "AzureCloud1")]),
        "cloudName \"AzureCloud1\" is not a cloud: use one of AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, \
         AzureGermanCloud, AzureStackCloud, or leave it out"
    );
    assert_eq!(
        mistakes(&[("cloudName", "AzureStackCloud"), ("cloudEnvFileName", "etc/cloud.json")]),
        "cloudEnvFileName \"etc/cloud.json\" is not the name of a file: name a file in the folder of the driver's \
         --cloud-files-dir, or leave it out for the file of its --cloud-file (AZURE_ENVIRONMENT_FILEPATH)"
    );
}

/// The table of docs/reference/azure-provider.md#identity-selection, without its quirk.
#[test]
fn flags_and_client_id_select_the_identity() {
    let id = || "id".to_owned();
    for (changes, expected) in [
        (&[][..], IdentityMode::ServicePrincipal),
        (&[("clientID", "id")], IdentityMode::WorkloadIdentity { client_id: id() }),
        (&[("useVMManagedIdentity", "true")], IdentityMode::ManagedIdentity { client_id: None }),
        (
            &[("useVMManagedIdentity", "true"), ("userAssignedIdentityID", "id")],
            IdentityMode::ManagedIdentity { client_id: Some(id()) },
        ),
        (&[("useVMManagedIdentity", "true"), ("clientID", "stray")], IdentityMode::ManagedIdentity { client_id: None }),
        (&[("useAzureTokenProxy", "true"), ("clientID", "id")], IdentityMode::IdentityBinding { client_id: id() }),
        (&[("userAssignedIdentityID", "stray")], IdentityMode::ServicePrincipal),
    ] {
        assert_eq!(with(changes).unwrap().identity, expected, "{changes:?}");
    }
    assert_eq!(
        mistakes(&[("useAzureTokenProxy", "true"), ("clientId", "x")]),
        "clientID is not set: useAzureTokenProxy needs the client id of the managed identity (clientId is ignored, the \
         name is spelt clientID)"
    );
    assert_eq!(
        mistakes(&[("usePodIdentity", "true"), ("clientID", "stray")]),
        "usePodIdentity is true, but pod identity (aad-pod-identity) has been retired by Azure and is not supported: use \
         workload identity: remove usePodIdentity, set clientID to the identity's client id, and give the identity a \
         federated credential for the pod's service account"
    );
    assert_eq!(
        mistakes(&[("usePodIdentity", "true"), ("useVMManagedIdentity", "1"), ("useAzureTokenProxy", "T")]),
        "usePodIdentity is true, but so is useVMManagedIdentity and useAzureTokenProxy: choose only one identity mode"
    );
}

#[test]
fn a_key_in_the_wrong_case_gives_a_hint() {
    for (wrong, right) in [
        ("KeyvaultName", "keyvaultName"),
        ("keyVaultName", "keyvaultName"),
        ("tenantid", "tenantID"),
        ("Objects", "objects"),
    ] {
        let text = mistakes(&[(right, ""), (wrong, "x")]);
        assert!(text.contains(&format!("{right} is not set")), "{text}");
        assert!(text.contains(&format!("({wrong} is ignored, the name is spelt {right})")), "{text}");
    }
    let params = with(&[("clientId", "x"), ("ClientID", "y"), ("resourceGroup", "z"), ("Objects", "w")]).unwrap();
    let given: Vec<_> = params.near_misses.iter().map(|miss| miss.given.as_str()).collect();
    assert_eq!(given, ["ClientID", "clientId"]);
}

#[test]
fn unknown_and_historic_parameters_are_ignored() {
    let params = with(&[("resourceGroup", "rg"), ("subscriptionId", "sub"), ("secretProviderClass", "c")]).unwrap();
    assert_eq!(params, with(&[]).unwrap());
}

/// The outer layout of docs/reference/azure-provider.md#objects.
#[test]
fn the_outer_layout_is_text_items_below_array() {
    let fix = "add `array:` and below it one `- |` with objectName and objectType for each object";
    let shape = "write `array:` and below it one `- |` for each object, with its fields indented as text";
    let object_fix = "write it as `- |` with the lines `objectName: …` and `objectType: …` indented below it";
    let empty = "lists no object, and the pod would get an empty volume";
    for good in [
        "array:\n  - |\n    objectName: a\n    objectType: secret\n",
        "array:\n- '{\"objectName\":\"a\",\"objectType\":\"secret\"}'\n",
        "{array: ['objectType: secret\n\n\n  objectName: a']}",
        "other: 1\narray:\n# comment\n- |\n  objectName: a # comment\n  objectType: secret\n",
        "array:\n- |\n  objectName: a\n  objectType: secret\n---\narray: 5\n",
    ] {
        let read = with(&[("objects", good)]).map(|params| params.objects.len());
        assert_eq!(read.map_err(|error| error.to_string()), Ok(1), "{good}");
    }
    for (objects, wrong) in [
        (" \n ", format!("objects is not set: {fix}")),
        (
            "array:\n- objectName: a\n  objectType: secret\n",
            format!("objects has an item that is a mapping and not text (object 1: `-` without `|`): {shape}"),
        ),
        ("- |\n  objectName: a\n", format!("objects is a list without the key array: {shape}")),
        ("invalid", format!("objects is not a mapping: {shape}")),
        ("array: x", format!("objects cannot be read as YAML, line 1, column 8: expected sequence start: {shape}")),
        ("array: [", format!("objects cannot be read as YAML, line 1, column 8: unclosed bracket '[': {shape}")),
        ("array:", format!("objects {empty}: {fix}")),
        ("array: ~", format!("objects {empty}: {fix}")),
        ("array: []", format!("objects {empty}: {fix}")),
        ("# only a comment", format!("objects {empty}: {fix}")),
        ("other: 1", format!("objects {empty}: {fix}")),
        ("---\n---\narray:\n- |\n  objectName: a\n  objectType: secret\n", format!("objects {empty}: {fix}")),
        ("array:\n- 5\n", format!("object 1: its text is not a mapping: {object_fix}")),
        (
            "array:\n- >\n  objectName: a\n  objectType: secret\n",
            format!(
                "object 1: its text cannot be read as YAML, line 1, column 25: mapping values are not allowed in this \
                 context: {object_fix}"
            ),
        ),
    ] {
        assert_eq!(mistakes(&[("objects", objects)]), wrong, "{objects}");
    }
    let null = mistakes(&[("objects", "array:\n-\n- |\n  objectName: a\n  objectType: secret\n")]);
    assert!(null.starts_with("2 mistakes: (1) object 1: objectType is not set:"), "{null}");
}

#[test]
fn a_class_has_at_most_500_objects() {
    let items = |count| {
        let item = |at| format!("- |\n  objectName: s{at}\n  objectType: secret\n");
        format!("array:\n{}", (0..count).map(item).collect::<String>())
    };
    assert_eq!(with(&[("objects", &items(500))]).unwrap().objects.len(), 500);
    assert_eq!(
        mistakes(&[("objects", &items(501))]),
        "objects lists 501 objects; at most 500 are possible: spread them over several classes"
    );
}

#[test]
fn two_objects_of_one_file_are_found_before_the_network() {
    let two = |first: &str, second: &str| {
        let item = |alias| format!("- |\n  objectName: a\n  objectType: secret\n  objectAlias: {alias}\n");
        format!("array:\n{}{}", item(first), item(second))
    };
    assert_eq!(with(&[("objects", &two("x/a", "x/b"))]).unwrap().objects.len(), 2);
    assert_eq!(
        mistakes(&[("objects", &two("x", "x"))]),
        "objects cannot be mounted side by side: two objects write the file \"x\"; give one of them another objectAlias"
    );
    assert!(mistakes(&[("objects", &two("x/a", "x"))]).contains("is a file and"));
}

#[test]
fn all_mistakes_are_reported_in_the_order_of_upstreams_checks() {
    let changes = [
        ("usePodIdentity", "tru"),
        ("keyvaultName", "kv"),
        ("tenantID", ""),
        ("tenantid", "t"),
        ("cloudName", "moon"),
        ("objects", "array:\n- |\n  objectName: db_pass\n  objectType: Secret\n"),
    ];
    assert_eq!(
        mistakes(&changes),
        "6 mistakes: (1) usePodIdentity \"tru\" is not a boolean: use \"true\" or \"false\"; (2) tenantID is not set: use the \
         id or the domain of the vault's Entra tenant (tenantid is ignored, the name is spelt tenantID); (3) cloudName \
         \"moon\" is not a cloud: use one of AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, AzureGermanCloud, \
         AzureStackCloud, or leave it out; (4) object 1 (Secret db_pass): objectType \"Secret\" is not an object type: use \
         secret, key or cert, in lower case; (5) object 1 (Secret db_pass): objectName \"db_pass\" contains '_': use the \
         object's name in the vault: 1 to 127 ASCII letters, digits and '-'; (6) keyvaultName \"kv\" is 2 characters long: \
         use the vault's name, not its address: 3 to 24 ASCII letters, digits and '-'"
    );
}

#[test]
fn at_most_twenty_mistakes_are_listed() {
    let items = "- |\n  objectName: a_b\n  objectType: secret\n".repeat(25);
    let text = mistakes(&[("objects", &format!("array:\n{items}"))]);
    assert!(text.contains("(20) object 20") && !text.contains("(21)"), "{text}");
    assert!(text.starts_with("25 mistakes:") && text.ends_with("; and 5 more"), "{text}");
}

#[test]
fn the_volume_context_overrides_the_class() {
    let parameters = map(&[("keyvaultName", "a"), ("tenantID", "t")]);
    let spec = ClassSpec { provider: "azure".into(), parameters, ..ClassSpec::default() };
    let class = Class::new(ClassRef { namespace: "ns".parse().unwrap(), name: "c".parse().unwrap() }, spec);
    let merged = attributes(&class, &map(&[("keyvaultName", "b"), ("csi.storage.k8s.io/pod.name", "p")]));
    let expected = map(&[("csi.storage.k8s.io/pod.name", "p"), ("keyvaultName", "b"), ("tenantID", "t")]);
    assert_eq!(merged, expected);
}
