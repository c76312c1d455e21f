//! Cost by the number of objects and of volumes, which should matter little.
//!
//! All volumes have the same service principal and class; rotation is enabled.

use anyhow::{Context as _, Result};

use crate::environment::{Environment, FIFTY, ONE, Pods};
use crate::figures::Point;
use crate::scenarios::{cycles, wait_for_writes};

/// Measures each number of volumes with each number of objects.
pub(crate) fn curve(environment: &Environment) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for (objects, class) in [(1, ONE), (10, 0), (50, FIFTY)] {
        for volumes in [1, 10, 100, 1_000] {
            eprintln!("{volumes} volumes of {objects} objects");
            let driver = environment.driver(&["--enable-secret-rotation", "--rotation-poll-interval=2s"])?;
            let pods = Pods { objects, classes: (1, class), ..Pods::alike(volumes, 8) };
            driver.start(pods)?;
            wait_for_writes(&driver)?;
            let quiet = cycles(environment, &driver, objects, 5)?;
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

/// The memory of another volume with the same ten objects, in KiB.
pub(crate) fn per_volume(points: &[Point]) -> Result<f64> {
    let of = |volumes: usize| points.iter().find(|point| point.volumes == volumes && point.objects == 10);
    let (few, many) = (of(100).context("not measured")?, of(1_000).context("not measured")?);
    Ok((many.pss_mib - few.pss_mib) * 1024.0 / (many.volumes - few.volumes) as f64)
}
