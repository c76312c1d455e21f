//! The [`Reason`] of a failed Mount on its way from our provider to our driver.
//!
//! The protocol has no field for it, so it travels in the metadata of the status, which other
//! drivers ignore. The text ends with the same word, for people; a driver that reads the metadata
//! removes it.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::model::Reason;

/// The metadata key.
const KEY: &str = "keyvault-csi-reason";

/// The prefix of upstream's provider, which people search for
/// (docs/reference/azure-provider.md#mount-answer).
const PREFIX: &str = "failed to mount objects, error: ";

/// How many bytes the text may take in a header; some clients reject headers above 8 KiB.
const TEXT: usize = 6 << 10;

/// The status of a failed Mount.
///
/// The code is always Unknown, as with upstream's provider: Unavailable would make clients retry.
pub fn failed(reason: Reason, text: &str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(KEY, MetadataValue::from_static(reason.as_str()));
    Status::with_metadata(Code::Unknown, format!("{PREFIX}{} ({reason})", cut(text)), metadata)
}

/// The longest prefix that fits a header, where each byte that is not plain ASCII takes three.
fn cut(text: &str) -> &str {
    let mut room = TEXT;
    let end = text.char_indices().find(|(_, c)| {
        let needed = if matches!(c, ' '..='~') && *c != '%' { 1 } else { 3 * c.len_utf8() };
        let fits = needed <= room;
        room = room.saturating_sub(needed);
        !fits
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// The reason and the bare text of a status made by [`failed`]; `None` for any other status.
pub fn reason(status: &Status) -> Option<(Reason, &str)> {
    let reason = Reason::named(status.metadata().get(KEY)?.to_str().ok()?)?;
    let text = status.message();
    let text = text.strip_prefix(PREFIX).unwrap_or(text);
    let text = text.strip_suffix(&format!(" ({reason})")).unwrap_or(text);
    Some((reason, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_comes_back_with_the_bare_text() {
        for made in Reason::ALL {
            let status = failed(*made, "the vault is gone (for good)");
            assert_eq!(status.code(), Code::Unknown);
            assert_eq!(
                status.message(),
                format!("failed to mount objects, error: the vault is gone (for good) ({made})")
            );
            assert_eq!(reason(&status), Some((*made, "the vault is gone (for good)")));
        }
    }

    #[test]
    fn a_text_is_cut_to_what_clients_take() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"a".repeat(10_000)).len(), TEXT);
        // Two bytes each; six in a header.
        assert_eq!(cut(&"\u{e9}".repeat(10_000)).chars().count(), TEXT / 6);
        assert_eq!(reason(&failed(Reason::Forbidden, &"%".repeat(10_000))).unwrap().1.len(), TEXT / 3);
    }

    #[test]
    fn a_status_of_anybody_else_has_no_reason() {
        assert_eq!(reason(&Status::unknown("failed to mount objects, error: no (Forbidden)")), None);
        let mut invented = failed(Reason::Forbidden, "no");
        invented.metadata_mut().insert(KEY, MetadataValue::from_static("Invented"));
        assert_eq!(reason(&invented), None);
    }
}
