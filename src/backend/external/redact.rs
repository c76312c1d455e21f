//! Pure. Removes the secrets of a request from a provider's messages.
//!
//! Providers may quote anything in an error, and the error becomes an event and a log line. A
//! secret is redacted in each form in which programs print it (`forms`), whole or any run of 16
//! characters of such a form. Public text stays readable: `clientid`, the class's parameters,
//! well-known URLs, and the header lines of PEM.
//!
//! # Guarantees
//! The work is linear in the size of the secrets and of the parameters, and bounded by [`TEXT`] for
//! the provider's text.

mod forms;
mod index;
mod values;
mod views;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::index::{Index, Matches, window};
use self::values::Values;
use self::views::View;
use super::limits;
use crate::model::{Caller, ExposeSecret as _};

/// Replaces a secret.
const STRIPPED: &str = "***stripped***";

/// Replaces a text that cannot be redacted within bounds.
const WITHHELD: &str =
    "***stripped*** (the Secret has more short values than can be looked for; see the provider's log)";

/// How much of a provider's text is read, in bytes: more than is ever shown.
const TEXT: usize = 16 << 10;

/// How much of the end of a text that was truncated at [`TEXT`] is dropped: the end may be half a
/// secret.
const TAIL: usize = 64;

/// The length of a run of a secret that is redacted, in characters.
const RUN: usize = 16;

/// The length that is searched for: the first or the last of the 16 may be a quote.
const PLAIN_RUN: usize = RUN - 1;

/// The same for base64, where the first and the last of the 16 may have bits of neighbours.
const BASE64_RUN: usize = RUN - 2;

/// Shorter values are not redacted from messages: they would match by chance.
const SHORTEST: usize = 4;

/// Shorter values are also redacted in halves.
const HALVED: usize = 2 * RUN;

/// Below this length, the rest of a run next to a readable text stays if it has no letter and no
/// digit: quotes and commas.
const PUNCTUATION: usize = 4;

/// Removes the secrets of one request from texts. Collects them only once there is a message.
pub(super) struct Redactor<'a> {
    parameters: &'a BTreeMap<String, String>,
    caller: &'a Caller,
}

/// The encodings that a text is searched in; each has views of the text of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Encoding {
    /// The value itself, and as JSON and URLs escape it.
    Plain,
    Base64,
    Hex,
}

const ENCODINGS: [Encoding; 3] = [Encoding::Plain, Encoding::Base64, Encoding::Hex];

impl<'a> Redactor<'a> {
    /// For a request with these parameters of the class, made for this caller.
    pub(super) fn new(parameters: &'a BTreeMap<String, String>, caller: &'a Caller) -> Redactor<'a> {
        Redactor { parameters, caller }
    }

    /// A provider's message without secrets, on one line, at most [`limits::MESSAGE`] characters.
    pub(super) fn redact(&self, text: &str) -> String {
        self.redact_to(limits::MESSAGE, text)
    }

    /// The same with another limit, in characters.
    pub(super) fn redact_to(&self, limit: usize, text: &str) -> String {
        let read = &text[..text.floor_char_boundary(TEXT)];
        let Some(mask) = self.mask(read) else { return WITHHELD.chars().take(limit).collect() };
        let shown = match read.len() < text.len() {
            true => read.floor_char_boundary(TEXT - TAIL),
            false => read.len(),
        };
        masked(&read[..shown], &mask).take(limit).collect()
    }

    /// Which bytes of `text` are secret; `None` if there are too many values to look for.
    fn mask(&self, text: &str) -> Option<Vec<bool>> {
        let mut mask = vec![false; text.len()];
        let values = self.values();
        if text.is_empty() || values.is_empty() {
            return Some(mask);
        }
        let whole = values.short()?;
        let view = View::of(text);
        for encoding in ENCODINGS {
            let views = encoding.views(&view);
            let mut found = self.runs(encoding, &views, &values, text);
            for (length, patterns) in patterns(encoding, text, whole, values.long()) {
                self.wholes(encoding, text, &views, length, &patterns, &mut found);
            }
            if encoding == Encoding::Base64 {
                found = widened(&found, text.as_bytes());
            }
            mask.iter_mut().zip(found).for_each(|(mask, found)| *mask |= found);
        }
        Some(mask)
    }

    /// Masks every run of a secret's form that is not also one of a public text.
    fn runs(&self, encoding: Encoding, views: &[View], values: &Values<'_>, text: &str) -> Vec<bool> {
        let mut mask = vec![false; text.len()];
        let index = Index::new(views, encoding.run());
        let mut secret = Matches::of(&index);
        values.all().for_each(|value| encoding.scan(text, value, &mut secret));
        if !secret.any() {
            return mask;
        }
        let mut public = Matches::of(&index);
        self.public().for_each(|known| encoding.scan_public(text, known, &mut public));
        secret.spans().for_each(|span| mask[span].fill(true));
        let mut readable = vec![false; text.len()];
        public.spans().for_each(|span| readable[span].fill(true));
        without(&mut mask, &readable, text.as_bytes());
        mask
    }

    /// Masks every occurrence of these patterns of one length that is not also part of a public
    /// text.
    fn wholes(
        &self,
        encoding: Encoding,
        text: &str,
        views: &[View],
        length: usize,
        patterns: &BTreeSet<u128>,
        mask: &mut [bool],
    ) {
        let index = Index::new(views, length);
        let mut secret = Matches::of(&index);
        patterns.iter().for_each(|pattern| secret.see(*pattern));
        if !secret.any() {
            return;
        }
        let mut public = Matches::of(&index);
        self.public().for_each(|known| encoding.scan_public(text, known, &mut public));
        secret.without(&public).spans().for_each(|span| mask[span].fill(true));
    }

    /// The values that must not be shown.
    fn values(&self) -> Values<'a> {
        let sent = self.caller.sent_tokens();
        let tokens = [sent.in_secrets(), sent.in_attributes()].into_iter().flatten();
        let credentials = self.caller.credentials().iter().filter(|(key, _)| !is_public(key)).map(|(_, value)| value);
        let mut values = Values::default();
        credentials.chain(tokens).for_each(|value| values.add(value.expose_secret()));
        values
    }

    /// Text that readers of the class know, or that is public.
    fn public(&self) -> impl Iterator<Item = &'a str> {
        let ids = self.caller.credentials().iter().filter(|(key, _)| is_public(key)).map(|(_, id)| id.expose_secret());
        let parameters = self.parameters.values().map(String::as_str);
        parameters.chain(ids).chain(values::WELL_KNOWN.iter().copied())
    }
}

