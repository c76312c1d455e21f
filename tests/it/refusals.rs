//! Bad input: the right code, a message with the fix, and no mount.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use tonic::{Code, Status};

use crate::harness::{class_manifest, harness};

const PATIENCE: Duration = Duration::from_secs(30);

trials! { "refusals":
    a_request_without_a_required_field_is_refused,
    a_class_that_cannot_be_found_or_used_is_reported,
    missing_or_wrong_parameters_are_refused,
    malformed_objects_are_refused,
    wrong_object_fields_are_refused,
    file_names_that_leave_the_volume_or_collide_are_refused,
    missing_credentials_are_refused,
    all_mistakes_of_a_class_are_reported_together,
    a_pods_own_attributes_are_checked_like_the_class,
}

fn check(status: &Status, code: Code, words: &[&str]) -> Result<()> {
    ensure!(status.code() == code, "{:?} instead of {code:?}: {}", status.code(), status.message());
    for word in words {
        ensure!(status.message().contains(word), "{word:?} is missing in: {}", status.message());
    }
    Ok(())
}

fn a_request_without_a_required_field_is_refused() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let good = node.kubelet.publish_request(&volume);
    let second = Duration::from_secs(10);
    type Spoil = fn(&mut keyvault_csi_proto::csi::NodePublishVolumeRequest);
    let cases: [(Spoil, &str); 6] = [
        (|request| request.volume_capability = None, "volume capability"),
        (|request| request.volume_id.clear(), "volume id"),
        (|request| request.target_path.clear(), "target path"),
        (|request| request.volume_context.clear(), "volume context"),
        (|request| drop(request.volume_context.remove("csi.storage.k8s.io/pod.namespace")), "podInfoOnMount"),
        (|request| request.target_path = "relative/path".to_owned(), "absolute"),
    ];
    for (spoil, named) in cases {
        let mut request = good.clone();
        spoil(&mut request);
        let status = node.kubelet.send(request, second).unwrap_err();
        check(&status, Code::InvalidArgument, &[named])?;
    }
    let mut nameless = volume.clone();
    nameless.attributes.clear();
    check(&node.refused(&nameless)?, Code::InvalidArgument, &["secretProviderClass", "volumeAttributes"])?;
    let mut writable = volume.clone();
    writable.read_only = false;
    check(&node.refused(&writable)?, Code::InvalidArgument, &["readOnly: true"])?;
    // Upstream's order: the class is read before readOnly is checked
    // (docs/reference/csi-driver.md#publish-checks).
    writable.attributes.insert("secretProviderClass".to_owned(), "absent".to_owned());
    check(&node.refused(&writable)?, Code::Unknown, &["not found"])?;
    assert_eq!(vault.counters().total() + vault.entra().total(), 0, "Azure got a request");
    let errors = node.metrics()?;
    ensure!(errors.contains("reason=\"InvalidRequest\""), "{errors}");
    Ok(())
}

fn a_class_that_cannot_be_found_or_used_is_reported() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let parameters = vault.parameters(&["password"]);
    let write = |namespace, name: &str, provider, parameters: &_| {
        node.manifest(&format!("{namespace}-{name}.yaml"), &class_manifest(namespace, name, provider, parameters))
    };
    write("elsewhere", "strayed", Some("azure"), &parameters)?;
    write("default", "no-provider", None, &parameters)?;
    write("default", "empty-provider", Some(""), &parameters)?;
    write("default", "other-provider", Some("vault"), &parameters)?;
    write("default", "no-parameters", Some("azure"), &BTreeMap::new())?;
    for (class, words) in [
        ("absent", &["failed to get secretproviderclass default/absent", "not found"][..]),
        ("strayed", &["failed to get secretproviderclass default/strayed", "not found", "in the pod's namespace"]),
        ("no-provider", &["default/no-provider", "spec.provider is not set"]),
        ("empty-provider", &["default/empty-provider", "spec.provider is not set"]),
        ("other-provider", &["default/other-provider", "provider not found", "vault"]),
        ("no-parameters", &["default/no-parameters", "spec.parameters is not set"]),
    ] {
        let status = node.refused(&vault.volume(class))?;
        check(&status, Code::Unknown, words)?;
        // Other namespaces and files of the node, which the pod's owner may not list.
        for hidden in ["elsewhere", ".yaml", &node.setup().manifests().display().to_string()] {
            ensure!(!status.message().contains(hidden), "{hidden} in {status}");
        }
    }
    wait_for("the log has the namespace", PATIENCE, || Ok(node.log().contains("in namespace elsewhere")))?;
    let metrics = node.metrics()?;
    ensure!(metrics.contains("error_type=\"SecretProviderClassNotFound\""), "{metrics}");
    Ok(())
}

