//! The manifests on a real API server, as users apply them: each one twice, client-side and
//! server-side, with strict validation.
//!
//! The second time nothing changes, nothing conflicts, and kubectl prints no warning.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::apiserver::{EmptyServer, empty_server};

trials! { "manifests":
    every_manifest_is_in_a_step,
    apply_is_repeatable_and_uninstalling_keeps_definitions_and_classes,
}

/// Files that are applied together, in order. A file that replaces an object comes in a later step.
const STEPS: [&[&str]; 7] = [
    &["crds/secrets-store.csi.x-k8s.io_secretproviderclasses.yaml", PODSTATUSES],
    &["deploy/1-crds.yaml", "deploy/2-rbac.yaml", "deploy/3-csidriver.yaml", "deploy/4-daemonset.yaml"],
    &[
        "deploy/rotation-and-sync/1-rbac.yaml",
        "deploy/rotation-and-sync/2-csidriver.yaml",
        "deploy/rotation-and-sync/3-daemonset.yaml",
    ],
    &["deploy/provider-alone/provider.yaml"],
    &["deploy/from-1.35/csidriver.yaml"],
    &["deploy/from-1.35/csidriver-rotation.yaml"],
    &[
        "examples/environment.yaml",
        "examples/identity-binding.yaml",
        "examples/managed-identity-system-assigned.yaml",
        "examples/managed-identity-user-assigned.yaml",
        "examples/rotation.yaml",
        "examples/service-principal-certificate.yaml",
        "examples/service-principal.yaml",
        "examples/tls.yaml",
        "examples/workload-identity.yaml",
    ],
];
const PODSTATUSES: &str = "crds/secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml";

/// The only files with a warning, and its field. They are for API servers before 1.35, which do not
/// know the field; newer ones recommend it.
const BEFORE_1_35: [&str; 2] = ["deploy/3-csidriver.yaml", "deploy/rotation-and-sync/2-csidriver.yaml"];
const IN_SECRETS: &str = "serviceAccountTokenInSecrets";

/// How `kubectl apply` merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apply {
    ClientSide,
    ServerSide,
}

fn every_manifest_is_in_a_step() -> Result<()> {
    let mut found = BTreeSet::new();
    let mut folders = vec![manifests().join("crds"), manifests().join("deploy"), manifests().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.insert(path.strip_prefix(manifests())?.to_owned());
            }
        }
    }
    let applied: BTreeSet<PathBuf> = STEPS.iter().flat_map(|files| files.iter().map(PathBuf::from)).collect();
    ensure!(found == applied, "{:?}", found.symmetric_difference(&applied).collect::<Vec<_>>());
    Ok(())
}

/// One test, since its parts need the same server: as tests of their own they would wait for each
/// other, each on a thread of the test runner.
fn apply_is_repeatable_and_uninstalling_keeps_definitions_and_classes() -> Result<()> {
    let kubectl = Kubectl(empty_server()?);
    for apply in [Apply::ClientSide, Apply::ServerSide] {
        let applied = kubectl.apply_all_twice(apply).with_context(|| format!("{apply:?}"));
        kubectl.delete_all().and(applied)?;
    }
    let uninstalled = uninstall(&kubectl);
    kubectl.delete_all().and(uninstalled)
}

