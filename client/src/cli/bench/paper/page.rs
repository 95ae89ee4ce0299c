//! The page: tables with the paper's figures beside, pictures, and how it was measured.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;

use super::measure::{Figures, Mixed, Settings};
use crate::cli::bench::{
    args::PaperArgs,
    figures::LatencySummary,
    plot::{Chart, Series, svg},
    report::RoundReport,
};

/// The paper's medians, operations per second: length, reads (figure 4), writes and test-and-set (figure 5).
const PAPER: [(u16, u32, u32, u32); 3] =
    [(3, 59_882, 5_514, 776), (5, 99_466, 4_999, 427), (7, 138_833, 4_538, 308)];
/// Its reads at the tail alone, with three nodes.
const PAPER_TAIL: f64 = 20_552.0;
/// Its share of the read-only rate that is left at the highest rate of writes, with three nodes: (figures 6 and 8)
/// clean, dirty.
const PAPER_LEFT: (f64, f64) = (25.4, 42.3);

/// Writes `paper.md`, `paper.json` and the pictures.
pub(super) fn write(
    args: &PaperArgs,
    percent: u32,
    settings: Settings,
    all: &[Figures],
) -> anyhow::Result<()> {
    let directory = &args.directory;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    save(directory, "paper.json", &(serde_json::to_string_pretty(all)? + "\n"))?;
    for (name, chart) in charts(all) {
        save(directory, name, &svg(&[chart])?)?;
    }
    save(directory, "paper.md", &text(args, percent, settings, all))
}

