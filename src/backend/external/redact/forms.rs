//! Pure. The forms in which programs print a value: raw, and in JSON, URLs, base64 and hex.
//!
//! Written byte by byte and never stored, since a Secret may have a megabyte. Plain and hex forms
//! are in lower case, base64 is in the standard alphabet, as in the views of the text.

use super::{Encoding, SHORTEST};

/// A form of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Raw,
    /// Without white space, which texts may lose or change.
    Squeezed,
    Json(Json),
    /// The characters that are not escaped besides letters and digits, and the escape of a space.
    Url(&'static [u8], &'static [u8]),
    /// Every byte escaped.
    AllEscaped,
    /// At this offset from the beginning of a group of three bytes.
    Base64(usize),
    Hex,
}

/// The characters that a JSON encoder escapes although it need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Json {
    Least,
    /// `<`, `>` and `&`, as Go does.
    Html,
    /// All but ASCII, as Python does.
    Ascii,
    /// `/`, as PHP does.
    Slash,
}

const PLAIN: &[Form] = &[
    Form::Raw,
    Form::Squeezed,
    Form::Json(Json::Least),
    Form::Json(Json::Html),
    Form::Json(Json::Ascii),
    Form::Json(Json::Slash),
    // Go's query and most libraries, with both spaces; JavaScript's components; Go's paths; Python;
    // forms; whole URLs; strict ones.
    Form::Url(b"-_.~", b"+"),
    Form::Url(b"-_.~", b"%20"),
    Form::Url(b"-_.~!*'()", b"%20"),
    Form::Url(b"-_.~$&+=:@", b"%20"),
    Form::Url(b"-_.~/", b"%20"),
    Form::Url(b"-_.*", b"+"),
    Form::Url(b"-_.~!*'();/?:@&=+$,#", b"%20"),
    Form::Url(b"", b"%20"),
    Form::AllEscaped,
];

/// The forms of an encoding that a text may have.
pub(super) fn of(encoding: Encoding, text: &str) -> impl Iterator<Item = Form> {
    let forms = match encoding {
        Encoding::Plain => PLAIN,
        Encoding::Base64 => &[Form::Base64(0), Form::Base64(1), Form::Base64(2)],
        Encoding::Hex => &[Form::Hex],
    };
    forms.iter().copied().filter(|form| form.is_possible_in(text))
}

impl Form {
    /// Whether a text can have this form of any value. If not, a Secret of a megabyte is not
    /// scanned.
    pub(super) fn is_possible_in(self, text: &str) -> bool {
        match self {
            Form::Json(_) => text.contains('\\'),
            Form::Url(_, b"+") => text.contains(['%', '+']),
            Form::Url(..) | Form::AllEscaped => text.contains('%'),
            Form::Raw | Form::Squeezed | Form::Base64(_) => true,
            Form::Hex => text.bytes().filter(u8::is_ascii_hexdigit).count() >= 2 * SHORTEST,
        }
    }

    /// Whether this form of a value differs from the value itself.
    pub(super) fn applies(self, value: &str) -> bool {
        match self {
            Form::Squeezed => value.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()),
            Form::Json(kind) => value.chars().any(|c| kind.escapes(c)),
            Form::Url(literal, _) => {
                value.bytes().any(|byte| !byte.is_ascii_alphanumeric() && !literal.contains(&byte))
            }
            Form::Raw | Form::AllEscaped | Form::Base64(_) | Form::Hex => true,
        }
    }

    /// Writes the form, with the end that it has if nothing follows.
    pub(super) fn write(self, value: &str, each: &mut impl FnMut(u8)) {
        self.write_to(value, true, each);
    }

    /// Writes the part of the form that does not depend on neighbours of the value.
    pub(super) fn write_known(self, value: &str, each: &mut impl FnMut(u8)) {
        self.write_to(value, false, each);
    }

    fn write_to(self, value: &str, end: bool, each: &mut impl FnMut(u8)) {
        let mut fold = |byte: u8| each(byte.to_ascii_lowercase());
        match self {
            Form::Raw => value.bytes().for_each(fold),
            Form::Squeezed => {
                let kept = |byte: &u8| !byte.is_ascii_whitespace() && !byte.is_ascii_control();
                value.bytes().filter(kept).for_each(fold);
            }
            Form::Json(kind) => value.chars().for_each(|c| kind.write(c, &mut fold)),
            Form::Url(literal, space) => {
                for byte in value.bytes() {
                    match byte {
                        b' ' => space.iter().copied().for_each(&mut fold),
                        _ if byte.is_ascii_alphanumeric() || literal.contains(&byte) => fold(byte),
                        _ => escaped(byte, &mut fold),
                    }
                }
            }
            Form::AllEscaped => value.bytes().for_each(|byte| escaped(byte, &mut fold)),
            Form::Base64(offset) => base64(value.as_bytes(), offset, end, each),
            Form::Hex => value.bytes().for_each(|byte| digits(byte, each)),
        }
    }
}

impl Json {
    fn escapes(self, c: char) -> bool {
        match c {
            '"' | '\\' | '\u{0}'..' ' => true,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => self == Json::Html || (self == Json::Ascii && !c.is_ascii()),
            '/' => self == Json::Slash,
            _ => self == Json::Ascii && !c.is_ascii(),
        }
    }

    fn write(self, c: char, each: &mut impl FnMut(u8)) {
        let mut buffer = [0; 4];
        if !self.escapes(c) {
            return c.encode_utf8(&mut buffer).bytes().for_each(each);
        }
        each(b'\\');
        match c {
            '"' | '\\' | '/' => each(c as u8),
            '\n' => each(b'n'),
            '\r' => each(b'r'),
            '\t' => each(b't'),
            '\u{8}' => each(b'b'),
            '\u{c}' => each(b'f'),
            _ => {
                for (at, unit) in c.encode_utf16(&mut [0; 2]).iter().enumerate() {
                    if at > 0 {
                        each(b'\\');
                    }
                    each(b'u');
                    unit.to_be_bytes().into_iter().for_each(|byte| digits(byte, each));
                }
            }
        }
    }
}

fn escaped(byte: u8, each: &mut impl FnMut(u8)) {
    each(b'%');
    digits(byte, each);
}

fn digits(byte: u8, each: &mut impl FnMut(u8)) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    each(DIGITS[usize::from(byte >> 4)]);
    each(DIGITS[usize::from(byte & 15)]);
}

/// Base64 of a value after `offset` other bytes: only characters whose bits are all of the value,
/// and the last one and the padding if the value ends the text.
fn base64(value: &[u8], offset: usize, end: bool, each: &mut impl FnMut(u8)) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| LETTERS[bits as usize & 63];
    // The bytes before are zeros; their characters are skipped, and the one with bits of both.
    let (mut bits, mut held, mut skipped, mut written) = (0, 0, (8 * offset).div_ceil(6), 0_usize);
    for byte in std::iter::repeat_n(&0, offset).chain(value) {
        (bits, held) = (bits << 8 | u32::from(*byte), held + 8);
        while held >= 6 {
            held -= 6;
            written += 1;
            match skipped {
                0 => each(letter(bits >> held)),
                _ => skipped -= 1,
            }
        }
        bits &= 0xFF;
    }
    if end && held > 0 {
        each(letter(bits << (6 - held)));
        (written + 1..(written + 1).next_multiple_of(4)).for_each(|_| each(b'='));
    }
}

/// A letter of the URL-safe alphabet of base64, in the standard alphabet.
pub(super) fn standard(byte: u8) -> u8 {
    match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    }
}

/// Whether a byte is a letter of either alphabet, or padding.
pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte)
}