/// With the commands of docs/install.md.
fn uninstall(kubectl: &Kubectl) -> Result<()> {
    let path = |file: &str| manifests().join(file).display().to_string();
    kubectl.run(["apply", "--filename", &path("deploy")])?;
    kubectl.run(["apply", "--filename", &path("deploy/rotation-and-sync")])?;
    kubectl.wait_for_definitions()?;
    kubectl.run(["apply", "--filename", &path("examples/rotation.yaml")])?;
    for files in [["rotation-and-sync", "2-rbac.yaml"], ["3-csidriver.yaml", "4-daemonset.yaml"]] {
        let [one, other] = files.map(|file| format!("--filename={}", path(&format!("deploy/{file}"))));
        kubectl.run(["delete", "--ignore-not-found", &one, &other])?;
    }
    let kinds = "crd,csidriver,clusterrole,clusterrolebinding,serviceaccount,daemonset,secretproviderclass";
    let left = kubectl.run(["get", kinds, "--all-namespaces", "--output=name"])?;
    let ours = |name: &&str| name.contains("secret") || name.contains("rotation");
    let left: BTreeSet<&str> = left.lines().filter(ours).collect();
    let expected = [
        "customresourcedefinition.apiextensions.k8s.io/secretproviderclasses.secrets-store.csi.x-k8s.io",
        "customresourcedefinition.apiextensions.k8s.io/secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io",
        "secretproviderclass.secrets-store.csi.x-k8s.io/rotation",
        "serviceaccount/rotation",
    ];
    ensure!(left.iter().eq(&expected), "{left:?}");
    Ok(())
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

fn filenames(files: &[&str]) -> impl Iterator<Item = String> {
    files.iter().map(|file| format!("--filename={}", manifests().join(file).display()))
}

/// The arguments of `kubectl apply` or `kubectl diff`.
fn arguments(verb: &str, apply: Apply, files: &[&str]) -> Vec<String> {
    let server_side = format!("--server-side={}", apply == Apply::ServerSide);
    let validate = (verb == "apply").then(|| "--validate=strict".to_owned());
    [verb.to_owned(), server_side].into_iter().chain(validate).chain(filenames(files)).collect()
}

/// kubectl with an API server of its version.
struct Kubectl(EmptyServer);

impl Kubectl {
    fn output(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
        let mut command = Command::new("kubectl");
        let command = self.0.environment(command.args(arguments))?;
        command.output().with_context(|| format!("{command:?} cannot be run: KUBEBUILDER_ASSETS must have kubectl"))
    }

    /// Returns the standard output.
    fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        Ok(self.run_with_warnings(arguments)?.0)
    }

    /// Returns the standard output, and the standard error output, which has the warnings.
    fn run_with_warnings(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<(String, String)> {
        let output = self.output(arguments)?;
        let (printed, errors) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "{}\n{printed}{errors}", output.status);
        Ok((printed, errors))
    }

    fn server_minor(&self) -> Result<u32> {
        let versions: Value = serde_json::from_str(&self.run(["version", "--output=json"])?)?;
        let minor = versions.pointer("/serverVersion/minor").and_then(Value::as_str).context("no version")?;
        Ok(minor.trim_end_matches('+').parse()?)
    }

    fn wait_for_definitions(&self) -> Result<()> {
        self.run(["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).map(drop)
    }

    fn apply_all_twice(&self, apply: Apply) -> Result<()> {
        let minor = self.server_minor()?;
        for step in STEPS {
            let newer = step[0].starts_with("deploy/from-1.35/");
            let applied = match newer && minor < 35 {
                true => self.is_refused(apply, step),
                false if apply == Apply::ClientSide => {
                    self.apply_twice(apply, step, minor).and_then(|()| self.take_over(step))
                }
                false => self.apply_twice(apply, step, minor),
            };
            applied.with_context(|| format!("{apply:?} of {step:?}"))?;
        }
        Ok(())
    }

    /// With strict validation, an API server before 1.35 refuses the field.
    fn is_refused(&self, apply: Apply, files: &[&str]) -> Result<()> {
        let output = self.output(arguments("apply", apply, files))?;
        let errors = text(&output.stderr);
        ensure!(!output.status.success() && errors.contains(IN_SECRETS), "{errors}");
        Ok(())
    }

    fn apply_twice(&self, apply: Apply, files: &[&str], minor: u32) -> Result<()> {
        let warned = minor >= 35 && files.iter().any(|file| BEFORE_1_35.contains(file));
        // The API server warns only when a file creates the object.
        self.run(["delete", "csidriver", "--all"])?;
        let (_, warnings) = self.run_with_warnings(arguments("apply", apply, files))?;
        ensure!(only_warnings(&warnings)? == usize::from(warned), "{warnings}");
        if files.iter().any(|file| file.contains("crds")) {
            // A controller of the API server writes their status.
            self.wait_for_definitions()?;
        }
        let before = self.versions(files)?;
        let (printed, warnings) = self.run_with_warnings(arguments("apply", apply, files))?;
        ensure!(warnings.is_empty(), "{warnings}");
        let word = if apply == Apply::ClientSide { "unchanged" } else { "serverside-applied" };
        let lines: Vec<&str> = printed.lines().collect();
        ensure!(lines.len() == before.len() && lines.iter().all(|line| line.ends_with(word)), "{printed}");
        let after = self.versions(files)?;
        ensure!(before == after, "resource versions {before:?}, then {after:?}");
        self.is_equal(apply, files)
    }

    /// Checks that `kubectl diff` prints nothing.
    fn is_equal(&self, apply: Apply, files: &[&str]) -> Result<()> {
        let diff = self.output(arguments("diff", apply, files))?;
        let printed = text(&diff.stdout);
        ensure!(diff.status.code() == Some(0) && printed.is_empty(), "kubectl diff: {}\n{printed}", diff.status);
        Ok(())
    }

    /// Applies objects server-side that were applied client-side.
    fn take_over(&self, files: &[&str]) -> Result<()> {
        let (_, warnings) = self.run_with_warnings(arguments("apply", Apply::ServerSide, files))?;
        ensure!(warnings.is_empty(), "{warnings}");
        self.is_equal(Apply::ServerSide, files)
    }

    /// The resource version of each object in these files, by kind and name.
    fn versions(&self, files: &[&str]) -> Result<BTreeMap<String, String>> {
        let get = ["get", "--output=json"].map(str::to_owned);
        let found: Value = serde_json::from_str(&self.run(get.into_iter().chain(filenames(files)))?)?;
        let items = found["items"].as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
        let version = |item: &Value| {
            let text = |path: &str| item.pointer(path).and_then(Value::as_str).map(str::to_owned);
            let name = format!("{} {}", text("/kind")?, text("/metadata/name")?);
            Some((name, text("/metadata/resourceVersion")?))
        };
        items.iter().map(|item| version(item).context("an object without a version")).collect()
    }

    /// Deletes every object of the manifests; the definitions last, because they serve the classes.
    fn delete_all(&self) -> Result<()> {
        for step in STEPS.iter().rev() {
            let delete = ["delete", "--ignore-not-found", "--timeout=60s"].map(str::to_owned);
            let output = self.output(delete.into_iter().chain(filenames(step)))?;
            let errors = text(&output.stderr);
            // A test that failed early has no definitions.
            ensure!(output.status.success() || errors.contains("no matches for kind"), "{step:?}: {errors}");
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The number of warnings about the one field; there may be nothing else.
fn only_warnings(errors: &str) -> Result<usize> {
    let known = |line: &str| line.starts_with("Warning: ") && line.contains(IN_SECRETS);
    ensure!(errors.lines().all(known), "{errors}");
    Ok(errors.lines().count())
}
