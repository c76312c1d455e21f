//! docs/reference/azure-provider.md#encodings and
//! docs/reference/azure-provider.md#service-principal, and the texts of errors.

use super::*;
use crate::formats::pkcs12::Work;
use crate::model::{self, ClassRef, ExposeSecret, FileMode, Reason, SecretFile, SecretString};

fn rendering(default_mode: FileMode) -> Rendering {
    Rendering { construct_pem_chain: true, separate_files: true, default_mode }
}

/// Renders a secret that is not backed by a certificate, whatever its content type says.
fn opaque(spec: &ObjectSpec, value: &str, mode: FileMode) -> Result<SecretFile, String> {
    let value = SecretString::from(value);
    let secret = SecretValue { value: &value, content_type: Some("application/x-pkcs12"), certificate_backed: false };
    let rendered = super::render(spec, None, ObjectValue::Secret(secret), &rendering(mode), &mut Work::default())
        .map_err(|e| e.to_string())?;
    let [file] = <[SecretFile; 1]>::try_from(rendered.files).expect("one file");
    assert_eq!(rendered.warnings, []);
    Ok(file)
}

fn render(encoding: &str, value: &str) -> Result<Vec<u8>, String> {
    let spec = object(&secret(&format!("objectEncoding: {encoding}"))).unwrap();
    opaque(&spec, value, FileMode::DEFAULT).map(|file| file.content.expose_secret().to_vec())
}

#[test]
fn a_value_is_rendered_in_its_encoding() {
    for (encoding, value, bytes) in [
        ("", "héllo\n", "héllo\n".as_bytes()),
        ("utf-8", "", b""),
        ("base64", "aGVs\nbG8=", b"hello"),
        ("hex", "00Ff", b"\x00\xff"),
    ] {
        assert_eq!(render(encoding, value).as_deref(), Ok(bytes), "{encoding}");
    }
}

#[test]
fn render_errors_name_the_object_and_no_content() {
    assert_eq!(
        render("base64", "hunter2!").unwrap_err(),
        "secret/secret1 cannot be rendered with objectEncoding base64: the value is not base64: byte 8 of 8 is not allowed \
         there; store the value in that encoding, or leave objectEncoding out"
    );
    assert_eq!(
        render("hex", "abcd\n").unwrap_err(),
        "secret/secret1 cannot be rendered with objectEncoding hex: the value is not hex: it ends with a line break (of 5 \
         bytes in all); store it without the line break, with printf instead of echo"
    );
}

#[test]
fn the_mode_is_the_objects_or_the_mounts() {
    let mode = |more: &str| {
        let spec = object(&secret(more)).unwrap();
        opaque(&spec, "x", FileMode::new(0o640).unwrap()).unwrap().mode
    };
    assert_eq!((mode("").bits(), mode("filePermission: 0400").bits()), (0o640, 0o400));
}

fn principal(pairs: &[(&str, &str)]) -> Result<(String, String), String> {
    let caller = model::tests::caller(&[], pairs);
    let taken = service_principal(caller.credentials()).map_err(|error| error.to_string())?;
    let Proof::Secret(client_secret) = taken.proof else { panic!("{taken:?}") };
    Ok((taken.client_id, client_secret.expose_secret().to_owned()))
}

#[test]
fn a_service_principal_is_found_in_any_case_and_not_trimmed() {
    let expected = Ok(("id ".to_owned(), " s\n".to_owned()));
    assert_eq!(principal(&[("clientid", "id "), ("clientsecret", " s\n"), ("other", "")]), expected);
    assert_eq!(principal(&[("ClientID", "id "), ("CLIENTSECRET", " s\n")]), expected);
}

#[test]
fn a_faulty_service_principal_says_what_to_do() {
    let none = principal(&[]).unwrap_err();
    assert!(none.contains("nodePublishSecretRef") && none.contains("kubectl create secret generic"), "{none}");
    assert_eq!(principal(&[("csi.storage.k8s.io/serviceAccount.tokens", "{}")]).unwrap_err(), none);
    for (pairs, text) in [
        (
            &[("clientsecret", "s3")][..],
            "the Secret of nodePublishSecretRef has no key clientid: add it, next to clientsecret",
        ),
        (
            &[("clientid", "i")],
            "the Secret of nodePublishSecretRef has no key clientsecret and no key clientcertificate: add one of them, next \
             to clientid",
        ),
        (&[("other", "s3")], "the Secret of nodePublishSecretRef has no key clientid: add it, next to clientsecret"),
        (
            &[("ClientID", ""), ("clientsecret", "s3")],
            "the key \"ClientID\" in the Secret of nodePublishSecretRef is empty: set it",
        ),
        (
            &[("clientid", "i"), ("clientsecret", "")],
            "the key \"clientsecret\" in the Secret of nodePublishSecretRef is empty: set it",
        ),
        (
            &[("clientid", "i"), ("clientSecret", "s3"), ("clientsecret", "s4")],
            "the Secret of nodePublishSecretRef has both \"clientSecret\" and \"clientsecret\", and either could be meant: \
             delete one",
        ),
    ] {
        assert_eq!(principal(pairs).unwrap_err(), text);
    }
}

#[test]
fn errors_name_the_class_and_have_a_reason() {
    let class = ClassRef { namespace: "shop".parse().unwrap(), name: "demo".parse().unwrap() };
    let mistakes = with(&[("keyvaultName", "")]).unwrap_err();
    let error = Error::Mistakes { class: class.clone(), mistakes };
    assert_eq!(error.to_string(), "SecretProviderClass shop/demo: keyvaultName is not set: add the name of the vault");
    assert_eq!(error.reason(), Reason::ClassInvalid);
    let near_misses = with(&[("clientId", "x")]).unwrap().near_misses;
    let source = CredentialsError::MissingKey("clientid");
    let error = Error::Credentials { class, vault: "testkv".into(), source, near_misses };
    assert_eq!(
        error.to_string(),
        "SecretProviderClass shop/demo, vault testkv: the Secret of nodePublishSecretRef has no key clientid: add it, next \
         to clientsecret; clientId is ignored, the name is spelt clientID"
    );
    assert_eq!(error.reason(), Reason::CredentialsMissing);
}

#[test]
fn long_values_are_cut() {
    let text = mistakes(&[("keyvaultName", &"_".repeat(1000))]);
    assert!(text.starts_with(&format!("keyvaultName \"{}\"… contains '_'", "_".repeat(64))), "{text}");
}
