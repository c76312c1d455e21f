//! Translates command lines in the syntax of Go programs, which upstream's manifests use, for clap
//! (docs/reference/csi-driver.md#flags).
//!
//! Pure: rewrites the arguments before clap parses them, and removes upstream's flags that have no
//! effect here. Clap and the subcommand check the values.
//!
//! # Rules
//! `-x` is `--x`; `--x=v` and `--x v` are the same; a bare boolean means true; the last of several
//! wins (in clap). Unlike in Go, an argument that belongs to no flag is an error: Go would stop
//! there and ignore the flags after it.

use std::ffi::{OsStr, OsString};

use clap::{Command, ValueHint};

/// A flag of upstream that is accepted without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unused {
    /// Without dashes.
    pub(super) name: &'static str,
    /// Why it has no effect, and what to do instead.
    pub(super) why: &'static str,
    boolean: bool,
}

const fn boolean(name: &'static str, why: &'static str) -> Unused {
    Unused { name, why, boolean: true }
}

const fn valued(name: &'static str, why: &'static str) -> Unused {
    Unused { name, why, boolean: false }
}

const NO_PROFILER: &str = "there is no profiler in this program";
const STDERR: &str = "the log goes to standard error, and only there";
const NO_VMODULE: &str = "the verbosity is the same for all modules: use -v";

/// Upstream's flags without effect here.
const UNUSED: &[Unused] = &[
    boolean("enable-pprof", NO_PROFILER),
    valued("pprof-port", NO_PROFILER),
    boolean("logtostderr", STDERR),
    boolean("alsologtostderr", STDERR),
    valued("stderrthreshold", STDERR),
    boolean("one_output", STDERR),
    valued("log_dir", STDERR),
    valued("log_file", STDERR),
    valued("log_file_max_size", STDERR),
    boolean("skip_headers", "each line has its header"),
    boolean("skip_log_headers", STDERR),
    boolean("add_dir_header", "the header names no file"),
    valued("vmodule", NO_VMODULE),
    valued("log_backtrace_at", "there are no backtraces in the log"),
];

/// A command line for clap, and the flags that were removed from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    /// The arguments, the program's name first.
    pub(super) words: Vec<OsString>,
    /// The flags without effect, each once.
    pub(super) unused: Vec<Unused>,
}

/// Rewrites `words` (the program's name first) for their subcommand; without a subcommand they stay
/// as they are.
pub(super) fn translate(command: &Command, words: impl IntoIterator<Item = OsString>) -> Translated {
    let mut words = words.into_iter();
    let mut out: Vec<OsString> = words.by_ref().take(2).collect();
    let role = out.get(1).and_then(|name| command.find_subcommand(name));
    let mut unused: Vec<Unused> = Vec::new();
    while let (Some(role), Some(word)) = (role, words.next()) {
        let Some((name, value)) = flag(&word) else {
            out.push(word);
            continue;
        };
        if let Some(known) = UNUSED.iter().find(|known| known.name == name) {
            if !unused.contains(known) {
                unused.push(*known);
            }
            if !known.boolean && value.is_none() {
                words.next();
            }
            continue;
        }
        let argument = role.get_arguments().find(|argument| {
            argument.get_long() == Some(&name) || argument.get_short().is_some_and(|short| name == short.to_string())
        });
        let Some(argument) = argument else {
            // An unknown flag: clap reports it and suggests similar names.
            out.push(word);
            continue;
        };
        let mut rewritten = OsString::from(match argument.get_long() {
            Some(long) => format!("--{long}"),
            None => format!("-{name}"),
        });
        let takes_value = argument.get_action().takes_values();
        let is_boolean = argument.get_num_args().is_some_and(|count| count.min_values() == 0);
        let value = match value {
            None if takes_value && !is_boolean => words.next(),
            other => other,
        };
        if value.as_ref().is_some_and(|value| value.is_empty()) && argument.get_value_hint() == ValueHint::AnyPath {
            // In Go programs an empty path is the same as none; clap would refuse it.
            continue;
        }
        if let Some(value) = value {
            rewritten.push("=");
            rewritten.push(value);
        }
        out.push(rewritten);
    }
    out.extend(words);
    Translated { words: out, unused }
}

/// The name and the value of a flag; `None` for other arguments and for text that is not UTF-8.
fn flag(word: &OsStr) -> Option<(String, Option<OsString>)> {
    let text = word.to_str()?;
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    let (name, value) = match name.split_once('=') {
        Some((name, value)) => (name, Some(OsString::from(value))),
        None => (name, None),
    };
    (!name.is_empty() && !name.starts_with('-')).then(|| (name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn command() -> Command {
        let node = Command::new("node")
            .args_override_self(true)
            .arg(Arg::new("endpoint").long("endpoint").action(ArgAction::Set))
            .arg(Arg::new("paths").long("sni-name").action(ArgAction::Set))
            .arg(Arg::new("kubeconfig").long("kubeconfig").value_parser(clap::value_parser!(std::path::PathBuf)))
            .arg(Arg::new("v").long("v").short('v').action(ArgAction::Set))
            .arg(
                Arg::new("json")
                    .long("log-format-json")
                    .action(ArgAction::Set)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
            );
        Command::new("keyvault-csi").subcommand(node)
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn translated(line: &str) -> String {
        let words = translate(&command(), words(line)).words;
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn all_of_gos_ways_to_write_a_flag_become_one() {
        for (go, ours) in [
            ("p node -endpoint unix://x", "p node --endpoint=unix://x"),
            ("p node --endpoint unix://x -v 5", "p node --endpoint=unix://x --v=5"),
            ("p node -endpoint=unix://x --v=5", "p node --endpoint=unix://x --v=5"),
            ("p node -log-format-json -v=5", "p node --log-format-json --v=5"),
            ("p node --log-format-json=false", "p node --log-format-json=false"),
            ("p node --sni-name=", "p node --sni-name="),
            ("p node --kubeconfig= -v=1", "p node --v=1"),
            ("p node --kubeconfig=/a -v=1", "p node --kubeconfig=/a --v=1"),
            ("p node --vmodule= -v=1", "p node --v=1"),
            ("p node --endpoint -v=1", "p node --endpoint=-v=1"),
            ("p node --unknown=x word", "p node --unknown=x word"),
            ("p --help", "p --help"),
            ("p", "p"),
        ] {
            assert_eq!(translated(go), ours, "{go}");
        }
    }

    #[test]
    fn flags_without_effect_are_removed_with_their_values() {
        let line = "p node --pprof-port 6065 -logtostderr=true --vmodule=a=1 -logtostderr --log_dir /x --endpoint=e";
        let Translated { words: rewritten, unused } = translate(&command(), words(line));
        assert_eq!(rewritten, words("p node --endpoint=e"));
        let names: Vec<_> = unused.iter().map(|unused| unused.name).collect();
        assert_eq!(names, ["pprof-port", "logtostderr", "vmodule", "log_dir"]);
    }

    #[test]
    fn the_last_of_several_wins() {
        let Translated { words, .. } = translate(&command(), words("p node --endpoint=a -endpoint b --v=1 -v=2"));
        let matches = command().try_get_matches_from(words).unwrap();
        let (_, node) = matches.subcommand().unwrap();
        assert_eq!(node.get_one::<String>("endpoint").map(String::as_str), Some("b"));
        assert_eq!(node.get_one::<String>("v").map(String::as_str), Some("2"));
    }
}
