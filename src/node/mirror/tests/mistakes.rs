//! Mistakes that concern the place of a secretObject in its class.

use serde_json::{Value, json};

use super::super::error::Error;
use super::super::reconcile::{checked_name, mistake_in};
use crate::model::{Class, ClassRef, ClassSpec, ResourceName};

fn names(secret_objects: &Value, index: usize) -> Result<ResourceName, Error> {
    let spec = json!({ "provider": "azure", "secretObjects": secret_objects });
    let reference = ClassRef { namespace: "shop".parse().unwrap(), name: "demo".parse().unwrap() };
    let class = Class::new(reference, ClassSpec::read(Some(&spec)).unwrap());
    checked_name(&class.secret_objects, index).map_err(|mistake| mistake_in(&class, index, mistake))
}

#[test]
fn the_second_secret_object_with_a_name_is_a_mistake_and_the_first_is_not() {
    let objects = json!([{ "secretName": "web" }, { "secretName": " web " }]);
    assert_eq!(names(&objects, 0).unwrap().as_str(), "web");
    let text = names(&objects, 1).unwrap_err().to_string();
    assert!(text.contains("secretObjects[1]") && text.contains("that of secretObjects[0] too"), "{text}");
}

#[test]
fn a_mistake_names_class_and_place() {
    for (name, expected) in [
        ("", "class shop/demo: spec.secretObjects[0]: secretName is empty: name the Secret"),
        ("../nodes", "class shop/demo: spec.secretObjects[0] (secretName ../nodes): secretName is not a valid"),
        ("a\nb", "class shop/demo: spec.secretObjects[0] (secretName a\\nb): secretName is not a valid"),
    ] {
        let text = names(&json!([{ "secretName": name }]), 0).unwrap_err().to_string();
        assert!(text.starts_with(expected), "{text}");
    }
}
