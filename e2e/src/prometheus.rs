//! Prometheus as a process, and its HTTP API; `promtool`; and an HTTP proxy through which a
//! Prometheus without `scrape_protocols` gets the classic text.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use url::{Position, Url};

use crate::driver::{http, http_get};
use crate::process::Process;

/// The label values of one series.
pub type Labels = BTreeMap<String, String>;

/// A running Prometheus. Dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: String,
}

/// The path of one of the programs that `e2e/tools` prints.
///
/// # Errors
/// The environment names no directory of tools.
pub fn tool(name: &str) -> Result<PathBuf> {
    let tools = std::env::var_os("KEYVAULT_CSI_TOOLS").context(
        "KEYVAULT_CSI_TOOLS is not set: run `make test`, or set it to the directory that `e2e/tools` prints",
    )?;
    Ok(Path::new(&tools).join("bin").join(name))
}

/// Output and success of `promtool` with these arguments and this input.
///
/// # Errors
/// It cannot be started.
pub fn promtool(arguments: &[&str], input: &str) -> Result<(bool, String)> {
    let mut command = Command::new(tool("promtool")?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().context("cannot start promtool")?;
    // Dropped after the write, which ends the input. Where it reads none, the write may fail.
    let _ = process.stdin.take().context("no input")?.write_all(input.as_bytes());
    let output = process.wait_with_output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

impl Prometheus {
    /// Starts it with this configuration and its data in `folder`, and waits until it is ready at
    /// this address.
    ///
    /// # Errors
    /// It exits, or is not ready in time; the text has its output.
    pub fn start(folder: &Path, address: &str, configuration: &Value) -> Result<Prometheus> {
        fs::create_dir_all(folder)?;
        let file = folder.join("prometheus.yml");
        // Every JSON text is YAML.
        fs::write(&file, configuration.to_string())?;
        let mut command = Command::new(tool("prometheus")?);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=debug")
            .stdin(Stdio::null());
        let ready = || http_get(address, "/-/ready").is_ok_and(|(status, _)| status == 200);
        let (process, _) = Process::start(command, &folder.join("prometheus.log"), ready)?;
        Ok(Prometheus { process, address: address.to_owned() })
    }

    /// Its output so far, with debug messages.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The data of a response of its HTTP API.
    ///
    /// # Errors
    /// No response, or an error.
    pub fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = Url::parse_with_params(&format!("http://{}/api/v1/{path}", self.address), parameters)?;
        // HTTP/1.0 has no chunks.
        let response = http(&self.address, &format!("GET {} HTTP/1.0\r\n\r\n", &url[Position::BeforePath..]))?;
        let (_, body) = response.split_once("\r\n\r\n").context("no HTTP response")?;
        let mut answer: Value = serde_json::from_str(body).with_context(|| response.clone())?;
        ensure!(answer["status"] == "success", "{path} {parameters:?}: {answer}");
        Ok(answer["data"].take())
    }

    /// The series that a PromQL expression yields now.
    ///
    /// # Errors
    /// The expression is wrong, or is no vector.
    pub fn query(&self, expression: &str) -> Result<Vec<(Labels, f64)>> {
        let data = self.api("query", &[("query", expression)])?;
        let series = data["result"].as_array().context("no result")?.iter().map(|series| {
            let value = series["value"][1].as_str().context("no value")?.parse()?;
            Ok((serde_json::from_value(series["metric"].clone())?, value))
        });
        series.collect()
    }
}

/// Starts an HTTP proxy that forwards each GET without its headers, so also without `Accept`;
/// it runs until the process exits.
///
/// # Errors
/// It cannot listen on the address.
pub fn start_proxy_without_headers(address: &str) -> Result<()> {
    serve(address, |target| {
        let url = Url::parse(target)?;
        let host = &url[Position::BeforeHost..Position::AfterPort];
        let request = format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", &url[Position::BeforePath..]);
        http(host, &request)
    })
}

/// Starts an HTTP server that responds to each GET with the text of its path as a page of metrics
/// in the classic format; it runs until the process exits.
///
/// # Errors
/// It cannot listen on the address.
pub fn start_pages(address: &str, pages: &'static [(&str, &str)]) -> Result<()> {
    serve(address, |target| {
        let page = pages.iter().find(|(path, _)| *path == target);
        let (_, text) = page.with_context(|| format!("no page {target}"))?;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
        Ok(format!("{head}\r\n\r\n{text}"))
    })
}

/// Serves one GET for each connection with the response for its request target.
fn serve(address: &str, response: impl Fn(&str) -> Result<String> + Copy + Send + 'static) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            // Without a response the client fails, and its test with it.
            std::thread::spawn(move || serve_one(&stream, response));
        }
    });
    Ok(())
}

fn serve_one(mut stream: &TcpStream, response: impl Fn(&str) -> Result<String>) -> Result<()> {
    let head: Vec<String> = BufReader::new(stream)
        .lines()
        .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
        .collect::<Result<_, _>>()?;
    let mut words = head.first().context("no request")?.split(' ');
    match (words.next(), words.next()) {
        (Some("GET"), Some(target)) => Ok(stream.write_all(response(target)?.as_bytes())?),
        _ => bail!("not a GET: {head:?}"),
    }
}
