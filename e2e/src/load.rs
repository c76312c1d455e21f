//! Load on a running driver: publishes the volumes of many pods and measures each call.
//!
//! It calls the driver's socket as a kubelet. The names of classes and service principals are
//! functions of their numbers, so that the benchmark can create them before the program `load` uses
//! them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tonic::Request;

use crate::kubelet::{DEADLINE, Kubelet, Volume};

/// The calls to make.
#[derive(Debug, Clone)]
pub struct Load {
    /// The driver's socket.
    pub socket: PathBuf,
    /// The kubelet's root directory.
    pub root: PathBuf,
    /// The prefix of the pods' names, different for each driver, so that status objects differ.
    pub prefix: String,
    /// The number of the first pod.
    pub first: usize,
    /// The number of pods, each with one volume.
    pub count: usize,
    /// The number of concurrent calls.
    pub concurrency: usize,
    /// The number of files that each volume must have afterwards.
    pub objects: usize,
    /// The number of classes, and the first of them; pods use them in turn.
    pub classes: (usize, usize),
    /// The number of service principals, and the first of them; pods use them in turn.
    pub identities: (usize, usize),
    /// The least time between the starts of two calls of one caller; it is not measured.
    pub pause: Duration,
    /// Unpublish instead of publish.
    pub unpublish: bool,
}

/// The durations of the calls.
#[derive(Debug, Clone)]
pub struct Report {
    /// From the first call to the last response.
    pub wall: Duration,
    /// The duration of each call, shortest first.
    pub calls: Vec<Duration>,
}

/// The name of a class.
pub fn class(number: usize) -> String {
    format!("class-{number}")
}

/// A service principal's client id and secret.
pub fn principal(number: usize) -> (String, String) {
    (format!("00000000-0000-4000-9000-{number:012}"), format!("secret-of-{number}"))
}

impl Load {
    /// The volume of a pod.
    pub fn volume(&self, number: usize) -> Volume {
        let at = |(count, from): (usize, usize)| from + number % count.max(1);
        let (id, secret) = principal(at(self.identities));
        let pod = format!("{}-{number}", self.prefix);
        let mut volume =
            Volume::of_class("default", &pod, &class(at(self.classes))).with_service_principal(&id, &secret);
        volume.uid = format!("00000000-0000-4000-8000-{number:012}");
        volume
    }

    /// Makes the calls; each must succeed and publish all files.
    ///
    /// # Errors
    /// A call fails, or files are missing.
    pub fn run(&self) -> Result<Report> {
        let kubelet = Kubelet::new(&self.root, &self.socket)?;
        let volumes: Vec<Volume> = (self.first..self.first + self.count).map(|number| self.volume(number)).collect();
        for volume in &volumes {
            kubelet.prepare(volume)?;
        }
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        let calls = std::thread::scope(|scope| {
            let callers: Vec<_> =
                (0..self.concurrency.max(1)).map(|_| scope.spawn(|| self.call(&kubelet, &volumes, &next))).collect();
            let each = callers.into_iter().map(|caller| caller.join().ok().context("a caller panicked")?);
            each.collect::<Result<Vec<_>>>()
        })?;
        let wall = began.elapsed();
        let mut calls = calls.concat();
        calls.sort();
        if !self.unpublish {
            for volume in &volumes {
                let found = files(&kubelet.target(volume))?;
                ensure!(found == self.objects, "{} has {found} files instead of {}", volume.pod, self.objects);
            }
        }
        Ok(Report { wall, calls })
    }

    /// One caller: a connection, and one call after the other until none is left.
    fn call(&self, kubelet: &Kubelet, volumes: &[Volume], next: &AtomicUsize) -> Result<Vec<Duration>> {
        let (mut client, runtime) = kubelet.node()?;
        let mut calls = Vec::new();
        while let Some(volume) = volumes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = Instant::now();
            if self.unpublish {
                kubelet.unpublish(volume).map_err(|status| anyhow::anyhow!("{}: {}", volume.pod, status.message()))?;
            } else {
                let mut request = Request::new(kubelet.publish_request(volume));
                request.set_timeout(DEADLINE);
                let sent = runtime.block_on(client.node_publish_volume(request));
                sent.map_err(|status| anyhow::anyhow!("{}: {}", volume.pod, status.message()))?;
            }
            calls.push(began.elapsed());
            while let Some(rest) = self.pause.checked_sub(began.elapsed()).filter(|rest| !rest.is_zero()) {
                std::thread::park_timeout(rest);
            }
        }
        Ok(calls)
    }
}

/// The number of files that a pod can read.
fn files(target: &Path) -> Result<usize> {
    let names = std::fs::read_dir(target)?.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<Result<_>>()?;
    Ok(names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b"..")).count())
}

impl Report {
    /// A quantile of the durations in milliseconds; 0.99 for the 99th percentile.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.calls.len().saturating_sub(1);
        let at = (part * self.calls.len() as f64).ceil() as usize;
        self.calls.get(at.saturating_sub(1).min(last)).map_or(0.0, |call| call.as_secs_f64() * 1000.0)
    }

    /// Calls a second.
    pub fn per_second(&self) -> f64 {
        self.calls.len() as f64 / self.wall.as_secs_f64()
    }

    /// All figures.
    pub fn json(&self) -> Value {
        json!({
            "count": self.calls.len(),
            "seconds": self.wall.as_secs_f64(),
            "per_second": self.per_second(),
            "p50_ms": self.quantile(0.5),
            "p90_ms": self.quantile(0.9),
            "p99_ms": self.quantile(0.99),
            "max_ms": self.quantile(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_durations_of_calls() {
        let calls = (1..=100).map(Duration::from_millis).collect();
        let report = Report { wall: Duration::from_secs(2), calls };
        assert_eq!([0.0, 0.5, 0.9, 0.99, 1.0].map(|part| report.quantile(part)), [1.0, 50.0, 90.0, 99.0, 100.0]);
        assert_eq!(report.per_second(), 50.0);
    }
}