fn save(directory: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let file = directory.join(name);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn series(name: impl Into<String>, points: impl Iterator<Item = (f64, f64)>) -> Series {
    let mut points: Vec<_> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Series { name: name.into(), points }
}

fn chart(title: &str, x: &str, y: &str, series: Vec<Series>) -> Chart {
    let (title, x, y) = (title.to_owned(), x.to_owned(), y.to_owned());
    Chart { title, x, y, log_x: false, log_y: false, series }
}

fn charts(all: &[Figures]) -> Vec<(&'static str, Chart)> {
    let by_length = |name: &str, of: fn(&Figures) -> &RoundReport| {
        series(name, all.iter().map(|figures| (f64::from(figures.nodes), of(figures).all.ops_per_s)))
    };
    let reads =
        vec![by_length("all nodes (CRAQ)", |f| &f.reads), by_length("tail alone (CR)", |f| &f.reads_at_tail)];
    let writes = vec![by_length("writes", |f| &f.writes), by_length("test-and-set", |f| &f.test_and_set)];
    let (beside, paths) = beside_writes(all);
    let (reads_per_s, writes_per_s) = ("reads per second", "writes per second");
    vec![
        ("reads.svg", chart("strong reads, no writes", "nodes", reads_per_s, reads)),
        ("writes.svg", chart("writes of one key", "nodes", "operations per second", writes)),
        (
            "reads-under-writes.svg",
            chart("strong reads beside writes of the same key", writes_per_s, reads_per_s, beside),
        ),
        ("paths.svg", chart("clean and dirty reads", writes_per_s, reads_per_s, paths)),
    ]
}

/// Reads against writes: for each length; and, of a chain of three if there is one, by how they were answered.
fn beside_writes(all: &[Figures]) -> (Vec<Series>, Vec<Series>) {
    let line = |name: String, at_zero: f64, mixed: &[Mixed], of: fn(&Mixed) -> f64| {
        let points = mixed.iter().map(move |mixed| (mixed.writes.all.ops_per_s, of(mixed)));
        series(name, [(0.0, at_zero)].into_iter().chain(points))
    };
    let reads_of = |mixed: &Mixed| mixed.reads.all.ops_per_s;
    let at_all = |f: &Figures| {
        line(format!("CRAQ-{}", f.nodes), f.reads.all.ops_per_s, &f.reads_under_writes, reads_of)
    };
    let mut beside: Vec<Series> = all.iter().map(at_all).collect();
    let Some(f) = all.iter().find(|figures| figures.nodes == 3).or(all.last()) else {
        return (beside, vec![]);
    };
    let (alone, tail) = (f.reads.all.ops_per_s, f.reads_at_tail.all.ops_per_s);
    beside.push(line(format!("CR-{}", f.nodes), tail, &f.reads_at_tail_under_writes, reads_of));
    let paths = vec![
        line("all".to_owned(), alone, &f.reads_under_writes, reads_of),
        line("clean".to_owned(), alone, &f.reads_under_writes, |mixed| reads_of_path(mixed).0),
        line("dirty".to_owned(), 0.0, &f.reads_under_writes, |mixed| reads_of_path(mixed).1),
    ];
    (beside, paths)
}

/// Clean and dirty reads per second.
fn reads_of_path(mixed: &Mixed) -> (f64, f64) {
    let per_s =
        |count: u64| if mixed.reads.measured_s > 0.0 { count as f64 / mixed.reads.measured_s } else { 0.0 };
    (per_s(mixed.reads.reads_by_path.clean), per_s(mixed.reads.reads_by_path.dirty))
}

fn text(args: &PaperArgs, percent: u32, settings: Settings, all: &[Figures]) -> String {
    let mut text = String::from("# The CRAQ paper's measurements\n\n");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build =
        if cfg!(debug_assertions) { "a debug build, whose figures say nothing" } else { "a release build" };
    let _ = writeln!(
        text,
        "Measured with `craq bench paper` of {build}, on one machine with {cores} cores: each node gets {percent} % of one \
         core (a cgroup), and the clients have what is left. {} readers for each node, as many writers, one key with a value of 500 bytes, {:?} for each \
         figure, store: {}. The paper had a machine for each node, a network of 100 Mbit/s, which was its limit, and its \
         values in memory; so what can be compared is how figures grow with the chain, not how large they are.\n",
        settings.clients,
        settings.duration,
        args.store.as_str(),
    );
    if settings.quick {
        text += "This was a smoke run (`--quick`): its figures say nothing.\n\n";
    }
    let errors: u64 = all.iter().flat_map(rounds).map(|round| round.errors).sum();
    let _ = writeln!(text, "Errors in all rounds: {errors}. All figures: [paper.json](paper.json).\n");
    reads(&mut text, all);
    writes(&mut text, all);
    under_writes(&mut text, all);
    latencies(&mut text, all);
    let lengths: Vec<String> = all.iter().map(|figures| figures.nodes.to_string()).collect();
    let _ = writeln!(
        text,
        "\n## Again\n\n```sh\ncraq bench paper --nodes {} --cap {percent} --duration {} --clients {} --store {}\n```\n\n\
         Each figure alone, on any cluster:\n\n```sh\ncraq bench read --keys 1 --clients {clients} -n all            # reads; as many clients for each node\n\
         craq bench read --keys 1 --clients {clients} -n TAIL          # as in chain replication\n\
         craq bench write --keys 1 --clients {clients}                # writes\n\
         craq bench cas --keys 1 --clients 1                   # test-and-set\n```",
        lengths.join(","),
        humantime::format_duration(settings.duration),
        settings.clients,
        args.store.as_str(),
        clients = settings.clients,
    );
    text
}

fn rounds(figures: &Figures) -> Vec<&RoundReport> {
    let alone = [&figures.reads, &figures.reads_at_tail, &figures.writes, &figures.test_and_set];
    let idle = [&figures.idle_reads, &figures.idle_writes];
    let mixed = figures.reads_under_writes.iter().chain(&figures.reads_at_tail_under_writes);
    alone.into_iter().chain(idle).chain(mixed.flat_map(|mixed| [&mixed.reads, &mixed.writes])).collect()
}

fn paper(nodes: u16) -> Option<(u16, u32, u32, u32)> {
    PAPER.into_iter().find(|row| row.0 == nodes)
}

fn reads(text: &mut String, all: &[Figures]) {
    *text += "## Reads (figure 4)\n\n![reads](reads.svg)\n\n";
    *text += "| nodes | reads/s at all nodes | reads/s at the tail | times | paper: reads/s | times its CR-3 (20,552) | host busy % |\n";
    *text += "|---|---|---|---|---|---|---|\n";
    for figures in all {
        let (everywhere, tail) = (figures.reads.all.ops_per_s, figures.reads_at_tail.all.ops_per_s);
        let times = if tail > 0.0 { everywhere / tail } else { 0.0 };
        let (theirs, their_times) = match paper(figures.nodes) {
            Some((_, reads, ..)) => (reads.to_string(), format!("{:.1}", f64::from(reads) / PAPER_TAIL)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let busy = figures.reads.machine.map_or("-".to_owned(), |used| used.host_busy_percent.to_string());
        let _ = writeln!(
            text,
            "| {} | {everywhere:.0} | {tail:.0} | {times:.1} | {theirs} | {their_times} | {busy} |",
            figures.nodes
        );
    }
    *text += "\nWhen the host is all but busy, the clients were the limit, and more nodes would have answered more.\n\n";
}

fn writes(text: &mut String, all: &[Figures]) {
    *text += "## Writes (figure 5)\n\n![writes](writes.svg)\n\n";
    *text += "| nodes | writes/s | test-and-set/s | paper: writes/s | paper: test-and-set/s |\n|---|---|---|---|---|\n";
    for figures in all {
        let (writes, sets) = (figures.writes.all.ops_per_s, figures.test_and_set.all.ops_per_s);
        let (their_writes, their_sets) = match paper(figures.nodes) {
            Some((_, _, writes, sets)) => (writes.to_string(), sets.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let _ =
            writeln!(text, "| {} | {writes:.0} | {sets:.0} | {their_writes} | {their_sets} |", figures.nodes);
    }
    *text += "\n";
}

fn under_writes(text: &mut String, all: &[Figures]) {
    *text += "## Reads beside writes (figures 6 and 8)\n\n![reads beside writes](reads-under-writes.svg)\n\n";
    *text += "![clean and dirty](paths.svg)\n\nIn percent of the reads without writes; \"tail\": reads at the tail alone, of \
              the reads there without writes. A node that has used up its share of CPU rests until the next 10 ms begin, and whoever \
              has asked it waits so long: so a dirty read, which wants to hear from another node, costs more than with a \
              machine for each node, above all beside few writes, when the next commit is far off.\n\n";
    *text += "| nodes | writes/s | reads/s | left % | clean % | dirty % | questions/s to the tail | tail: reads/s | tail: left % |\n";
    *text += "|---|---|---|---|---|---|---|---|---|\n";
    for figures in all {
        let share = |part: f64, of: f64| if of > 0.0 { 100.0 * part / of } else { 0.0 };
        let alone = (figures.reads.all.ops_per_s, figures.reads_at_tail.all.ops_per_s);
        for (mixed, tail) in figures.reads_under_writes.iter().zip(&figures.reads_at_tail_under_writes) {
            let (clean, dirty) = reads_of_path(mixed);
            let (reads, at_tail) = (mixed.reads.all.ops_per_s, tail.reads.all.ops_per_s);
            let counted = mixed.reads.nodes_counted;
            let questions = counted.map_or("-".to_owned(), |counted| {
                format!("{:.0}", counted.questions_to_tail as f64 / mixed.reads.measured_s.max(0.001))
            });
            let _ = writeln!(
                text,
                "| {} | {:.0} | {reads:.0} | {:.0} | {:.0} | {:.0} | {questions} | {at_tail:.0} | {:.0} |",
                figures.nodes,
                mixed.writes.all.ops_per_s,
                share(reads, alone.0),
                share(clean, alone.0),
                share(dirty, alone.0),
                share(at_tail, alone.1),
            );
        }
    }
    let (clean, dirty) = PAPER_LEFT;
    let _ = writeln!(
        text,
        "\nThe paper, three nodes, at the highest rate of writes: {clean} % clean and {dirty} % dirty, {:.1} % left; at the tail \
         alone 99 % (20,430 of 20,552 reads/s).\n",
        clean + dirty
    );
}

fn latencies(text: &mut String, all: &[Figures]) {
    *text += "## Latencies (figure 9)\n\nMilliseconds: median / 95th / 99th percentile.\n\n";
    *text += "| nodes | read, idle | write, idle | read, loaded | read, loaded, with most writes | write, loaded |\n";
    *text += "|---|---|---|---|---|---|\n";
    let ms = |latency: Option<&LatencySummary>| match latency {
        Some(ms) => format!("{:.2} / {:.2} / {:.2}", ms.p50_ms, ms.p95_ms, ms.p99_ms),
        None => "-".to_owned(),
    };
    for figures in all {
        let most = figures.reads_under_writes.last();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            figures.nodes,
            ms(figures.idle_reads.all.latency.as_ref()),
            ms(figures.idle_writes.all.latency.as_ref()),
            ms(figures.reads.all.latency.as_ref()),
            ms(most.and_then(|mixed| mixed.reads.all.latency.as_ref())),
            ms(figures.writes.all.latency.as_ref()),
        );
    }
    *text += "| paper, 3 | 0.49 / 0.74 / 0.74 | 2.05 / 2.29 / 2.43 | clean 1.49 / 2.74 / 3.24 | dirty 2.98 / 5.48 / 6.23 | \
              5.75 / 7.26 / 7.88 |\n";
    *text += "| paper, 6 | | 4.51 / 4.93 / 5.01 | | | 20.65 / 21.66 / 22.09 |\n";
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{
        args::{Args, Command},
        bench::{args::BenchCommand, report::tests::round},
    };

    fn figures(nodes: u16, reads: u64) -> Figures {
        let of = |operations| round(50, 1, operations);
        let mixed = |reads| vec![Mixed { due_per_s: 10, reads: of(reads), writes: of(10) }];
        Figures {
            nodes,
            reads: of(reads),
            reads_at_tail: of(100),
            writes: of(20),
            test_and_set: of(5),
            idle_reads: of(8),
            idle_writes: of(9),
            reads_under_writes: mixed(reads / 2),
            reads_at_tail_under_writes: mixed(75),
        }
    }

    #[test]
    fn the_page_sets_our_figures_beside_the_papers() {
        let args = Args::try_parse_from(["craq", "bench", "paper", "--store", "redb"]).unwrap();
        let Command::Bench(bench) = args.command else { panic!("another command") };
        let BenchCommand::Paper(args) = bench.command else { panic!("another bench") };
        let settings = Settings { duration: args.duration, clients: 50, quick: false };
        let text = text(&args, 20, settings, &[figures(1, 100), figures(3, 300)]);
        for line in [
            "| 1 | 100 | 100 | 1.0 | - | - | - |",
            "| 3 | 300 | 100 | 3.0 | 59882 | 2.9 | - |",
            "| 3 | 20 | 5 | 5514 | 776 |",
            "| 3 | 10 | 150 | 50 | 0 | 50 | 4 | 75 | 75 |",
            "| 3 | 0.25 / 0.25 / 0.25 |",
            "craq bench paper --nodes 1,3 --cap 20 --duration 5s --clients 50 --store redb",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert!(!text.contains("smoke run"));
    }

    #[test]
    fn pictures_have_a_line_for_each_chain_and_one_for_the_tail() {
        let all = [figures(1, 100), figures(3, 300), figures(5, 500)];
        let lines: Vec<_> =
            charts(&all).into_iter().map(|(name, chart)| (name, chart.series.len())).collect();
        assert_eq!(
            lines,
            [("reads.svg", 2), ("writes.svg", 2), ("reads-under-writes.svg", 4), ("paths.svg", 3)]
        );
        let (_, beside) = charts(&all).swap_remove(2);
        assert_eq!(beside.series[3].name, "CR-3");
        assert_eq!(beside.series[1].points, [(0.0, 300.0), (10.0, 150.0)]);
    }
}
