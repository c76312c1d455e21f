//! Load for a running driver: many pods' volumes, so many at a time, and how long each call took.
//!
//! Acts as the kubelet on the driver's socket. Which classes and service principals there are follows from their numbers,
//! so that whoever sets the scene and whoever makes the load need not talk. The program `load` is around it, `bench` uses that.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tonic::Request;

use crate::kubelet::{DEADLINE, Kubelet, Volume};

/// What to ask of a driver.
#[derive(Debug, Clone)]
pub struct Load {
    /// The driver's socket.
    pub socket: PathBuf,
    /// The kubelet's root directory.
    pub root: PathBuf,
    /// What pods' names begin with: status objects of other drivers' pods have other names.
    pub prefix: String,
    /// The number of the first pod; pods before it belong to somebody else.
    pub first: usize,
    /// How many pods, each with one volume.
    pub count: usize,
    /// How many calls at a time.
    pub concurrency: usize,
    /// How many files each volume must have afterwards.
    pub objects: usize,
    /// How many classes, from which number on; pods take them in turn.
    pub classes: (usize, usize),
    /// How many service principals, from which number on; pods take them in turn.
    pub identities: (usize, usize),
    /// How long lies at least between the starts of two calls of one caller; nothing is measured then.
    pub pause: Duration,
    /// Unpublish instead of publish.
    pub unpublish: bool,
}

/// How long the calls took.
#[derive(Debug, Clone)]
pub struct Report {
    /// From the first call to the last answer.
    pub wall: Duration,
    /// Each call's time, shortest first.
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
    /// The volume of a pod; the same each time.
    pub fn volume(&self, number: usize) -> Volume {
        let at = |(count, from): (usize, usize)| from + number % count.max(1);
        let (id, secret) = principal(at(self.identities));
        let pod = format!("{}-{number}", self.prefix);
        let mut volume =
            Volume::of_class("default", &pod, &class(at(self.classes))).with_service_principal(&id, &secret);
        volume.uid = format!("00000000-0000-4000-8000-{number:012}");
        volume
    }

    /// Makes the calls; every one must succeed, and bring all files.
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

    /// One caller: a connection of its own, and one call after the other until none is left.
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

/// How many files a pod sees.
fn files(target: &Path) -> Result<usize> {
    let names = std::fs::read_dir(target)?.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<Result<_>>()?;
    Ok(names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b"..")).count())
}

impl Report {
    /// The time within which this part of the calls was answered, in milliseconds.
    pub fn within(&self, part: f64) -> f64 {
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
            "p50_ms": self.within(0.5),
            "p90_ms": self.within(0.9),
            "p99_ms": self.within(0.99),
            "max_ms": self.within(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_calls_are_answered_within_their_time() {
        let calls = (1..=100).map(Duration::from_millis).collect();
        let report = Report { wall: Duration::from_secs(2), calls };
        assert_eq!([0.0, 0.5, 0.9, 0.99, 1.0].map(|part| report.within(part)), [1.0, 50.0, 90.0, 99.0, 100.0]);
        assert_eq!(report.per_second(), 50.0);
    }
}