/// A client id is not a secret, and error texts name it.
fn is_public(key: &str) -> bool {
    key.eq_ignore_ascii_case("clientid")
}

impl Encoding {
    fn run(self) -> usize {
        match self {
            Encoding::Plain => PLAIN_RUN,
            Encoding::Base64 => BASE64_RUN,
            Encoding::Hex => RUN,
        }
    }

    /// The views of a text that are searched for this encoding.
    fn views(self, text: &View) -> Vec<View> {
        match self {
            Encoding::Plain => {
                let views = text.decoded().into_iter().map(|view| view.folded());
                views.flat_map(|view| [view.squeezed(), view]).collect()
            }
            // Encoders break lines, and base64 may be in a URL.
            Encoding::Base64 => text.decoded().iter().map(|view| view.squeezed().base64()).collect(),
            Encoding::Hex => vec![text.hex().folded()],
        }
    }

    /// Looks for each form of a value in this encoding that the text may have.
    fn scan(self, text: &str, value: &str, matches: &mut Matches<'_, '_>) {
        for form in forms::of(self, text) {
            if form.applies(value) {
                matches.begin();
                form.write(value, &mut |byte| matches.push(byte));
            }
        }
    }

    /// Looks for public text, which may itself be in this encoding.
    fn scan_public(self, text: &str, known: &str, matches: &mut Matches<'_, '_>) {
        if self == Encoding::Plain {
            return self.scan(text, known, matches);
        }
        matches.begin();
        for byte in known.bytes() {
            matches.push(if self == Encoding::Hex { byte.to_ascii_lowercase() } else { forms::standard(byte) });
        }
    }
}

/// The patterns that are looked for as a whole, by length: forms of values shorter than a run, and
/// halves of values of at most two runs.
fn patterns(
    encoding: Encoding,
    text: &str,
    short: &BTreeSet<String>,
    long: &[std::borrow::Cow<'_, str>],
) -> BTreeMap<usize, BTreeSet<u128>> {
    let mut patterns: BTreeMap<usize, BTreeSet<u128>> = BTreeMap::new();
    let mut add = |form: &[u8]| {
        patterns.entry(form.len()).or_default().insert(window(form));
    };
    for value in short {
        for form in forms::of(encoding, text).filter(|form| form.applies(value)) {
            let mut written = Vec::new();
            form.write_known(value, &mut |byte| written.push(byte));
            if (SHORTEST..encoding.run()).contains(&written.len()) {
                add(&written);
            }
        }
    }
    if encoding == Encoding::Plain {
        for value in long.iter().filter(|value| value.len() < HALVED) {
            let half = value.len().div_ceil(2);
            // The scheme of a URL and the beginning of its host are not secret.
            let telling = |half: &&[u8]| half.len() < PLAIN_RUN && !half.windows(3).any(|bytes| bytes == b"://");
            value.to_ascii_lowercase().as_bytes().windows(half).filter(telling).for_each(&mut add);
        }
    }
    patterns
}

/// Takes readable text out of the mask, with the quotes and commas around it that the secret also
/// has.
fn without(mask: &mut [bool], readable: &[bool], text: &[u8]) {
    mask.iter_mut().zip(readable).for_each(|(mask, readable)| *mask &= !readable);
    let mut at = 0;
    for piece in mask.chunk_by_mut(|a, b| a == b) {
        let (begin, end) = (at, at + piece.len());
        at = end;
        let beside = (begin > 0 && readable[begin - 1]) || readable.get(end) == Some(&true);
        let plain = !text[begin..end].iter().any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
        if beside && plain && piece.len() < PUNCTUATION {
            piece.fill(false);
        }
    }
}

/// The mask, extended by the base64 characters next to it, which may have bits of the secret.
fn widened(mask: &[bool], text: &[u8]) -> Vec<bool> {
    let near = |at: usize| at.checked_sub(1).is_some_and(|at| mask[at]) || mask.get(at + 1) == Some(&true);
    let extended = |at: usize| forms::is_base64(text[at]) && near(at);
    (0..mask.len()).map(|at| mask[at] || extended(at)).collect()
}

/// The text on one line, with one mark for each masked stretch.
fn masked<'t>(text: &'t str, mask: &'t [bool]) -> impl Iterator<Item = char> + 't {
    let mut hidden = false;
    text.char_indices().flat_map(move |(at, c)| {
        let secret = mask[at..at + c.len_utf8()].contains(&true);
        let mark = if secret && !hidden { STRIPPED } else { "" };
        hidden = secret;
        mark.chars().chain((!secret).then_some(if c.is_control() { ' ' } else { c }))
    })
}
