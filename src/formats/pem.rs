//! Parses and writes PEM: text blocks around binary data.
//!
//! Follows Go's `encoding/pem`, which upstream uses
//! (docs/reference/azure-provider.md#separate-files). Does not interpret the content of a block,
//! and wipes it on drop.

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

/// The bytes in a line of 64 columns.
const LINE: usize = 48;

/// The first header; the others follow in alphabetical order.
const PROC_TYPE: &str = "Proc-Type";

/// A block, decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// The words after `BEGIN`.
    pub label: String,
    /// The header lines before the data, as name and value; encrypted keys have some.
    pub headers: Vec<(String, String)>,
    /// The data between the headers and the last line.
    pub content: Bytes,
}

impl Block {
    /// A block without headers.
    pub fn new(label: &str, content: &[u8]) -> Block {
        Block { label: label.to_owned(), headers: Vec::new(), content: Zeroizing::new(content.to_vec()) }
    }

    /// Whether the label is that of a certificate.
    pub fn is_certificate(&self) -> bool {
        self.label == CERTIFICATE
    }
}

/// The result of [`parse`].
#[derive(Default)]
pub struct Parsed {
    /// The blocks in the order of the text.
    pub blocks: Vec<Block>,
    /// How many blocks begin but cannot be decoded; upstream drops them silently.
    pub damaged: usize,
}

/// Finds the blocks of a text; drops text outside of blocks, and only counts blocks that cannot be
/// decoded.
///
/// A block ends before the next line that begins one, so the time is linear in the text: searching
/// the whole rest of the text for the end of each block would be quadratic (CVE-2025-61723 of Go's
/// encoding/pem).
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut rest = text;
    let mut next = find_line(rest, BEGIN);
    while let Some(at) = next {
        let start = &rest[at + BEGIN.len()..];
        let following = find_later_line(start, BEGIN);
        match block(&start[..following.unwrap_or(start.len())]) {
            Some(block) => parsed.blocks.push(block),
            None => parsed.damaged += 1,
        }
        (rest, next) = (start, following);
    }
    parsed
}

/// Writes blocks without text between them, in lines of 64 columns that end with a line feed.
pub fn encode<'a>(blocks: impl IntoIterator<Item = &'a Block> + Clone) -> Text {
    // One allocation: a growing buffer would leave copies of its content.
    let size = blocks.clone().into_iter().map(written_len).sum();
    let mut text = Zeroizing::new(String::with_capacity(size));
    blocks.into_iter().for_each(|block| write(block, &mut text));
    text
}

/// The offset of the first line that starts with `word`.
fn find_line(text: &str, word: &str) -> Option<usize> {
    if text.starts_with(word) { Some(0) } else { find_later_line(text, word) }
}

/// The same, without the first line of the text.
fn find_later_line(text: &str, word: &str) -> Option<usize> {
    let at = text.match_indices(word).find(|(at, _)| text.as_bytes().get(at.wrapping_sub(1)) == Some(&b'\n'));
    at.map(|(at, _)| at)
}

/// The first line without trailing blanks, and the text after it.
fn line(text: &str) -> (&str, &str) {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    (line.trim_end_matches([' ', '\t', '\r']), rest)
}

/// Decodes a block from the text after its `-----BEGIN `; ignores text after its last line.
fn block(text: &str) -> Option<Block> {
    let (first, mut rest) = line(text);
    let label = first.strip_suffix(DASHES)?;
    let mut headers = Vec::new();
    while let ((header, after), false) = (line(rest), rest.is_empty()) {
        let Some((name, value)) = header.split_once(':') else { break };
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
        rest = after;
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
