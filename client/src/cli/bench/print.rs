//! A report as text for people, as JSON, and as CSV.

use super::{
    figures::LatencySummary,
    report::{KindReport, Report, RoundReport},
};
use crate::cli::{args::Format, output::Output};

/// Prints a report.
pub(super) fn print(output: &mut Output, report: &Report) -> anyhow::Result<()> {
    match output.format() {
        Format::Json => output.json(report),
        Format::Csv => output.raw(csv(report).as_bytes()),
        Format::Plain | Format::Table => output.raw(plain(report).as_bytes()),
    }
}

/// The median round for each number of clients; the throughput of the others.
fn plain(report: &Report) -> String {
    let mut text = format!("{}: {}\n", report.workload, report.settings.line());
    for round in &report.medians {
        let same = report.rounds.iter().filter(|other| other.clients == round.clients);
        let rates: Vec<String> = same.map(|other| format!("{:.0}", other.all.ops_per_s)).collect();
        let s = if round.clients == 1 { "" } else { "s" };
        text += &format!("\n{} client{s}, measured {} s", round.clients, round.measured_s);
        if rates.len() > 1 {
            text += &format!(", the median of {} rounds ({} ops/s)", rates.len(), rates.join(", "));
        }
        text += if round.ended_early { ", ended early\n" } else { "\n" };
        text += &details(round);
    }
    if let Some(counters) = report.counters {
        let word = if counters.is_right() { "right" } else { "WRONG" };
        text += &format!(
            "\ncounters: {word}: {} increments acknowledged, {} of unknown outcome, {} found\n",
            counters.acknowledged, counters.unknown, counters.found
        );
    }
    text
}

fn details(round: &RoundReport) -> String {
    let mut text = throughput("throughput", &round.all) + &latency("latency", round.all.latency);
    if round.kinds.len() > 1 {
        for (kind, of_kind) in &round.kinds {
            text += &throughput(&format!("  {kind}s"), of_kind);
            text += &latency("", of_kind.latency);
        }
    }
    let mut line = |name: &str, value: String| text += &format!("{name:<16}{value}\n");
    let kinds: Vec<String> =
        round.errors_by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    match &round.first_error {
        Some(first) => line("errors", format!("{} ({}); the first: {first}", round.errors, kinds.join(", "))),
        None => line("errors", "0".to_owned()),
    }
    if round.conflicts > 0 {
        line("conflicts", round.conflicts.to_string());
    }
    if round.not_begun > 0 {
        line("not begun", format!("{} were due, and no client was free", round.not_begun));
    }
    line("longest stall", stalls(round));
    if round.values_verified > 0 {
        line("values read", format!("{}, all verified", round.values_verified));
    }
    let paths = round.reads_by_path;
    if paths.clean + paths.dirty > 0 {
        let (asked, awaited, at) = (paths.asked_tail, paths.awaited_commit, paths.at_tail);
        line(
            "reads",
            format!(
                "{} clean, {} dirty ({asked} asked the tail, {awaited} awaited the commit, {at} at the tail)",
                paths.clean, paths.dirty
            ),
        );
    }
    if let Some(counted) = round.nodes_counted {
        line("asked the tail", format!("{} questions, as the nodes count", counted.questions_to_tail));
    }
    if let Some(machine) = round.machine {
        line(
            "machine",
            format!(
                "client {} cores, host busy {} %, stolen {} %",
                machine.client_cores, machine.host_busy_percent, machine.host_stolen_percent
            ),
        );
    }
    text
}

/// The longest stall; of each kind too, where there are several.
fn stalls(round: &RoundReport) -> String {
    let mut text = format!("{} ms", round.all.longest_stall_ms);
    if round.kinds.len() > 1 {
        let each = round.kinds.iter().map(|(kind, of)| format!("{kind}s {} ms", of.longest_stall_ms));
        text += &format!(" ({})", each.collect::<Vec<_>>().join(", "));
    }
    text
}

fn throughput(name: &str, kind: &KindReport) -> String {
    let keys = if kind.keys_per_s > kind.ops_per_s {
        format!(", {:.0} keys/s", kind.keys_per_s)
    } else {
        String::new()
    };
    format!("{name:<16}{:.0} ops/s{keys}, {:.2} MB/s\n", kind.ops_per_s, kind.megabytes_per_s)
}

fn latency(name: &str, summary: Option<LatencySummary>) -> String {
    let Some(ms) = summary else { return String::new() };
    format!(
        "{name:<16}min {:.3}  p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3} ms\n",
        ms.min_ms, ms.p50_ms, ms.p90_ms, ms.p99_ms, ms.p999_ms, ms.max_ms
    )
}

/// A header, and a line for each round. What is not known is empty.
fn csv(report: &Report) -> String {
    let mut text = String::new();
    for (index, round) in report.rounds.iter().enumerate() {
        let fields = fields(report, round);
        let line = |values: Vec<String>| values.join(",") + "\n";
        if index == 0 {
            text += &line(fields.iter().map(|(name, _)| (*name).to_owned()).collect());
        }
        text += &line(fields.into_iter().map(|(_, value)| quoted(value)).collect());
    }
    text
}

