//! What a run says in the end, as objects. The names of the fields are a contract; units stand in them.

use std::{collections::BTreeMap, fmt, time::Duration};

use craq_client::Consistency;
use serde::Serialize;

use super::{
    counters::Questions,
    figures::{Counts, Kind, LatencySummary, WRONG},
    load::Round,
    machine::Use,
    plan::{Nodes, Plan},
};

/// A run: its settings, every round, and for each number of clients the round with the median throughput.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) workload: &'static str,
    pub(super) settings: Settings,
    pub(super) rounds: Vec<RoundReport>,
    pub(super) medians: Vec<RoundReport>,
    /// `cas` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counters: Option<CounterCheck>,
}

/// How it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    keys: u64,
    value_bytes: usize,
    read_ratio: f64,
    distribution: String,
    rate_per_s: Option<u64>,
    pipeline: u32,
    batch_keys: u64,
    duration_s: f64,
    warmup_s: f64,
    rounds: u32,
    consistency: String,
    nodes: String,
    seed: u64,
    prefix: String,
}

/// Whether each acknowledged increment took effect exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct CounterCheck {
    /// Increments that were acknowledged, warmup included.
    pub(super) acknowledged: u64,
    /// Increments whose outcome is unknown: each may have taken effect.
    pub(super) unknown: u64,
    /// By how much the sum of all counters has grown.
    pub(super) found: u64,
}

impl CounterCheck {
    pub(super) fn is_right(&self) -> bool {
        (self.acknowledged..=self.acknowledged + self.unknown).contains(&self.found)
    }
}

/// Throughput and latencies of operations of one kind.
#[derive(Debug, Clone, Serialize)]
pub(super) struct KindReport {
    pub(super) operations: u64,
    pub(super) ops_per_s: f64,
    pub(super) keys_per_s: f64,
    pub(super) megabytes_per_s: f64,
    /// The longest time in which none ended well.
    pub(super) longest_stall_ms: f64,
    /// None: no operation began and ended well.
    pub(super) latency: Option<LatencySummary>,
}

