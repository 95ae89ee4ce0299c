//! What a round adds up to: latencies, counts, errors by kind, the longest stall.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use craq_client::{Error, ReadPath};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Latencies, in nanoseconds, with three significant digits.
#[derive(Debug, Clone)]
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // Grows with what is recorded.
        Self(Histogram::new(DIGITS).expect("three digits are possible"))
    }
}

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        // Grows as it must: no value is refused.
        let _ = self.0.record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Fails only for one that does not grow.
        let _ = self.0.add(&other.0);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latencies that people ask for, in milliseconds; none if there was no operation.
    pub(super) fn summary(&self) -> Option<LatencySummary> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        Some(LatencySummary {
            count: self.count(),
            min_ms: ms(self.0.min()),
            mean_ms: ms(self.0.mean() as u64),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(self.0.max()),
        })
    }
}

/// Milliseconds, in whole microseconds.
fn ms(nanos: u64) -> f64 {
    (nanos as f64 / 1e3).round() / 1e3
}

/// Latencies of the operations that began in the measured time. The names of the fields are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct LatencySummary {
    pub(super) count: u64,
    pub(super) min_ms: f64,
    pub(super) mean_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

/// What one operation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Read,
    Write,
    Scan,
    Cas,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Scan => "scan",
            Self::Cas => "cas",
        }
    }
}

/// An operation that did what it should.
#[derive(Debug, Default, Clone)]
pub(super) struct Success {
    /// Keys that it read or wrote.
    pub(super) keys: u64,
    /// Bytes of their values.
    pub(super) bytes: u64,
    /// Values that were read and found right.
    pub(super) verified: u64,
    /// How reads were answered, by which node, and how many of them.
    pub(super) reads: Vec<(ReadPath, String, u64)>,
}

/// An operation that did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// A word, to be counted by.
    pub(super) kind: &'static str,
    pub(super) message: String,
}

/// A value that is not what was written for its key.
pub(super) const WRONG_VALUE: &str = "wrong_value";
/// A value that does not match its checksum.
const CORRUPT: &str = "corrupt";
/// A key that was written and is not there.
pub(super) const MISSING: &str = "missing";
/// What no store may answer.
pub(super) const WRONG: [&str; 3] = [WRONG_VALUE, CORRUPT, MISSING];

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::NotFound => MISSING,
            Error::ConditionFailed { .. } => "condition_failed",
            Error::Refused { .. } => "refused",
            Error::Unavailable { .. } => "unavailable",
            Error::OutcomeUnknown { .. } => "outcome_unknown",
            Error::Invalid { .. } => "invalid",
            Error::Unreachable { .. } => "unreachable",
            Error::Corrupt { .. } => CORRUPT,
            _ => "other",
        };
        Self { kind, message: error.to_string() }
    }
}

/// How an operation ended.
#[derive(Debug)]
pub(super) enum Ended {
    Well(Success),
    /// `cas`: another client was faster.
    Conflict,
    Badly(Trouble),
}

/// Counts of one kind of operation.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    /// Ended well within the measured time.
    pub(super) operations: u64,
    /// Of those: keys and bytes of values.
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) latencies: Latencies,
}

/// Whether an operation's beginning and end lie in the measured time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within {
    pub(super) began: bool,
    pub(super) ended: bool,
}

/// Everything counted.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) kinds: BTreeMap<Kind, Counts>,
    pub(super) errors: BTreeMap<&'static str, u64>,
    pub(super) first_error: Option<String>,
    pub(super) conflicts: u64,
    pub(super) verified: u64,
    /// Was due in the measured time and found no free client in it.
    pub(super) not_begun: u64,
    /// By [`ReadPath::as_str`].
    pub(super) paths: BTreeMap<&'static str, u64>,
    pub(super) nodes: BTreeMap<String, u64>,
}

impl Tally {
    /// Nothing yet, of these kinds: one that never succeeds is told too.
    pub(super) fn of(kinds: &[Kind]) -> Self {
        Self { kinds: kinds.iter().map(|kind| (*kind, Counts::default())).collect(), ..Self::default() }
    }

