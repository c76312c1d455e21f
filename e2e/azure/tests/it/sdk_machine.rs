//! A machine on which Azure's real names lead to the emulator, for clients that we did not write.
//!
//! Each test gets its own network, in which the emulator has port 443 and the metadata service its
//! real address, so that nothing in an SDK is replaced. Needs root, as other integration tests do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use azure_emulator::{Emulator, Options};
use keyvault_csi_e2e::sandbox;
use serde_json::Value;
use tempfile::TempDir;

/// A folder for the files of a client, and a network of its own.
pub(crate) struct Machine {
    folder: TempDir,
}

impl Machine {
    /// Runs a test on a thread that has a network of its own, in which these names lead to an
    /// emulator. The names of its custom cloud are `login.stack.test` and `*.vault.stack.test`.
    pub(crate) fn run(names: &[&str], test: impl FnOnce(&Machine, &Emulator) + Send) {
        Machine::run_without_emulator(names, |machine| {
            let emulator = Emulator::start(Options {
                listen: "127.0.0.1:443".parse().unwrap(),
                imds: Some("169.254.169.254:80".parse().unwrap()),
                dns_names: vec!["login.stack.test".to_owned(), "*.vault.stack.test".to_owned()],
                ..Options::loopback()
            });
            let emulator = emulator.unwrap();
            machine.write("ca.pem", emulator.ca_pem());
            test(machine, &emulator);
        });
    }

    /// The same, for a test that starts the emulator's program.
    pub(crate) fn run_without_emulator(names: &[&str], test: impl FnOnce(&Machine) + Send) {
        let body = || {
            let machine = Machine { folder: tempfile::tempdir().unwrap() };
            let hosts = sandbox::hosts_file(names.iter().copied());
            sandbox::enter(machine.folder.path(), &hosts, "").unwrap();
            test(&machine);
        };
        let ended = std::thread::scope(|scope| scope.spawn(body).join());
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Runs a script of `tests/python` in the folder; returns the JSON document that it prints.
    pub(crate) fn python(&self, script: &str, arguments: &[&str]) -> Value {
        let python = std::env::var("KEYVAULT_CSI_PYTHON")
            .expect("KEYVAULT_CSI_PYTHON must name a Python with tests/python/requirements.txt: run `make test`");
        let script = tests().join("python").join(script);
        // The script would leave its bytecode in the checkout.
        self.client(&python, &["-B", script.to_str().unwrap()], arguments)
    }

    /// The same with a script of `tests/javascript`.
    pub(crate) fn javascript(&self, script: &str, arguments: &[&str]) -> Value {
        self.link_node_modules();
        // Node.js looks for packages in the folder of the script.
        for file in std::fs::read_dir(tests().join("javascript")).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|extension| extension == "mjs") {
                std::fs::copy(&file, self.path(file.file_name().unwrap().to_str().unwrap())).unwrap();
            }
        }
        self.client(node().to_str().unwrap(), &[script], arguments)
    }

    /// Makes the SDKs importable for scripts in the folder.
    pub(crate) fn link_node_modules(&self) {
        let node = node();
        let modules = node.ancestors().find(|path| path.ends_with("node_modules")).unwrap();
        std::os::unix::fs::symlink(modules, self.path("node_modules")).unwrap();
    }

    /// A command in the folder whose clients trust the emulator.
    fn command(&self, program: &str) -> Command {
        let ca = self.path("ca.pem");
        // No client may wait for ever.
        let mut command = Command::new("timeout");
        command.args(["300", program]).current_dir(self.folder.path());
        for name in ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
            command.env(name, &ca);
        }
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name);
        }
        command
    }

    fn client(&self, program: &str, first: &[&str], arguments: &[&str]) -> Value {
        let output = self.command(program).args(first).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{first:?}: {}\n{text}\n{errors}", output.status);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{first:?}: {error}\n{text}\n{errors}"))
    }
}

/// The folder with the clients.
pub(crate) fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Node.js, inside the folder of its package.
pub(crate) fn node() -> PathBuf {
    tool("node")
}

/// A program that e2e/tools built.
pub(crate) fn tool(name: &str) -> PathBuf {
    let tools = std::env::var("KEYVAULT_CSI_TOOLS").unwrap_or_else(|_| {
        panic!(
            "KEYVAULT_CSI_TOOLS must name a directory with bin/{name}: run `make test`, or export what e2e/tools prints"
        )
    });
    let path = Path::new(&tools).join("bin").join(name);
    path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}; run e2e/tools", path.display()))
}

/// The versions that a script reports are those that this file pins, in lines like
/// `"name": "1.2.3"` or `name==1.2.3`. Prints them.
pub(crate) fn assert_pinned(report: &Value, file: &str) {
    let text = std::fs::read_to_string(tests().join(file)).unwrap();
    let versions = report["versions"].as_object().unwrap();
    assert!(!versions.is_empty());
    for (name, version) in versions {
        let version = version.as_str().unwrap();
        let pins = [format!("{name}=={version}"), format!("\"{name}\": \"{version}\"")];
        let pinned = text.lines().any(|line| pins.iter().any(|pin| line.trim().trim_end_matches(',') == pin));
        assert!(pinned, "{name} {version} is not what {file} pins");
    }
    // Past the test harness, which keeps what the macros print.
    writeln!(std::io::stderr(), "SDKs of {file}: {}", report["versions"]).unwrap();
}

/// Compares what a client reported with what is expected, and shows the parts that differ.
pub(crate) fn assert_same(what: &str, found: &Value, expected: &Value) {
    let mut differences = Vec::new();
    compare(what, found, expected, &mut differences);
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

fn compare(at: &str, found: &Value, expected: &Value, differences: &mut Vec<String>) {
    match (found, expected) {
        (Value::Object(left), Value::Object(right)) => {
            let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for name in names {
                compare(&format!("{at}.{name}"), &found[name], &expected[name], differences);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                compare(&format!("{at}[{index}]"), left, right, differences);
            }
        }
        _ if found == expected => {}
        _ => differences.push(format!("{at}: {found}\n  instead of {expected}")),
    }
}
