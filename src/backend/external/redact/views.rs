//! Pure. Views of a text without line breaks, escapes or separators, with the place of each byte in
//! the text.

use std::ops::Range;

use super::forms::standard;

/// How many layers of escapes are removed: JSON in JSON, in a URL.
const LAYERS: usize = 3;

/// A changed text, with the place of each of its bytes in the original.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct View {
    bytes: Vec<u8>,
    spans: Vec<(usize, usize)>,
}

impl View {
    pub(super) fn of(text: &str) -> View {
        View { bytes: text.as_bytes().to_vec(), spans: (0..text.len()).map(|at| (at, at + 1)).collect() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where these bytes are in the original; `length` is not 0.
    pub(super) fn span(&self, at: usize, length: usize) -> Range<usize> {
        self.spans[at].0..self.spans[at + length - 1].1
    }

    fn push(&mut self, bytes: &[u8], span: (usize, usize)) {
        self.bytes.extend_from_slice(bytes);
        self.spans.extend(bytes.iter().map(|_| span));
    }

    /// Without regard to case.
    pub(super) fn folded(&self) -> View {
        View { bytes: self.bytes.to_ascii_lowercase(), spans: self.spans.clone() }
    }

    /// Without white space and control characters.
    pub(super) fn squeezed(&self) -> View {
        let mut view = View::default();
        for (byte, span) in self.bytes.iter().zip(&self.spans) {
            if !byte.is_ascii_whitespace() && !byte.is_ascii_control() {
                view.push(&[*byte], *span);
            }
        }
        view
    }

    /// With the standard alphabet of base64 in place of the URL-safe one.
    pub(super) fn base64(&self) -> View {
        View { bytes: self.bytes.iter().copied().map(standard).collect(), spans: self.spans.clone() }
    }

    /// Without the separators of a hex dump: white space, `:`, `-`, `,`, `0x` and `\x`.
    pub(super) fn hex(&self) -> View {
        let (mut view, mut at) = (View::default(), 0);
        while let Some(byte) = self.bytes.get(at) {
            match (byte, self.bytes.get(at + 1)) {
                (b'0' | b'\\', Some(b'x' | b'X')) => at += 1,
                (b':' | b'-' | b',', _) => {}
                (byte, _) if byte.is_ascii_whitespace() => {}
                _ => view.push(&[*byte], self.spans[at]),
            }
            at += 1;
        }
        view
    }

    /// The text, and the text with one layer of escapes after the other removed.
    pub(super) fn decoded(&self) -> Vec<View> {
        let mut views = vec![self.clone()];
        while views.len() <= LAYERS
            && let Some(next) = views.last().and_then(View::unescaped)
        {
            views.push(next);
        }
        views
    }

    /// With the escapes of JSON, URLs and programming languages decoded; `None` without escapes.
    fn unescaped(&self) -> Option<View> {
        let (mut view, mut at, mut any) = (View::default(), 0, false);
        while let Some(byte) = self.bytes.get(at) {
            let escape = match byte {
                b'%' => hex(self.bytes.get(at + 1..at + 3)).map(|code| (vec![code as u8], 3)),
                b'\\' => backslash(&self.bytes[at + 1..]).map(|(bytes, length)| (bytes, length + 1)),
                _ => None,
            };
            any |= escape.is_some();
            let (bytes, length) = escape.unwrap_or_else(|| (vec![*byte], 1));
            view.push(&bytes, (self.spans[at].0, self.spans[at + length - 1].1));
            at += length;
        }
        any.then_some(view)
    }
}

/// The value and the length of the escape after a backslash.
fn backslash(after: &[u8]) -> Option<(Vec<u8>, usize)> {
    let simple = |byte: u8| Some((vec![byte], 1));
    match after.first()? {
        b'n' => simple(b'\n'),
        b'r' => simple(b'\r'),
        b't' => simple(b'\t'),
        b'b' => simple(8),
        b'f' => simple(12),
        byte @ (b'"' | b'\'' | b'\\' | b'/') => simple(*byte),
        b'x' => hex(after.get(1..3)).map(|code| (vec![code as u8], 3)),
        b'u' if after.get(1) == Some(&b'{') => {
            let length = after.iter().take(10).position(|byte| *byte == b'}')?;
            Some((character(hex(after.get(2..length))?)?, length + 1))
        }
        b'u' => {
            let code = hex(after.get(1..5))?;
            let low = || after.get(5..7).filter(|next| next == b"\\u").and_then(|_| hex(after.get(7..11)));
            match code {
                0xD800..0xDC00 => {
                    let low = low().filter(|low| (0xDC00..0xE000).contains(low))?;
                    Some((character(0x1_0000 + ((code - 0xD800) << 10) + (low - 0xDC00))?, 11))
                }
                _ => Some((character(code)?, 5)),
            }
        }
        _ => None,
    }
}

fn hex(digits: Option<&[u8]>) -> Option<u32> {
    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn character(code: u32) -> Option<Vec<u8>> {
    char::from_u32(code).map(|c| c.to_string().into_bytes())
}