    /// Takes down an operation.
    pub(super) fn add(&mut self, kind: Kind, ended: Ended, latency: Duration, within: Within) {
        match ended {
            Ended::Well(success) => {
                let counts = self.kinds.entry(kind).or_default();
                if within.began {
                    counts.latencies.record(latency);
                }
                if !within.ended {
                    return;
                }
                counts.operations += 1;
                counts.keys += success.keys;
                counts.bytes += success.bytes;
                self.verified += success.verified;
                for (path, node, keys) in success.reads {
                    *self.paths.entry(path.as_str()).or_default() += keys;
                    *self.nodes.entry(node).or_default() += keys;
                }
            }
            Ended::Conflict if within.ended => self.conflicts += 1,
            Ended::Conflict => {}
            // A wrong answer is told whenever it comes.
            Ended::Badly(trouble) if within.began || within.ended || WRONG.contains(&trouble.kind) => {
                *self.errors.entry(trouble.kind).or_default() += 1;
                self.first_error.get_or_insert(trouble.message);
            }
            Ended::Badly(_) => {}
        }
    }

    /// An operation was due so long before the end, and never begun: it has waited at least so long.
    pub(super) fn not_begun(&mut self, kind: Kind, waited: Duration) {
        self.not_begun += 1;
        self.kinds.entry(kind).or_default().latencies.record(waited);
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (kind, counts) in other.kinds {
            let own = self.kinds.entry(kind).or_default();
            own.operations += counts.operations;
            own.keys += counts.keys;
            own.bytes += counts.bytes;
            own.latencies.add(&counts.latencies);
        }
        merge(&mut self.errors, other.errors);
        merge(&mut self.paths, other.paths);
        merge(&mut self.nodes, other.nodes);
        self.first_error = self.first_error.take().or(other.first_error);
        self.conflicts += other.conflicts;
        self.verified += other.verified;
        self.not_begun += other.not_begun;
    }

    /// All kinds together.
    pub(super) fn all(&self) -> Counts {
        let mut all = Counts::default();
        for counts in self.kinds.values() {
            all.operations += counts.operations;
            all.keys += counts.keys;
            all.bytes += counts.bytes;
            all.latencies.add(&counts.latencies);
        }
        all
    }

    pub(super) fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn merge<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}

/// The longest stalls: of all operations together, and of those of each kind.
#[derive(Debug)]
pub(super) struct Stalls {
    all: Stall,
    kinds: BTreeMap<Kind, Stall>,
}

impl Stalls {
    /// The measured time begins, with operations of these kinds.
    pub(super) fn starting(at: u64, kinds: &[Kind]) -> Self {
        let kinds = kinds.iter().map(|kind| (*kind, Stall::starting(at))).collect();
        Self { all: Stall::starting(at), kinds }
    }

    pub(super) fn success(&self, kind: Kind, at: u64) {
        self.all.success(at);
        if let Some(stall) = self.kinds.get(&kind) {
            stall.success(at);
        }
    }

    /// The measured time ends.
    pub(super) fn end(&self, at: u64) -> LongestStalls {
        let stalls = self.kinds.values().chain([&self.all]);
        stalls.for_each(|stall| stall.success(at));
        let kinds: BTreeMap<_, _> = self.kinds.iter().map(|(kind, stall)| (*kind, stall.longest())).collect();
        // While nothing succeeds no kind does. Two that succeed at once on two threads may be seen in another order by each
        // stall, which then differ by that moment.
        let all = kinds.values().copied().chain([self.all.longest()]).min().unwrap_or_default();
        LongestStalls { all, kinds }
    }
}

/// How long nothing succeeded.
#[derive(Debug, Clone, Default)]
pub(super) struct LongestStalls {
    pub(super) all: Duration,
    pub(super) kinds: BTreeMap<Kind, Duration>,
}

/// The longest time in which nothing succeeded. Times are nanoseconds since the round began.
#[derive(Debug, Default)]
struct Stall {
    last: AtomicU64,
    longest: AtomicU64,
}