impl KindReport {
    fn new(counts: &Counts, seconds: f64, stall: Duration) -> Self {
        let per_s = |number: u64| if seconds > 0.0 { tenths(number as f64 / seconds) } else { 0.0 };
        Self {
            operations: counts.operations,
            ops_per_s: per_s(counts.operations),
            keys_per_s: per_s(counts.keys),
            megabytes_per_s: if seconds > 0.0 {
                thousandths(counts.bytes as f64 / 1e6 / seconds)
            } else {
                0.0
            },
            longest_stall_ms: thousandths(stall.as_secs_f64() * 1e3),
            latency: counts.latencies.summary(),
        }
    }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn thousandths(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// How reads were answered, as the answers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Paths {
    /// By one replica alone.
    pub(super) clean: u64,
    /// The sum of those below.
    pub(super) dirty: u64,
    /// By a replica that asked the tail which version is committed.
    pub(super) asked_tail: u64,
    /// By a replica that did not have to ask: the key was committed meanwhile.
    pub(super) awaited_commit: u64,
    /// By the tail, which knew itself.
    pub(super) at_tail: u64,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RoundReport {
    pub(super) clients: u32,
    pub(super) connections: u32,
    /// From 1, for each number of clients.
    pub(super) round: u32,
    pub(super) measured_s: f64,
    pub(super) ended_early: bool,
    #[serde(flatten)]
    pub(super) all: KindReport,
    /// By kind, where there are several.
    pub(super) kinds: BTreeMap<&'static str, KindReport>,
    pub(super) errors: u64,
    pub(super) errors_by_kind: BTreeMap<&'static str, u64>,
    pub(super) first_error: Option<String>,
    /// `cas`: conditions that were false.
    pub(super) conflicts: u64,
    /// Values that were read and found right.
    pub(super) values_verified: u64,
    /// With a rate: due in the measured time, and no client was free in it.
    pub(super) not_begun: u64,
    pub(super) reads_by_path: Paths,
    pub(super) reads_by_node: BTreeMap<String, u64>,
    /// Of all nodes together, whoever asked; none if unknown.
    pub(super) nodes_counted: Option<Questions>,
    /// None where the system does not tell.
    pub(super) machine: Option<Use>,
}

impl RoundReport {
    pub(super) fn new(round: Round, number: u32) -> Self {
        let seconds = round.measured.as_secs_f64();
        let tally = round.tally;
        let path = |name: &str| tally.paths.get(name).copied().unwrap_or_default();
        let (asked_tail, awaited_commit, at_tail) =
            (path("asked-tail"), path("awaited-commit"), path("at-tail"));
        let dirty = asked_tail + awaited_commit + at_tail;
        let kinds = tally.kinds.iter();
        let stalls = round.longest_stalls;
        let of = |kind: Kind, counts: &Counts| {
            KindReport::new(counts, seconds, stalls.kinds.get(&kind).copied().unwrap_or(stalls.all))
        };
        Self {
            clients: round.clients,
            connections: round.connections,
            round: number,
            measured_s: thousandths(seconds * 1e3) / 1e3,
            ended_early: round.ended_early,
            all: KindReport::new(&tally.all(), seconds, stalls.all),
            kinds: kinds.map(|(kind, counts)| (kind.as_str(), of(*kind, counts))).collect(),
            errors: tally.errors_total(),
            conflicts: tally.conflicts,
            values_verified: tally.verified,
            not_begun: tally.not_begun,
            reads_by_path: Paths { clean: path("clean"), dirty, asked_tail, awaited_commit, at_tail },
            reads_by_node: tally.nodes,
            errors_by_kind: tally.errors,
            first_error: tally.first_error,
            nodes_counted: round.counted,
            machine: round.machine,
        }
    }

    /// Reads that brought a wrong value, a damaged one, or none where one was written.
    pub(super) fn wrong_values(&self) -> u64 {
        WRONG.iter().filter_map(|kind| self.errors_by_kind.get(kind)).sum()
    }
}

impl Report {
    pub(super) fn new(plan: &Plan, rounds: Vec<RoundReport>, counters: Option<CounterCheck>) -> Self {
        let of = |clients: u32| rounds.iter().filter(move |round| round.clients == clients).collect();
        let mut sizes: Vec<u32> = rounds.iter().map(|round| round.clients).collect();
        sizes.dedup();
        let medians = sizes.into_iter().filter_map(|clients| median(of(clients)).cloned()).collect();
        Self { workload: plan.workload.as_str(), settings: Settings::of(plan), rounds, medians, counters }
    }
}

/// The round with the median throughput; of two in the middle, the slower one.
fn median(mut rounds: Vec<&RoundReport>) -> Option<&RoundReport> {
    rounds.sort_by(|a, b| a.all.ops_per_s.total_cmp(&b.all.ops_per_s));
    rounds.get(rounds.len().saturating_sub(1) / 2).copied()
}

impl Settings {
    fn of(plan: &Plan) -> Self {
        Self {
            keys: plan.keys.count,
            value_bytes: plan.keys.value_bytes,
            read_ratio: plan.read_ratio,
            distribution: plan.distribution.to_string(),
            rate_per_s: plan.rate,
            pipeline: plan.pipeline,
            batch_keys: plan.batch,
            duration_s: plan.duration.as_secs_f64(),
            warmup_s: plan.warmup.as_secs_f64(),
            rounds: plan.rounds,
            consistency: Mode(plan.consistency).to_string(),
            nodes: match &plan.nodes {
                Nodes::Any => "any".to_owned(),
                Nodes::One(node) => node.clone(),
                Nodes::All => "all".to_owned(),
            },
            seed: plan.seed,
            prefix: plan.keys.prefix.clone(),
        }
    }

    /// In words.
    pub(super) fn line(&self) -> String {
        let pace = match self.rate_per_s {
            Some(rate) => format!("open loop, {rate} operations due each second"),
            None => "closed loop".to_owned(),
        };
        format!(
            "{pace}; {} keys, {}, values of {} bytes; reads {}, nodes {}; {} under way for each client",
            self.keys, self.distribution, self.value_bytes, self.consistency, self.nodes, self.pipeline
        )
    }
}

/// As it is given on the command line.
struct Mode(Consistency);

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Consistency::Strong => f.write_str("strong"),
            Consistency::Eventual => f.write_str("eventual"),
            Consistency::Bounded(bound) => write!(f, "bounded:{}", humantime::format_duration(bound)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::bench::figures::{
        Ended, Kind, LongestStalls, Success, Tally, Trouble, WRONG_VALUE, Within,
    };

    /// A round of a second with so many reads, 250 µs each.
    pub(in crate::cli::bench) fn round(clients: u32, number: u32, reads: u64) -> RoundReport {
        let mut tally = Tally::default();
        let within = Within { began: true, ended: true };
        for _ in 0..reads {
            let success = Success {
                keys: 1,
                bytes: 500,
                verified: 1,
                reads: vec![(craq_client::ReadPath::AskedTail, "a:1".to_owned(), 1)],
            };
            tally.add(Kind::Read, Ended::Well(success), Duration::from_micros(250), within);
        }
        let trouble = Trouble { kind: WRONG_VALUE, message: "key 3, \"bad\"".to_owned() };
        tally.add(Kind::Read, Ended::Badly(trouble), Duration::ZERO, within);
        let round = Round {
            clients,
            connections: 1,
            measured: Duration::from_secs(1),
            ended_early: false,
            tally,
            longest_stalls: LongestStalls { all: Duration::from_micros(1_500), ..LongestStalls::default() },
            machine: None,
            counted: Some(Questions { questions_to_tail: 4, ..Questions::default() }),
            increments: (0, 0),
        };
        RoundReport::new(round, number)
    }

    #[test]
    fn the_round_in_the_middle_is_told() {
        let rounds: Vec<_> = [30, 10, 20, 40].iter().map(|reads| round(1, 1, *reads)).collect();
        let median_of = |count: usize| median(rounds[..count].iter().collect()).unwrap().all.operations;
        assert_eq!([median_of(1), median_of(2), median_of(3), median_of(4)], [30, 10, 20, 20]);
        assert!(median(vec![]).is_none());
    }

    #[test]
    fn a_round_has_its_figures_under_names_with_units() {
        let json = serde_json::to_value(round(8, 2, 100)).unwrap();
        for (field, expected) in [
            ("/clients", serde_json::json!(8)),
            ("/operations", serde_json::json!(100)),
            ("/ops_per_s", serde_json::json!(100.0)),
            ("/megabytes_per_s", serde_json::json!(0.05)),
            ("/latency/count", serde_json::json!(100)),
            ("/kinds/read/operations", serde_json::json!(100)),
            ("/errors_by_kind/wrong_value", serde_json::json!(1)),
            ("/longest_stall_ms", serde_json::json!(1.5)),
            ("/reads_by_path/dirty", serde_json::json!(100)),
            ("/reads_by_node/a:1", serde_json::json!(100)),
            ("/nodes_counted/questions_to_tail", serde_json::json!(4)),
            ("/machine", serde_json::Value::Null),
        ] {
            assert_eq!(json.pointer(field), Some(&expected), "{field} in {json}");
        }
        let p50 = json["latency"]["p50_ms"].as_f64().unwrap();
        assert!((0.249..0.251).contains(&p50), "{p50}");
    }

    #[test]
    fn each_acknowledged_increment_must_be_there_once() {
        let check = |found| CounterCheck { acknowledged: 10, unknown: 2, found };
        assert!([10, 11, 12].iter().all(|found| check(*found).is_right()));
        assert!(!check(9).is_right() && !check(13).is_right());
    }
}
