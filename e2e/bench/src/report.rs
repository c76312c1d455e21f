//! Figures of several runs: their medians and spread, against the budgets, as JSON, as a table and as a chart.
//!
//! Measures nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;
use serde_json::{Map, Value, json};

use super::scaling::Point;

/// What must hold (design, budgets): name, the most, or the least where more is better.
const BUDGETS: &[(&str, f64, Better)] = &[
    ("idle_pss_mib", 12.0, Better::Less),
    ("pss_200x10_mib", 24.0, Better::Less),
    ("memory_per_volume_kib", 8.0, Better::Less),
    ("publish_10_unknown_requests", 11.0, Better::Less),
    ("publish_10_known_requests", 10.0, Better::Less),
    ("publish_10_fresh_requests", 0.0, Better::Less),
    ("shared_cycle_100x10_requests", 10.0, Better::Less),
    ("quiet_cycle_api_writes", 0.0, Better::Less),
    ("publish_10_20ms_unknown_p50_ms", 60.0, Better::Less),
    ("publish_10_20ms_known_p50_ms", 32.0, Better::Less),
    ("publish_10_20ms_fresh_p50_ms", 6.0, Better::Less),
    ("publish_10_0ms_known_p50_ms", 5.0, Better::Less),
    ("throughput_32_one_identity_per_s", 250.0, Better::More),
    ("cpu_s_per_1000_publishes", 1.5, Better::Less),
    ("quiet_cycle_1000x10_cpu_ms", 20.0, Better::Less),
    ("unshared_1000_first_mount_p99_ms", 1_000.0, Better::Less),
    ("start_to_registered_ms", 150.0, Better::Less),
    ("binary_mb", 16.0, Better::Less),
    ("image_mb", 20.0, Better::Less),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    Less,
    More,
}

/// Every figure with what each run brought.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    each: BTreeMap<String, Vec<f64>>,
    /// Calls to the API server in the latency scenario, by verb and kind.
    apis: BTreeMap<String, usize>,
}

pub(crate) struct Report {
    pub(crate) figures: Figures,
    pub(crate) scaling: Vec<Point>,
    pub(crate) runs: usize,
}

impl Figures {
    pub(crate) fn note(&mut self, name: &str, value: f64) {
        self.each.entry(name.to_owned()).or_default().push(value);
    }

    /// What the load client tells of its calls.
    pub(crate) fn calls(&mut self, about: &str, report: &Value) -> Result<()> {
        for part in ["p50_ms", "p90_ms", "p99_ms", "max_ms"] {
            let value = report[part].as_f64().with_context(|| format!("the load client does not tell {part}"))?;
            self.note(&format!("{about}_{part}"), value);
        }
        Ok(())
    }

    /// What the driver asked of the API server; the last run's stays.
    pub(crate) fn apis(&mut self, calls: BTreeMap<String, usize>) {
        self.apis = calls;
    }

    fn sorted(&self, name: &str) -> Option<Vec<f64>> {
        let mut values = self.each.get(name)?.clone();
        values.sort_by(f64::total_cmp);
        Some(values)
    }
}

impl Report {
    /// Writes the JSON.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let mut all = Map::new();
        let mut spread = Map::new();
        for name in self.figures.each.keys() {
            let Some(values) = self.figures.sorted(name) else { continue };
            all.insert(name.clone(), rounded(median(&values)));
            spread.insert(name.clone(), json!([rounded(values[0]), rounded(values[values.len() - 1])]));
        }
        all.insert("runs".to_owned(), self.runs.into());
        all.insert("spread".to_owned(), spread.into());
        all.insert("latency_api_calls".to_owned(), serde_json::to_value(&self.figures.apis)?);
        all.insert("scaling".to_owned(), serde_json::to_value(&self.scaling)?);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, serde_json::to_string_pretty(&Value::from(all))? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// The table for people: median, spread, budget.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("{:<44} {:>10} {:>21}  budget\n", "", "median", "least to most");
        for name in self.figures.each.keys() {
            let Some(values) = self.figures.sorted(name) else { continue };
            let middle = median(&values);
            let budget = BUDGETS.iter().find(|(of, ..)| of == name).map_or(String::new(), |(_, limit, better)| {
                let (sign, met) = match better {
                    Better::Less => ("<=", middle <= *limit),
                    Better::More => (">=", middle >= *limit),
                };
                format!("{sign} {limit}{}", if met { "" } else { "   NOT MET" })
            });
            let spread = format!("{:.2} to {:.2}", values[0], values[values.len() - 1]);
            let _ = writeln!(table, "{name:<44} {middle:>10.2} {spread:>21}  {budget}");
        }
        for Point { volumes, objects, pss_mib, cycle_cpu_ms, cycle_requests } in &self.scaling {
            let _ = writeln!(
                table,
                "{volumes:>5} volumes x {objects:>2} objects: {pss_mib:>6.2} MiB, {cycle_cpu_ms:>6.2} ms and {cycle_requests:>5.2} requests a cycle"
            );
        }
        table
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

/// The size of an image as a registry counts it: its layers, compressed as they are in the archive.
pub(crate) fn image_mb(archive: &Path) -> Result<f64> {
    Ok(fs::metadata(archive).context("the image is not built: make image")?.len() as f64 / 1e6)
}

/// Draws memory and processor time against the number of volumes, a line for each number of objects.
pub(crate) fn draw(points: &[Point], file: &Path) -> Result<()> {
    let area = SVGBackend::new(file, (900, 380)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(450);
    panel(&left, "Memory (PSS, MiB)", points, |point| point.pss_mib)?;
    panel(&right, "CPU of a quiet cycle (ms)", points, |point| point.cycle_cpu_ms)?;
    area.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel(area: &Area<'_>, title: &str, points: &[Point], value: impl Fn(&Point) -> f64) -> Result<()> {
    let top = points.iter().map(&value).fold(1.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d((1.0..1_000.0).log_scale(), 0.0..top)?;
    chart.configure_mesh().x_desc("volumes").light_line_style(WHITE).draw()?;
    for (objects, colour) in [(1, &GREEN), (10, &BLUE), (50, &RED)] {
        let line =
            || points.iter().filter(|point| point.objects == objects).map(|point| (point.volumes as f64, value(point)));
        chart
            .draw_series(LineSeries::new(line(), colour))?
            .label(format!("{objects} objects"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        chart.draw_series(line().map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).background_style(WHITE).draw()?;
    Ok(())
}