fn fields(report: &Report, round: &RoundReport) -> Vec<(&'static str, String)> {
    let ms = |of: fn(&LatencySummary) -> f64| {
        round.all.latency.as_ref().map_or(String::new(), |l| of(l).to_string())
    };
    let (machine, counted) = (round.machine, round.nodes_counted);
    let of_machine = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    vec![
        ("workload", report.workload.to_owned()),
        ("clients", round.clients.to_string()),
        ("connections", round.connections.to_string()),
        ("round", round.round.to_string()),
        ("measured_s", round.measured_s.to_string()),
        ("ended_early", round.ended_early.to_string()),
        ("operations", round.all.operations.to_string()),
        ("ops_per_s", round.all.ops_per_s.to_string()),
        ("keys_per_s", round.all.keys_per_s.to_string()),
        ("megabytes_per_s", round.all.megabytes_per_s.to_string()),
        ("latency_min_ms", ms(|l| l.min_ms)),
        ("latency_mean_ms", ms(|l| l.mean_ms)),
        ("latency_p50_ms", ms(|l| l.p50_ms)),
        ("latency_p90_ms", ms(|l| l.p90_ms)),
        ("latency_p95_ms", ms(|l| l.p95_ms)),
        ("latency_p99_ms", ms(|l| l.p99_ms)),
        ("latency_p999_ms", ms(|l| l.p999_ms)),
        ("latency_max_ms", ms(|l| l.max_ms)),
        ("errors", round.errors.to_string()),
        ("wrong_values", round.wrong_values().to_string()),
        ("first_error", round.first_error.clone().unwrap_or_default()),
        ("conflicts", round.conflicts.to_string()),
        ("values_verified", round.values_verified.to_string()),
        ("not_begun", round.not_begun.to_string()),
        ("longest_stall_ms", round.all.longest_stall_ms.to_string()),
        ("reads_clean", round.reads_by_path.clean.to_string()),
        ("reads_dirty", round.reads_by_path.dirty.to_string()),
        ("reads_asked_tail", round.reads_by_path.asked_tail.to_string()),
        ("reads_awaited_commit", round.reads_by_path.awaited_commit.to_string()),
        ("reads_at_tail", round.reads_by_path.at_tail.to_string()),
        ("questions_to_tail", counted.map_or(String::new(), |counted| counted.questions_to_tail.to_string())),
        ("client_cores", of_machine(machine.map(|used| used.client_cores))),
        ("host_busy_percent", of_machine(machine.map(|used| used.host_busy_percent))),
        ("host_stolen_percent", of_machine(machine.map(|used| used.host_stolen_percent))),
    ]
}

/// As RFC 4180 has it.
fn quoted(value: String) -> String {
    if !value.contains([',', '"', '\n', '\r']) {
        return value;
    }
    format!("\"{}\"", value.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{
        args::{Args, Command},
        bench::{
            args::BenchCommand,
            plan::{Plan, Workload},
            report::{CounterCheck, tests::round},
        },
    };

    fn report() -> Report {
        let args = Args::try_parse_from(["craq", "bench", "read", "--clients", "1,8"]).unwrap();
        let Command::Bench(bench) = args.command else { panic!("another command") };
        let BenchCommand::Read(load) = bench.command else { panic!("another load") };
        let plan = Plan::new(Workload::Read, &load, &args.globals).unwrap();
        let rounds = vec![round(1, 1, 10), round(1, 2, 30), round(1, 3, 20), round(8, 1, 80)];
        Report::new(&plan, rounds, None)
    }

    #[test]
    fn plain_text_tells_the_median_of_each_number_of_clients() {
        let text = plain(&report());
        assert!(text.contains("1 client, measured 1 s, the median of 3 rounds (10, 30, 20 ops/s)"), "{text}");
        assert!(text.contains("8 clients, measured 1 s\n"), "{text}");
        assert!(text.contains("throughput      20 ops/s, 0.01 MB/s"), "{text}");
        assert!(
            text.contains("0 clean, 20 dirty (20 asked the tail, 0 awaited the commit, 0 at the tail)"),
            "{text}"
        );
        assert!(text.contains("errors          1 (wrong_value 1); the first: key 3"), "{text}");
        assert!(!text.contains("WRONG"), "{text}");
        let wrong = CounterCheck { acknowledged: 2, unknown: 0, found: 1 };
        let text = plain(&Report { counters: Some(wrong), ..report() });
        assert!(text.contains("counters: WRONG: 2 increments"), "{text}");
    }

    #[test]
    fn csv_has_a_header_and_a_line_for_each_round() {
        let text = csv(&report());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[0].starts_with("workload,clients,connections,round,measured_s,"), "{text}");
        assert!(lines[1].starts_with("read,1,1,1,1,false,10,10,10,0.005,"), "{text}");
        assert!(lines[1].contains(",\"key 3, \"\"bad\"\"\","), "{text}");
        assert!(lines[1].ends_with(",4,,,"), "what is not known is empty: {text}");
        assert_eq!(fields(&report(), &report().rounds[0]).len(), lines[0].split(',').count());
    }

    #[test]
    fn json_has_everything() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["rounds"].as_array().unwrap().len(), 4);
        let medians: Vec<_> =
            json["medians"].as_array().unwrap().iter().map(|m| m["operations"].clone()).collect();
        assert_eq!(medians, [20, 80]);
        assert_eq!(json["settings"]["value_bytes"], 500);
        assert_eq!(json.get("counters"), None);
    }
}