impl Stall {
    /// The measured time begins.
    fn starting(at: u64) -> Self {
        Self { last: AtomicU64::new(at), longest: AtomicU64::new(0) }
    }

    /// Something succeeded, or the measured time ends.
    fn success(&self, at: u64) {
        let last = self.last.fetch_max(at, Ordering::Relaxed);
        self.longest.fetch_max(at.saturating_sub(last), Ordering::Relaxed);
    }

    fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN: Within = Within { began: true, ended: true };

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(), None);
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let summary = latencies.summary().unwrap();
        let near = |ms: f64, expected: f64| (ms - expected).abs() <= expected / 500.0;
        assert_eq!(summary.count, 1_000);
        assert!(near(summary.min_ms, 0.001) && near(summary.max_ms, 1.0), "{summary:?}");
        assert!(near(summary.p50_ms, 0.5) && near(summary.p99_ms, 0.99), "{summary:?}");
        assert!(near(summary.p999_ms, 0.999) && near(summary.mean_ms, 0.5005), "{summary:?}");
    }

    #[test]
    fn throughput_counts_ends_and_latency_counts_beginnings() {
        let mut tally = Tally::default();
        let well = || Ended::Well(Success { keys: 1, bytes: 500, ..Success::default() });
        let second = Duration::from_secs(1);
        tally.add(Kind::Read, well(), second, IN);
        tally.add(Kind::Read, well(), second, Within { began: false, ended: true });
        tally.add(Kind::Read, well(), second, Within { began: true, ended: false });
        tally.add(Kind::Read, well(), second, Within { began: false, ended: false });
        let all = tally.all();
        assert_eq!((all.operations, all.bytes, all.latencies.count()), (2, 1_000, 2));
    }

    #[test]
    fn troubles_are_counted_by_kind_and_conflicts_apart() {
        let (mut tally, mut other) = (Tally::default(), Tally::default());
        let trouble = |kind| Ended::Badly(Trouble { kind, message: format!("{kind} it is") });
        tally.add(Kind::Cas, Ended::Conflict, Duration::ZERO, IN);
        tally.add(Kind::Cas, trouble("refused"), Duration::ZERO, IN);
        other.add(Kind::Cas, trouble("refused"), Duration::ZERO, IN);
        other.add(Kind::Cas, trouble(WRONG_VALUE), Duration::ZERO, Within { began: false, ended: false });
        other.add(Kind::Cas, trouble("refused"), Duration::ZERO, Within { began: false, ended: false });
        tally.merge(other);
        assert_eq!(tally.errors, BTreeMap::from([("refused", 2), (WRONG_VALUE, 1)]));
        assert_eq!((tally.conflicts, tally.errors_total()), (1, 3));
        assert_eq!(tally.first_error.as_deref(), Some("refused it is"));
        assert_eq!(tally.all().operations, 0);
    }

    #[test]
    fn what_was_never_begun_has_waited() {
        let mut tally = Tally::default();
        tally.not_begun(Kind::Write, Duration::from_millis(250));
        let summary = tally.all().latencies.summary().unwrap();
        assert!(summary.max_ms >= 250.0 && tally.not_begun == 1 && tally.all().operations == 0);
    }

    #[test]
    fn the_longest_stall_is_the_longest_gap_between_successes() {
        let stall = Stall::starting(100);
        for at in [110, 105, 150, 151] {
            stall.success(at);
        }
        assert_eq!(stall.longest(), Duration::from_nanos(40));
        stall.success(300);
        assert_eq!(stall.longest(), Duration::from_nanos(149), "the end of the measured time counts too");
    }

    #[test]
    fn a_stall_of_the_writes_is_seen_behind_reads_that_go_on() {
        let stalls = Stalls::starting(0, &[Kind::Read, Kind::Write]);
        stalls.success(Kind::Write, 10);
        (1..=10).for_each(|at| stalls.success(Kind::Read, 10 * at));
        let longest = stalls.end(100);
        let of = |kind| longest.kinds[&kind].as_nanos();
        assert_eq!((longest.all.as_nanos(), of(Kind::Read), of(Kind::Write)), (10, 10, 90));
    }
}
