//! How cost grows: with distinct objects, and hardly with volumes.
//!
//! All volumes are those of one service principal and one class, with rotation on.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::scenarios::{cycles, settled};
use super::scene::{FIFTY, ONE, Pods, Scene};

/// What a number of volumes with a number of objects costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Point {
    pub(crate) volumes: usize,
    pub(crate) objects: usize,
    pub(crate) pss_mib: f64,
    pub(crate) cycle_cpu_ms: f64,
    pub(crate) cycle_requests: f64,
}

/// Every number of volumes with every number of objects.
pub(crate) fn curve(scene: &Scene) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for (objects, class) in [(1, ONE), (10, 0), (50, FIFTY)] {
        for volumes in [1, 10, 100, 1_000] {
            eprintln!("{volumes} volumes of {objects} objects");
            let driver = scene.driver(&["--enable-secret-rotation", "--rotation-poll-interval=2s"])?;
            let pods = Pods { objects, classes: (1, class), ..Pods::alike(volumes, 8) };
            driver.start(pods)?;
            settled(&driver)?;
            let quiet = cycles(scene, &driver, objects, 5)?;
            points.push(Point {
                volumes,
                objects,
                pss_mib: driver.memory()?[0],
                cycle_cpu_ms: quiet.cpu_ms,
                cycle_requests: quiet.requests,
            });
        }
    }
    Ok(points)
}

/// Memory of one more volume of ten objects that are known, in KiB.
pub(crate) fn per_volume(points: &[Point]) -> Result<f64> {
    let of = |volumes: usize| points.iter().find(|point| point.volumes == volumes && point.objects == 10);
    let (few, many) = (of(100).context("not measured")?, of(1_000).context("not measured")?);
    Ok((many.pss_mib - few.pss_mib) * 1024.0 / (many.volumes - few.volumes) as f64)
}
