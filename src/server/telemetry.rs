//! Structured logs on stderr, in the two formats that upstream's users parse.
//!
//! Text is klog's line (`I1122 03:00:00.000000 1 node.rs:42] "message" key="value"`), JSON is one
//! object for each line (docs/reference/csi-driver.md#logs). Events of other crates are written
//! from warnings up only: their debug output may contain headers.

use std::collections::BTreeMap;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Log keys, each spelled once.
pub mod key {
    /// The pod: `namespace/name`.
    pub const POD: &str = "pod";
    /// The target path of a volume.
    pub const TARGET: &str = "targetPath";
    /// The reason of a failure, from the closed list.
    pub const REASON: &str = "reason";
    /// The text of a failure.
    pub const ERROR: &str = "err";
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// klog's text lines.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr. `verbosity` is klog's `-v`: debug events from 4, all events of this
/// program from 6.
///
/// # Errors
/// Logging was started already.
pub fn start(format: Format, verbosity: u8) -> anyhow::Result<()> {
    let ours = match verbosity {
        0..=3 => LevelFilter::INFO,
        4..=5 => LevelFilter::DEBUG,
        6.. => LevelFilter::TRACE,
    };
    // kube's client logs each failed request as an error; `kubernetes` logs it once, with the fix.
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("kube_client::client::builder", LevelFilter::OFF)
        .with_target("keyvault_csi", ours);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Klog { format });
    tracing_subscriber::registry().with(filter).with(layer).try_init()?;
    Ok(())
}

struct Klog {
    format: Format,
}

impl<S, N> FormatEvent<S, N> for Klog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = jiff::Timestamp::now();
        match self.format {
            Format::Text => write_text(&mut out, now, event.metadata(), &fields),
            Format::Json => write_json(&mut out, now, event.metadata(), fields),
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.pairs.push((name, value)),
        }
    }
}

fn place(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or("unknown");
    format!("{}:{}", file.rsplit('/').next().unwrap_or(file), metadata.line().unwrap_or_default())
}

fn write_text(out: &mut Writer<'_>, now: jiff::Timestamp, metadata: &Metadata<'_>, fields: &Fields) -> fmt::Result {
    let severity = match *metadata.level() {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        Level::INFO | Level::DEBUG | Level::TRACE => 'I',
    };
    let time = now.strftime("%m%d %H:%M:%S.%6f");
    // Debug quoting keeps each event on one line, whatever a value contains.
    write!(out, "{severity}{time} {:>7} {}] {:?}", std::process::id(), place(metadata), fields.message)?;
    for (name, value) in &fields.pairs {
        write!(out, " {name}={value:?}")?;
    }
    out.write_char('\n')
}

fn write_json(out: &mut Writer<'_>, now: jiff::Timestamp, metadata: &Metadata<'_>, fields: Fields) -> fmt::Result {
    let mut object: BTreeMap<&str, String> = fields.pairs.into_iter().collect();
    if let Some(error) = object.remove(key::ERROR) {
        object.insert("error", error);
    }
    object.insert("level", metadata.level().to_string().to_lowercase());
    object.insert("timestamp", now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
    object.insert("caller", place(metadata));
    object.insert("message", fields.message);
    writeln!(out, "{}", serde_json::to_string(&object).map_err(|_| fmt::Error)?)
}
