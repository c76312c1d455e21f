//! PEM: text blocks around binary data, taken apart and written again.
//!
//! Reads and writes as Go's `encoding/pem` does, on which upstream stands
//! (docs/reference/azure-provider.md#separate-files); does not look into a block's bytes, and wipes
//! them on drop. Control goes back to `provider`, which knows what a block is for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::encoding::{self, Bytes};

/// Text that is wiped on drop.
pub type Text = Zeroizing<String>;

/// The label of a certificate's block.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a PKCS#8 private key's block.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";
/// The label of a SubjectPublicKeyInfo's block.
pub const PUBLIC_KEY: &str = "PUBLIC KEY";

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The bytes that make a line of 64 columns.
const LINE: usize = 48;

/// The header that comes first; the others follow in alphabetic order.
const PROC_TYPE: &str = "Proc-Type";

/// One block.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// The words after `BEGIN`.
    pub label: String,
    /// The header lines before the data, such as those of an encrypted key, as name and value.
    pub headers: Vec<(String, String)>,
    /// The data.
    pub content: Bytes,
}

impl Block {
    /// A block without headers.
    pub fn new(label: &str, content: &[u8]) -> Block {
        Block { label: label.to_owned(), headers: Vec::new(), content: Zeroizing::new(content.to_vec()) }
    }

    /// Whether this is a certificate, and not a key or something else.
    pub fn is_certificate(&self) -> bool {
        self.label == CERTIFICATE
    }
}

/// What a text holds.
#[derive(Default)]
pub struct Parsed {
    /// The blocks in the order of the text.
    pub blocks: Vec<Block>,
    /// How many blocks begin but cannot be read; upstream drops them without a word.
    pub damaged: usize,
}

/// Takes a text apart; what stands outside of blocks is dropped, and a block that cannot be read is only counted.
///
/// A block ends before the next line that begins one, so that the time is linear in the text: a block that looks for
/// its end through all that follow makes it quadratic (CVE-2025-61723 of Go's encoding/pem).
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut rest = text;
    let mut next = find_line(rest, BEGIN);
    while let Some(at) = next {
        let start = &rest[at + BEGIN.len()..];
        let following = find_line_behind(start, BEGIN);
        match block(&start[..following.unwrap_or(start.len())]) {
            Some(block) => parsed.blocks.push(block),
            None => parsed.damaged += 1,
        }
        (rest, next) = (start, following);
    }
    parsed
}

/// Writes blocks one after the other: 64 columns, line feeds, nothing between them.
pub fn encode<'a>(blocks: impl IntoIterator<Item = &'a Block> + Clone) -> Text {
    // One allocation, so that growing leaves no copies behind.
    let size = blocks.clone().into_iter().map(written_len).sum();
    let mut text = Zeroizing::new(String::with_capacity(size));
    blocks.into_iter().for_each(|block| write(block, &mut text));
    text
}

/// Where a line starts with `word`.
fn find_line(text: &str, word: &str) -> Option<usize> {
    if text.starts_with(word) { Some(0) } else { find_line_behind(text, word) }
}

/// Where a line behind the first one starts with `word`.
fn find_line_behind(text: &str, word: &str) -> Option<usize> {
    let at = text.match_indices(word).find(|(at, _)| text.as_bytes().get(at.wrapping_sub(1)) == Some(&b'\n'));
    at.map(|(at, _)| at)
}

/// The first line without what is blank at its end, and what follows it.
fn line(text: &str) -> (&str, &str) {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    (line.trim_end_matches([' ', '\t', '\r']), rest)
}

/// Reads a block from behind its `-----BEGIN `; what follows its last line is dropped.
fn block(text: &str) -> Option<Block> {
    let (first, mut rest) = line(text);
    let label = first.strip_suffix(DASHES)?;
    let mut headers = Vec::new();
    while let ((header, behind), false) = (line(rest), rest.is_empty()) {
        let Some((name, value)) = header.split_once(':') else { break };
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
        rest = behind;
    }
    let end = find_line(rest, END)?;
    let (last, _) = line(&rest[end + END.len()..]);
    if last.strip_suffix(DASHES)? != label {
        return None;
    }
    let body: Text = Zeroizing::new(rest[..end].chars().filter(|c| !matches!(c, ' ' | '\t')).collect());
    let content = encoding::base64(&body).ok()?;
    Some(Block { label: label.to_owned(), headers, content })
}

fn written_len(block: &Block) -> usize {
    let headers: usize = block.headers.iter().map(|(name, value)| name.len() + value.len() + 3).sum();
    let lines = block.content.len().div_ceil(LINE);
    let body = block.content.len().div_ceil(3) * 4 + lines;
    BEGIN.len() + END.len() + 2 * (block.label.len() + DASHES.len() + 1) + headers + 1 + body
}

fn write(block: &Block, text: &mut String) {
    text.extend([BEGIN, &block.label, DASHES, "\n"]);
    let mut headers: Vec<_> = block.headers.iter().collect();
    headers.sort_by_key(|(name, _)| (name != PROC_TYPE, name));
    for (name, value) in &headers {
        text.extend([name, ": ", value.as_str(), "\n"]);
    }
    if !headers.is_empty() {
        text.push('\n');
    }
    for chunk in block.content.chunks(LINE) {
        STANDARD.encode_string(chunk, text);
        text.push('\n');
    }
    text.extend([END, &block.label, DASHES, "\n"]);
}