fn missing_or_wrong_parameters_are_refused() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let cases: &[(&str, Option<&str>, &[&str])] = &[
        ("keyvaultName", None, &["keyvaultName", "not set"]),
        ("keyvaultName", Some("kv"), &["keyvaultName", "2 characters"]),
        ("keyvaultName", Some("much-too-long-a-name-for-a-vault"), &["keyvaultName", "characters"]),
        ("keyvaultName", Some("under_score"), &["keyvaultName", "'_'"]),
        ("keyvaultName", Some("../secrets"), &["keyvaultName"]),
        ("tenantID", None, &["tenantID", "not set"]),
        ("tenantID", Some("a/b"), &["tenantID", "'/'"]),
        ("objects", None, &["objects", "not set"]),
        ("objects", Some("   "), &["objects", "not set"]),
        ("cloudName", Some("AzureCloud1"), &["cloudName", "AzureCloud1", "AzurePublicCloud"]),
        ("cloudName", Some("AzureStackCloud"), &["AzureStackCloud", "cloudEnvFileName"]),
        ("usePodIdentity", Some("tru"), &["usePodIdentity", "tru"]),
    ];
    for (number, &(key, value, words)) in cases.iter().enumerate() {
        let mut parameters = vault.parameters(&["password"]);
        match value {
            Some(value) => parameters.insert(key.to_owned(), value.to_owned()),
            None => parameters.remove(key),
        };
        let class = format!("case-{number}");
        node.class(&class, &parameters)?;
        let status = node.refused(&vault.volume(&class))?;
        check(&status, Code::Unknown, &[&format!("default/{class}")])?;
        check(&status, Code::Unknown, words)?;
    }
    assert_eq!(vault.counters().total() + vault.entra().total(), 0, "Azure got a request");
    Ok(())
}

fn malformed_objects_are_refused() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    for (number, objects) in [
        "array:\n  - objectName: a\n    objectType: secret\n",
        "- |\n  objectName: a\n",
        "invalid",
        "array:\n",
        "other: []\n",
        "# only a comment\n",
        "array:\n  - null\n",
        "array:\n  - 5\n",
        "array:\n  - |\n    objectName: a\n    objectName: b\n    objectType: secret\n",
        "array:\n  - |\n    objectName: [a]\n    objectType: secret\n",
        "array:\n  - |\n    objectName: a\n    objectType: secret\n    objectVersionHistory: \"2\"\n",
        "array: [",
    ]
    .into_iter()
    .enumerate()
    {
        let class = format!("case-{number}");
        node.class(&class, &vault.parameters_of(objects))?;
        check(&node.refused(&vault.volume(&class))?, Code::Unknown, &[&format!("default/{class}"), "objects"])
            .or_else(|_| check(&node.refused(&vault.volume(&class))?, Code::Unknown, &[&class, "object"]))?;
    }
    assert_eq!(vault.counters().total() + vault.entra().total(), 0, "Azure got a request");
    Ok(())
}

fn wrong_object_fields_are_refused() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    for (number, (field, words)) in [
        ("objectType: Secret", &["objectType", "Secret"][..]),
        ("objectType: ''", &["objectType"]),
        ("objectType: secret\nobjectEncoding: utf-16", &["objectEncoding", "utf-16"]),
        ("objectType: secret\nobjectFormat: pkcs", &["objectFormat", "pkcs"]),
        ("objectType: secret\nfilePermission: '493'", &["filePermission", "493"]),
        ("objectType: secret\nfilePermission: rw-r--r--", &["filePermission"]),
        ("objectType: secret\nfilePermission: '1777'", &["filePermission", "1777"]),
        ("objectType: secret\nobjectVersion: abc", &["objectVersion"]),
        ("objectType: secret\nobjectVersion: ../../keys/k1", &["objectVersion"]),
    ]
    .into_iter()
    .enumerate()
    {
        let fields = format!("objectName: my-secret\n{field}").replace('\n', "\n    ");
        let class = format!("case-{number}");
        node.class(&class, &vault.parameters_of(&format!("array:\n  - |\n    {fields}\n")))?;
        let status = node.refused(&vault.volume(&class))?;
        check(&status, Code::Unknown, &["my-secret"])?;
        check(&status, Code::Unknown, words)?;
    }
    assert_eq!(vault.counters().total() + vault.entra().total(), 0, "Azure got a request");
    Ok(())
}

