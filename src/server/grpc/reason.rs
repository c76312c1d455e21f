//! The [`Reason`] of a failed Mount, as it travels from our provider to our driver.
//!
//! The protocol has no place for it, so that it stands in the metadata of the status, which other drivers pass over. The same
//! word closes the text, where people read it; whoever has read the metadata takes it off again.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::model::Reason;

/// The metadata key.
const KEY: &str = "keyvault-csi-reason";

/// What the text begins with, as upstream's provider has it: people look for it
/// (docs/reference/azure-provider.md#mount-answer).
const PREFIX: &str = "failed to mount objects, error: ";

/// How many bytes of a header a text may take; some clients refuse headers above 8 KiB.
const TEXT: usize = 6 << 10;

/// The status of a failed Mount.
///
/// Always Unknown, as upstream's provider answers: Unavailable would make drivers try again by themselves.
pub fn failed(reason: Reason, text: &str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(KEY, MetadataValue::from_static(reason.as_str()));
    Status::with_metadata(Code::Unknown, format!("{PREFIX}{} ({reason})", cut(text)), metadata)
}

/// As much of a text as clients take in a header, in which all but plain ASCII has three bytes for each.
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

/// The reason and the bare text of a status that [`failed`] made; `None` for a status of anybody else.
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
        // Two bytes each, six in a header.
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
