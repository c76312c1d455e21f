//! The format of `/metrics` that a client's `Accept` header asks for. Pure.
//!
//! Follows RFC 9110 (12.5.1): the most specific media range that matches a format has its quality.
//! Of a range's parameters only `version` and `q` count: Prometheus 3 also names an escaping of
//! names, and our names need none. Therefore no library for the header decides this.

use crate::server::metrics::Format;

/// How much a client prefers a format, in the order of the comparison: the quality in thousandths,
/// and how specific the range is that has it.
type Preference = (u16, u8);

/// The format for these values of the header: OpenMetrics if the client prefers it, else the
/// classic text, which upstream serves to every client.
pub(super) fn preferred(accept: &[&str]) -> Format {
    let ranges = accept.iter().flat_map(|value| value.split(','));
    let preference = |format| {
        let preferences = ranges.clone().filter_map(|range| range_preference(range, format));
        preferences.max_by_key(|(quality, specificity)| (*specificity, *quality)).unwrap_or((0, 0))
    };
    let openmetrics = preference(Format::OpenMetrics);
    match openmetrics.0 > 0 && openmetrics > preference(Format::Classic) {
        true => Format::OpenMetrics,
        false => Format::Classic,
    }
}

/// What a media range says about a format; `None` if it does not match, or is not valid.
fn range_preference(range: &str, format: Format) -> Option<Preference> {
    let mut parts = range.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let [our_kind, our_subtype] = format.media_type();
    let matches = |theirs: &str, ours: &str| theirs.eq_ignore_ascii_case(ours);
    let mut specificity = match (kind, subtype) {
        ("*", "*") => 0,
        (kind, "*") if matches(kind, our_kind) => 1,
        (kind, subtype) if matches(kind, our_kind) && matches(subtype, our_subtype) => 2,
        _ => return None,
    };
    let mut quality = 1.0;
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        if matches(name, "q") {
            quality = value.parse::<f32>().ok().filter(|quality| (0.0..=1.0).contains(quality))?;
        } else if matches(name, "version") {
            if value.trim_matches('"') != format.version() {
                return None;
            }
            specificity += 1;
        }
    }
    Some(((quality * 1_000.0).round() as u16, specificity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_served_to_clients_that_prefer_it() {
        const PROMETHEUS_2_42: &str = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        const PROMETHEUS_2_WITH_NATIVE_HISTOGRAMS: &str = "application/vnd.google.protobuf;\
            proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;\
            q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [
            PROMETHEUS_2_42,
            PROMETHEUS_2_WITH_NATIVE_HISTOGRAMS,
            PROMETHEUS_3,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
            "application/*",
            "text/plain;q=0.5, application/openmetrics-text",
            "text/plain;q=0.998, application/openmetrics-text;q=0.999",
            "application/openmetrics-text, */*",
            "application/openmetrics-text, text/*",
            "text/plain;q=0, */*",
            "application/openmetrics-text;version=1.0.0;q=0.2, application/openmetrics-text;q=0, text/plain;q=0.1",
        ] {
            assert_eq!(preferred(&[accept]), Format::OpenMetrics, "{accept}");
        }
        assert_eq!(preferred(&["text/plain;q=0.5", "application/openmetrics-text"]), Format::OpenMetrics);
    }

    #[test]
    fn other_clients_get_the_classic_text() {
        const FIREFOX: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        // The classic text alone, as `scrape_protocols: [PrometheusText0.0.4]` asks for it.
        const PROMETHEUS_CLASSIC: &str = "text/plain;version=0.0.4;q=0.5,*/*;q=0.4";
        const VICTORIA_METRICS: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
        for accept in [
            FIREFOX,
            PROMETHEUS_CLASSIC,
            VICTORIA_METRICS,
            "*/*",
            "",
            " , ;",
            "text/*",
            "application/json",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0, text/plain;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0, */*",
            "application/openmetrics-text;q=0.000, application/*",
            "application/openmetrics-text;q=0.9, text/plain",
            "application/openmetrics-text, text/plain",
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=nan",
            "application/openmetrics-text;q=",
            "application/openmetrics-texts",
            "openmetrics-text",
            "*/openmetrics-text",
        ] {
            assert_eq!(preferred(&[accept]), Format::Classic, "{accept}");
        }
        assert_eq!(preferred(&[]), Format::Classic);
    }
}
