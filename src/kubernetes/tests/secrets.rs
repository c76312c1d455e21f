//! Secrets as objects, without a server.

use std::collections::BTreeMap;

use crate::kubernetes::error::without_user;
use crate::kubernetes::secrets::withheld;
use crate::kubernetes::{SecretError, read_secret};
use crate::model::{ExposeSecret as _, SecretBytes};

#[test]
fn errors_and_debug_output_of_a_secret_contain_no_value() {
    let text =
        r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"7"},"type":"Opaque","data":{"k":"aHVudGVyMg=="}}"#;
    let secret = read_secret(text).unwrap();
    assert_eq!(secret.data["k"].expose_secret(), b"hunter2");
    assert!(!format!("{secret:?}").contains("hunter2") && !format!("{secret:?}").contains("104, 117"));
    for broken in [r#"{"metadata":{},"data":{"k":"hunter2!"}}"#, r#"{"metadata":{},"data":"hunter2"}"#, "hunter2"] {
        assert_eq!(read_secret(broken).unwrap_err(), "the response is not a Secret");
    }
}

#[test]
fn a_message_does_not_name_the_drivers_user() {
    for (message, shown) in [
        (
            "secrets \"a\" is forbidden: User \"system:serviceaccount:kube-system:driver\" cannot get resource \"secrets\"",
            "secrets \"a\" is forbidden: the driver cannot get resource \"secrets\"",
        ),
        ("exceeded quota: few, requested: secrets=1", "exceeded quota: few, requested: secrets=1"),
        ("User \"", "User \""),
    ] {
        assert_eq!(without_user(message), shown);
    }
}

#[test]
fn a_message_that_quotes_a_value_is_withheld() {
    let data = |value: &str| BTreeMap::from([("k".to_owned(), SecretBytes::from(value.as_bytes().to_vec()))]);
    for (message, value, shown) in [
        ("denied by policy", "hunter2", true),
        ("denied: hunter2 is weak", "hunter2", false),
        ("denied: hunter2 is weak", "hunter2\n", false),
        ("denied: {\"k\":\"aHVudGVyMg==\"}", "hunter2", false),
        // Shorter values match by chance.
        ("denied", "d", true),
    ] {
        for failure in [SecretError::Forbidden, SecretError::Refused, SecretError::Unavailable] {
            let error = withheld(failure(message.to_owned()), &data(value));
            assert_eq!(error == failure(message.to_owned()), shown, "{message} {error}");
            assert!(shown || !error.to_string().contains("hunter2"), "{error}");
        }
    }
}