fn file_names_that_leave_the_volume_or_collide_are_refused() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let object = |name: &str, alias: &str| {
        format!("  - |\n    objectName: {name}\n    objectType: secret\n    objectAlias: '{alias}'\n")
    };
    let one = |name: &str, alias: &str| format!("array:\n{}", object(name, alias));
    let two = |a: &str, b: &str| format!("array:\n{}{}", object("first", a), object("second", b));
    for (number, (objects, words)) in [
        (one("a", "../escape"), &[".."][..]),
        (one("a", "a/../../escape"), &[".."]),
        (one("a", "/etc/passwd"), &["relative"]),
        (one("a", "..data"), &[".."]),
        (one("a", "a..b"), &[".."]),
        (one("a", "./a"), &["shortest"]),
        (one("a", "a//b"), &["shortest"]),
        (one("../keys/k1", ""), &["objectName"]),
        (one("a b", ""), &["objectName"]),
        (one("", "alias"), &["objectName"]),
        (two("same", "same"), &["same", "objectAlias"]),
        (two("a", "a/b"), &["objectAlias"]),
    ]
    .into_iter()
    .enumerate()
    {
        let class = format!("case-{number}");
        node.class(&class, &vault.parameters_of(&objects))?;
        check(&node.refused(&vault.volume(&class))?, Code::Unknown, words)?;
    }
    assert_eq!(vault.counters().total() + vault.entra().total(), 0, "Azure got a request");
    Ok(())
}

fn missing_credentials_are_refused() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    node.class("demo", &vault.parameters(&["password"]))?;
    let with = |pairs: &[(&str, &str)]| {
        let mut volume = Volume::of_class("default", "web", "demo");
        volume.secrets = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        volume
    };
    let hidden = harness().secret("unused");
    for (volume, words) in [
        (with(&[]), &["nodePublishSecretRef", "default/demo", &vault.name][..]),
        (with(&[("clientsecret", &hidden)]), &["clientid"]),
        (with(&[("clientid", ""), ("clientsecret", &hidden)]), &["clientid"]),
        (with(&[("clientid", "x")]), &["clientsecret"]),
        (with(&[("clientid", "x"), ("clientsecret", "")]), &["clientsecret"]),
    ] {
        let status = node.refused(&volume)?;
        check(&status, Code::Unknown, words)?;
        check(&status, Code::Unknown, &["CredentialsMissing"])?;
    }
    vault.set("password");
    let any_case = with(&[("ClientID", &vault.client_id), ("CLIENTSECRET", &vault.client_secret)]);
    node.publish(&any_case)?;
    Ok(())
}

fn all_mistakes_of_a_class_are_reported_together() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let mut parameters = vault.parameters_of(
        "array:
  - |
    objectName: first
    objectType: secrets
    filePermission: '999'
  - |
    objectName: second
    objectType: secret
    objectAlias: ../x
    objectEncoding: rot13
",
    );
    parameters.insert("keyvaultName".to_owned(), "a_b".to_owned());
    parameters.insert("cloudName".to_owned(), "Azure".to_owned());
    parameters.remove("tenantID");
    parameters.insert("tenantid".to_owned(), "x".to_owned());
    node.class("demo", &parameters)?;
    let status = node.refused(&vault.volume("demo"))?;
    check(
        &status,
        Code::Unknown,
        &[
            "default/demo",
            "keyvaultName",
            "cloudName",
            "tenantID",
            "tenantid",
            "first",
            "objectType",
            "999",
            "second",
            "..",
            "rot13",
            "ClassInvalid",
        ],
    )
}

fn a_pods_own_attributes_are_checked_like_the_class() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    node.class("demo", &vault.parameters(&["password"]))?;
    // A pod's author can override any parameter, also with a wrong value
    // (docs/reference/azure-provider.md#parameters).
    let mut volume = vault.volume("demo");
    volume.attributes.insert("keyvaultName".to_owned(), "evil.example/".to_owned());
    check(&node.refused(&volume)?, Code::Unknown, &["keyvaultName"])?;
    assert_eq!(vault.counters().total() + vault.entra().total(), 0);
    Ok(())
}
