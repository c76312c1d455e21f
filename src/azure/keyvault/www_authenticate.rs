//! Pure. The challenges of a 401: the lists in its WWW-Authenticate headers.
//!
//! A parser for RFC 9110 §11.6.1, since no maintained crate reads `token68` and more than one space
//! after a scheme. It also accepts what services send beside the grammar: values without quotes,
//! and white space for a comma. A header is data of another program: of a field value that cannot
//! be read, the challenges before the fault remain, and the one that has the fault is dropped.
//!
//! # Guarantees
//! Time and memory grow with the length of the headers, which is bounded. Quotes and commas in a
//! value never make a challenge or a parameter of their own.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How many bytes the headers may have together; with the claims of a tenant they have some 2 KiB.
pub(super) const MAX_LENGTH: usize = 16 << 10;
/// How many challenges are read.
pub(super) const MAX_CHALLENGES: usize = 32;
/// How many parameters a challenge may have.
pub(super) const MAX_PARAMETERS: usize = 32;

/// What the WWW-Authenticate headers of a response hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Challenges {
    /// In the order of the headers.
    pub(super) all: Vec<Challenge>,
    /// Why not everything was read.
    pub(super) fault: Option<ChallengeFault>,
}

/// A challenge: an authentication scheme, and parameters of which no two have the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
    /// Whether it has a `token68` in place of parameters.
    has_token: bool,
}

/// Why a part of the headers was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChallengeFault {
    /// More bytes, challenges or parameters than the limits allow.
    TooLarge,
    /// Not a list of challenges.
    Malformed,
}

impl Challenge {
    /// Whether it is of this scheme, in any case (RFC 9110 §11.1).
    pub(super) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    fn is_bare(&self) -> bool {
        self.parameters.is_empty() && !self.has_token
    }

    /// The value of a parameter, whose name is matched in any case (RFC 9110 §11.2); `None` if it
    /// is empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.parameters.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

impl Challenges {
    /// Reads all WWW-Authenticate headers; one header may have several challenges.
    pub(super) fn of(headers: &HeaderMap) -> Challenges {
        let values: Vec<&[u8]> = headers.get_all(WWW_AUTHENTICATE).iter().map(|value| value.as_bytes()).collect();
        let mut challenges = Challenges::default();
        if values.iter().map(|value| value.len()).sum::<usize>() > MAX_LENGTH {
            challenges.fault = Some(ChallengeFault::TooLarge);
            return challenges;
        }
        for value in values {
            let mut reader = Reader { rest: value, current: None, challenges: &mut challenges.all };
            if let Err(fault) = reader.read() {
                challenges.fault = challenges.fault.or(Some(fault));
            }
        }
        challenges
    }
}

/// The rest of one field value, the challenge that is being read, and the complete ones.
struct Reader<'a, 'b> {
    rest: &'a [u8],
    current: Option<Challenge>,
    challenges: &'b mut Vec<Challenge>,
}

impl<'a> Reader<'a, '_> {
    /// Elements are separated by commas, both challenges and parameters. A word with `=` after it
    /// is a parameter, any other one begins a challenge or is the `token68` of one.
    fn read(&mut self) -> Result<(), ChallengeFault> {
        loop {
            let comma = self.skip(b", \t").contains(&b',');
            if self.rest.is_empty() {
                return self.complete();
            }
            let word = self.take(|byte| !matches!(byte, b',' | b' ' | b'\t' | b'=' | b'"'));
            let after = self.rest;
            self.skip(b" \t");
            if self.rest.first() == Some(&b'=') {
                self.parameter(word)?;
                continue;
            }
            // The space may be that between a scheme and its first parameter, or separate elements.
            self.rest = after;
            match &mut self.current {
                Some(current) if !comma && current.is_bare() && is_token68(word) => current.has_token = true,
                Some(_) | None => self.begin(word)?,
            }
        }
    }

    /// Reads what follows the name of a parameter, or the padding of a `token68`.
    fn parameter(&mut self, name: &[u8]) -> Result<(), ChallengeFault> {
        let padding = self.skip(b"=").len();
        self.skip(b" \t");
        let is_last = matches!(self.rest.first(), None | Some(b','));
        let current = self.current.as_mut().ok_or(ChallengeFault::Malformed)?;
        // A value without quotes is never empty, so that this is padding.
        if is_last && current.is_bare() && is_token68(name) {
            current.has_token = true;
            return Ok(());
        }
        if is_last || padding != 1 || current.has_token || !is_token(name) {
            return Err(ChallengeFault::Malformed);
        }
        let value = self.value()?;
        let current = self.current.as_mut().ok_or(ChallengeFault::Malformed)?;
        let name = text(name);
        if current.parameters.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            return Err(ChallengeFault::Malformed);
        }
        if current.parameters.len() == MAX_PARAMETERS {
            return Err(ChallengeFault::TooLarge);
        }
        current.parameters.push((name, value));
        Ok(())
    }

    /// A quoted string (RFC 9110 §5.6.4), or a word.
    fn value(&mut self) -> Result<String, ChallengeFault> {
        let Some(quoted) = self.rest.strip_prefix(b"\"") else {
            let word = self.take(|byte| !matches!(byte, b',' | b' ' | b'\t' | b'"'));
            return if word.is_empty() { Err(ChallengeFault::Malformed) } else { Ok(text(word)) };
        };
        let (mut value, mut bytes) = (Vec::new(), quoted.iter());
        loop {
            match bytes.next() {
                Some(b'"') => break,
                Some(b'\\') => value.push(*bytes.next().ok_or(ChallengeFault::Malformed)?),
                Some(byte) => value.push(*byte),
                None => return Err(ChallengeFault::Malformed),
            }
        }
        self.rest = bytes.as_slice();
        // What follows a closing quote directly would be a part of the value for other parsers.
        match self.rest.first() {
            None | Some(b',' | b' ' | b'\t') => Ok(text(&value)),
            Some(_) => Err(ChallengeFault::Malformed),
        }
    }

    fn begin(&mut self, scheme: &[u8]) -> Result<(), ChallengeFault> {
        self.complete()?;
        if !is_token(scheme) {
            return Err(ChallengeFault::Malformed);
        }
        self.current = Some(Challenge { scheme: text(scheme), ..Challenge::default() });
        Ok(())
    }

    fn complete(&mut self) -> Result<(), ChallengeFault> {
        if let Some(challenge) = self.current.take() {
            if self.challenges.len() == MAX_CHALLENGES {
                return Err(ChallengeFault::TooLarge);
            }
            self.challenges.push(challenge);
        }
        Ok(())
    }

    /// Passes over these bytes, and returns them.
    fn skip(&mut self, bytes: &[u8]) -> &'a [u8] {
        self.take(|byte| bytes.contains(&byte))
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

/// `token` of RFC 9110 §5.6.2.
fn is_token(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// `token68` of RFC 9110 §11.2, without its padding.
fn is_token68(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}

/// Bytes above ASCII have no defined meaning here (RFC 9110 §5.5).
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
