//! The Prometheus text format, version 0.0.4, from OpenMetrics text. Pure.
//!
//! The library writes OpenMetrics only. Units and exemplars do not occur in our sets, and both
//! formats escape label values in the same way, so that the formats differ in three points: the
//! names in comments, the bounds of buckets, and the last line.

use std::fmt::Write as _;

/// Rewrites OpenMetrics text.
///
/// # Errors
/// Only when memory runs out.
pub(super) fn classic(openmetrics: &str) -> Result<String, std::fmt::Error> {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The type comes next, and decides the name.
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            // OpenMetrics names the family, and this format the samples.
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            write!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n")?;
        } else if !line.starts_with('#') {
            write_sample(&mut text, line)?;
        }
    }
    Ok(text)
}

/// Writes a sample; a bucket's bound without the fraction `.0`, as Go programs write it: in version
/// 2 of Prometheus `le="1"` and `le="1.0"` are two series.
fn write_sample(text: &mut String, line: &str) -> std::fmt::Result {
    const BOUND: &str = ",le=\"";
    // A quotation mark in a value is escaped, so that only the label itself looks like this.
    match line.split_once(BOUND).and_then(|(before, rest)| Some((before, rest.split_once('"')?))) {
        Some((before, (bound, after))) => {
            writeln!(text, "{before}{BOUND}{}\"{after}", bound.strip_suffix(".0").unwrap_or(bound))
        }
        None => writeln!(text, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn each_type_has_the_form_of_the_classic_format() {
        let mut root = Registry::default();
        root.register("target", "Target metadata", Info::new(vec![("service_name", "x")]));
        let registry = root.sub_registry_with_label(("scope".into(), "s".into()));
        let calls = Family::<Vec<(&str, &str)>, Counter>::default();
        calls.get_or_create(&vec![("cause", "a \"b\"\\c\n,le=\"1.0\"")]).inc();
        registry.register("calls", "Calls", calls);
        registry.register("empty", "A family without series", Family::<Vec<(&str, &str)>, Counter>::default());
        let open = Gauge::<i64>::default();
        open.set(3);
        registry.register("open", "Open calls", open);
        let took = Histogram::new([0.5, 1.0, 30.0]);
        took.observe(0.75);
        registry.register("took_seconds", "Time", took);
        let mut openmetrics = String::new();
        text::encode(&mut openmetrics, &root).unwrap();
        let expected = r##"# HELP target_info Target metadata.
# TYPE target_info gauge
target_info{service_name="x"} 1
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{scope="s",cause="a \"b\"\\c\n,le=\"1.0\""} 1
# HELP open Open calls.
# TYPE open gauge
open{scope="s"} 3
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_sum{scope="s"} 0.75
took_seconds_count{scope="s"} 1
took_seconds_bucket{scope="s",le="0.5"} 0
took_seconds_bucket{scope="s",le="1"} 1
took_seconds_bucket{scope="s",le="30"} 1
took_seconds_bucket{scope="s",le="+Inf"} 1
"##;
        assert_eq!(classic(&openmetrics).unwrap(), expected);
    }
}
