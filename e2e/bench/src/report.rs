//! Reports figures: medians and spread, compared with the budgets, as JSON, as a table and as a
//! chart.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;
use serde_json::{Map, Value, json};

use crate::budgets::{BUDGETS, Better};
use crate::figures::{Figures, Point};

pub(crate) struct Report {
    pub(crate) figures: Figures,
    pub(crate) scaling: Vec<Point>,
    pub(crate) runs: usize,
}

impl Report {
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

    /// A table of median, spread and budget.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("{:<44} {:>10} {:>21}  budget\n", "", "median", "least to most");
        for name in self.figures.each.keys() {
            let Some(values) = self.figures.sorted(name) else { continue };
            let median = median(&values);
            let budget = BUDGETS.iter().find(|(of, ..)| of == name).map_or(String::new(), |(_, limit, better)| {
                let (sign, met) = match better {
                    Better::Less => ("<=", median <= *limit),
                    Better::More => (">=", median >= *limit),
                };
                format!("{sign} {limit}{}", if met { "" } else { "   NOT MET" })
            });
            let spread = format!("{:.2} to {:.2}", values[0], values[values.len() - 1]);
            let _ = writeln!(table, "{name:<44} {median:>10.2} {spread:>21}  {budget}");
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

/// The size of an image in a registry: its compressed layers, as in the archive.
pub(crate) fn image_mb(archive: &Path) -> Result<f64> {
    Ok(fs::metadata(archive).context("the image is not built: make image")?.len() as f64 / 1e6)
}

/// Draws memory and CPU time over the number of volumes, with a line for each number of objects.
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
