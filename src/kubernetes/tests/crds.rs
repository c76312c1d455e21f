//! Compares `manifests/crds` with the types; `UPDATE=1` regenerates it.

use std::fs;
use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::kubernetes::pod_status::Status;
use crate::kubernetes::resources;
use crate::model::ClassSpec;

/// A type's schema as the API server accepts it: structural, without defaults, nothing required,
/// nothing nullable.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value();
    clean(&mut schema);
    schema
}

fn clean(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    // The API server would write a default into every object.
    fields.retain(|key, _| {
        !["$schema", "title", "default", "components", "required", "nullable"].contains(&key.as_str())
    });
    if let Some(Value::Array(types)) = fields.get("type") {
        let one = types.iter().find(|name| *name != "null").cloned().unwrap();
        fields.insert("type".to_owned(), one);
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(clean);
    }
    for key in ["items", "additionalProperties"] {
        match fields.get_mut(key) {
            // `additionalProperties: false` is not structural; pruning does the same.
            Some(Value::Bool(_)) => drop(fields.remove(key)),
            Some(schema) => clean(schema),
            None => {}
        }
    }
}

fn object(description: &str, properties: Value) -> Value {
    let mut all = json!({
        "apiVersion": { "type": "string", "description": "API version of the object." },
        "kind": { "type": "string", "description": "Kind of the object." },
        "metadata": { "type": "object" },
    });
    let Value::Object(properties) = properties else { panic!("properties are a mapping") };
    all.as_object_mut().unwrap().extend(properties);
    json!({ "openAPIV3Schema": { "type": "object", "description": description, "properties": all } })
}

/// A column of `kubectl get`, or of its wide output only.
///
/// The API server stores no `priority: 0`. A manifest with one differs from the stored object in
/// each client-side apply, and a server-side apply by another manager conflicts with it.
fn column(name: &str, path: &str, kind: &str, wide: bool, description: &str) -> Value {
    let mut column = json!({ "name": name, "jsonPath": path, "type": kind, "description": description });
    if wide {
        column["priority"] = 1.into();
    }
    column
}

fn definition(kind: &str, plural: &str, versions: Vec<Value>) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{}", resources::GROUP) },
        "spec": {
            "group": resources::GROUP,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
            },
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}

fn version(name: &str, schema: Value, columns: &Value) -> Map<String, Value> {
    let version = json!({
        "name": name,
        "served": true,
        "storage": name == "v1",
        "schema": schema,
        "additionalPrinterColumns": columns,
    });
    let Value::Object(mut version) = version else { unreachable!() };
    if name == "v1alpha1" {
        version.insert("deprecated".to_owned(), true.into());
    }
    version
}

fn classes() -> Value {
    let columns = json!([
        column("Provider", ".spec.provider", "string", false, "Who fetches the objects"),
        column("Vault", ".spec.parameters.keyvaultName", "string", false, "Name of the key vault"),
        column("Tenant", ".spec.parameters.tenantID", "string", true, "Tenant of the key vault"),
        column("Age", ".metadata.creationTimestamp", "date", false, "Time since the object was made"),
    ]);
    let description = "Which objects of which vault a pod's volume holds. It must be in the pod's namespace.";
    let by_pod = json!({
        "type": "array",
        "items": { "type": "object", "properties": { "id": { "type": "string" }, "namespace": { "type": "string" } } },
    });
    let new = object(description, json!({ "spec": schema::<ClassSpec>(), "status": { "type": "object" } }));
    let old = json!({ "type": "object", "properties": { "byPod": by_pod } });
    let old = object(description, json!({ "spec": schema::<ClassSpec>(), "status": old }));
    let mut old = version("v1alpha1", old, &columns);
    let warning = format!("{0}/v1alpha1 SecretProviderClass is deprecated; use {0}/v1", resources::GROUP);
    old.insert("deprecationWarning".to_owned(), warning.into());
    let versions = vec![version("v1", new, &columns).into(), old.into()];
    definition("SecretProviderClass", "secretproviderclasses", versions)
}

fn pod_statuses() -> Value {
    let node = r".metadata.labels.internal\.secrets-store\.csi\.k8s\.io/node-name";
    let columns = json!([
        column("Pod", ".status.podName", "string", false, "The pod whose volume this is about"),
        column("Class", ".status.secretProviderClassName", "string", false, "The pod's SecretProviderClass"),
        column("Mounted", ".status.mounted", "boolean", false, "Whether the volume is mounted"),
        column("Changed", ".status.lastChanged", "date", false, "Time since the versions changed last"),
        column("Error", ".status.reason", "string", false, "Why the last refresh failed"),
        column("Node", node, "string", true, "The pod's node"),
        column("Objects", ".status.objects[*].id", "string", true, "The objects in the volume"),
        column("Target", ".status.targetPath", "string", true, "Path of the mount on the node"),
        column("Age", ".metadata.creationTimestamp", "date", false, "Time since the object was made"),
    ]);
    let description = "What a pod's volume holds. Written by the driver; goes with the pod.";
    let schema = || object(description, json!({ "status": schema::<Status>() }));
    let versions =
        ["v1", "v1alpha1"].map(|name| version(name, schema(), &columns).into()).into_iter().collect::<Vec<Value>>();
    definition("SecretProviderClassPodStatus", "secretproviderclasspodstatuses", versions)
}

#[test]
fn the_definitions_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds");
    for definition in [classes(), pod_statuses()] {
        let name = definition.pointer("/metadata/name").unwrap().as_str().unwrap();
        let plural = name.split('.').next().unwrap();
        let file = folder.join(format!("{}_{plural}.yaml", resources::GROUP));
        let text = format!(
            "# Generated from src/model/class_spec.rs and src/kubernetes/pod_status.rs; `UPDATE=1 make test` regenerates it.\n{}",
            serde_saphyr::to_string(&definition).unwrap()
        );
        let text = text.trim_end().to_owned() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &text).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == text, "{} is out of date: run `UPDATE=1 make test`", file.display());
        let read: Value = serde_saphyr::from_str(&kept).unwrap();
        assert_eq!(read, definition, "{} does not parse to the definition", file.display());
    }
}
