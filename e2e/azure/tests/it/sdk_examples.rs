//! The tests of docs/azure-emulator-sdks.md, as a user runs them: the page's files, the program of
//! the emulator with the page's options, and the page's command for each language.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::sdk_machine::{Machine, node, tool};

const NAMES: &[&str] = &["login.microsoftonline.com", "demo-vault.vault.azure.net"];

/// The emulator as a program, which ends when its standard input closes.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn page() -> String {
    std::fs::read_to_string(docs().join("azure-emulator-sdks.md")).unwrap()
}

/// The code blocks of the page with this language.
fn blocks(language: &str) -> Vec<String> {
    let page = page();
    let fence = format!("```{language}\n");
    let starts = page.split(&fence).skip(1);
    starts.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The page shows the file.
fn example(language: &str, file: &str) -> String {
    let text = std::fs::read_to_string(docs().join("examples/azure-emulator").join(file)).unwrap();
    assert_eq!(blocks(language), std::slice::from_ref(&text), "{file}");
    assert!(page().contains(&format!("`{file}`")));
    text
}

/// The only command of the page with this word.
fn command(word: &str) -> String {
    let blocks = blocks("sh").concat();
    let lines: Vec<_> = blocks.lines().filter(|line| line.contains(word)).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].to_owned()
}

/// Starts the emulator with the options of the page, and waits until it is ready.
fn start(machine: &Machine) -> Program {
    machine.write("seed.json", example("json", "seed.json"));
    assert_eq!(command("/etc/hosts"), format!("echo \"127.0.0.1 {}\" | sudo tee -a /etc/hosts", NAMES.join(" ")));
    let line = command("sudo azure-emulator");
    let options = line.strip_prefix("sudo azure-emulator ").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_azure-emulator"))
        .args(options.split(' '))
        .arg("--until-stdin-closes")
        .current_dir(machine.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let program = Program(child);
    assert_eq!(ready, "azure-emulator ready: https on 127.0.0.1:443, admin http://127.0.0.1:8440\n");
    program
}

/// Runs a command of the page, in which `program` is the one of the tests.
fn run(machine: &Machine, line: &str, program: &str, path: &Path) -> String {
    let (variable, rest) = line.split_once(' ').unwrap();
    let rest = rest.strip_prefix(program).unwrap();
    let line = format!("{variable} exec '{}'{rest}", path.display());
    let output =
        Command::new("timeout").args(["300", "sh", "-c", &line]).current_dir(machine.path("")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {}\n{text}", output.status);
    text.into_owned()
}

#[test]
fn the_example_in_go_works() {
    Machine::run_without_emulator(NAMES, |machine| {
        let _emulator = start(machine);
        example("go", "example_test.go");
        // Compiled beforehand by e2e/tools, since a private network has no modules to load.
        let text = run(machine, &(command("go test") + " -test.v"), "go test", &tool("azure-emulator-example"));
        assert!(text.contains("--- PASS: TestThrottledReadIsRepeated"), "{text}");
    });
}

#[test]
fn the_example_in_python_works() {
    Machine::run_without_emulator(NAMES, |machine| {
        let _emulator = start(machine);
        machine.write("test_example.py", example("python", "test_example.py"));
        let python = std::env::var("KEYVAULT_CSI_PYTHON").expect("KEYVAULT_CSI_PYTHON is not set: run `make test`");
        let text = run(machine, &command("python3"), "python3", Path::new(&python));
        assert!(text.contains("Ran 1 test") && text.contains("\nOK"), "{text}");
    });
}

#[test]
fn the_example_in_javascript_works() {
    Machine::run_without_emulator(NAMES, |machine| {
        let _emulator = start(machine);
        machine.write("example.test.mjs", example("js", "example.test.mjs"));
        machine.link_node_modules();
        let text = run(machine, &command("node --test"), "node", &node());
        assert!(text.contains("tests 1\n") && text.contains("pass 1\n"), "{text}");
    });
}
