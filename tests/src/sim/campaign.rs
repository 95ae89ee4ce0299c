//! Many seeds, on several threads, summed up.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Fault, Faults, Report, Setup, Violation, run};

/// Which seeds.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The first.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// How long faults happen in each, in virtual time.
    pub duration: Duration,
    /// Threads.
    pub jobs: usize,
}

/// A seed in which something was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Which.
    pub seed: u64,
    /// What was wrong.
    pub violation: Violation,
}

/// What came of them.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Runs.
    pub seeds: u64,
    /// Virtual time of whole clusters.
    pub time: Duration,
    /// Real time.
    pub took: Duration,
    /// Calls that were answered.
    pub operations: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Views of chains.
    pub views: u64,
    /// Inputs of replicas.
    pub steps: u64,
    /// The longest time that a chain needed to become whole.
    pub healing_max: Duration,
    /// What went wrong on purpose.
    pub faults: Faults,
    /// What went wrong besides, by seed.
    pub failed: Vec<Failed>,
}

/// From so many seeds on, each fault must have happened.
pub const SEEDS_FOR_ALL_FAULTS: u64 = 200;
/// This often at least.
const TIMES_MIN: u64 = 5;

impl Campaign {
    /// Runs all of them, and tells the sum so far to `progress` after each.
    pub fn run(&self, progress: impl Fn(&Summary) + Sync) -> Summary {
        let began = Instant::now();
        let (next, sum) = (AtomicU64::new(self.first), Mutex::new(Summary::default()));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.first + self.seeds {
                            break;
                        }
                        let report = run(&Setup::draw(seed, self.duration));
                        let mut sum = sum.lock();
                        sum.add(&report);
                        sum.took = began.elapsed();
                        progress(&sum);
                    }
                });
            }
        });
        let mut sum = sum.into_inner();
        sum.took = began.elapsed();
        sum.failed.sort_by_key(|failed| failed.seed);
        sum
    }
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.time += report.time;
        self.operations += report.operations;
        self.unknown += report.unknown;
        self.views += report.views;
        self.steps += report.steps;
        self.healing_max = self.healing_max.max(report.healing);
        self.faults.add(&report.faults);
        if let Some(violation) = &report.violation {
            self.failed.push(Failed { seed: report.seed, violation: violation.clone() });
        }
    }

    /// The faults that should have happened in so many seeds and did not, or without any call under them. A campaign
    /// without them shows nothing about them.
    #[must_use]
    pub fn missing(&self) -> Vec<Fault> {
        if self.seeds < SEEDS_FOR_ALL_FAULTS { Vec::new() } else { self.faults.missing(TIMES_MIN) }
    }

    /// Nothing was wrong, and all that had to happen did.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failed.is_empty() && self.missing().is_empty() && self.operations > 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.faults)?;
        let seconds = self.took.as_secs_f64().max(0.001);
        writeln!(f)?;
        writeln!(f, "seeds            {:>14}", self.seeds)?;
        writeln!(f, "cluster-seconds  {:>14.0}", self.time.as_secs_f64())?;
        writeln!(f, "calls answered   {:>14}", self.operations)?;
        writeln!(f, "outcomes unknown {:>14}", self.unknown)?;
        writeln!(f, "views            {:>14}", self.views)?;
        writeln!(f, "replica inputs   {:>14}", self.steps)?;
        writeln!(f, "longest healing  {:>14}", format!("{:.1}s", self.healing_max.as_secs_f64()))?;
        let rate = self.time.as_secs_f64() / seconds;
        writeln!(
            f,
            "took             {:>14}  ({rate:.0} times as fast as real time)",
            format!("{seconds:.1}s")
        )?;
        write!(f, "violations       {:>14}", self.failed.len())?;
        for fault in self.missing() {
            write!(
                f,
                "\nthe fault {} did not happen often enough: this run shows nothing about it",
                fault.name()
            )?;
        }
        Ok(())
    }
}
