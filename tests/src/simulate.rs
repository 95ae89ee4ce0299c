//! Runs any number of seeds of the whole-cluster simulation, or one with all that happens.

#![expect(clippy::print_stdout, reason = "a program that tells what it found")]

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use craq_tests::sim::{self, Campaign, Setup, Summary};

/// Whole clusters in virtual time, under every fault, from seeds.
#[derive(Debug, Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// How long faults happen in each, in virtual seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How many seeds run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Tell all that happens, one line for each event: when, where, what, and the particulars. For one seed.
    #[arg(long)]
    trace: bool,
    /// Only a number that stands for all that happens, for each seed: two runs of a seed have the same.
    #[arg(long)]
    digest: bool,
    /// Plant these bugs, or all of them, one after the other, and say which seed finds it (needs `--features planted`).
    #[arg(long, value_name = "BUG,…|all", value_delimiter = ',')]
    planted: Vec<String>,
    /// With `--planted all`: write the table to this file.
    #[arg(long, value_name = "FILE")]
    page: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic in a run is a violation, which is told with its seed.
    std::panic::set_hook(Box::new(|_| ()));
    let duration = Duration::from_secs(arguments.seconds);
    if !arguments.planted.is_empty() {
        return plant(&arguments, duration);
    }
    let seeds = arguments.first..arguments.first + arguments.seeds;
    if arguments.trace {
        seeds.map(|seed| trace(seed, duration)).max().unwrap_or_default().into()
    } else if arguments.digest {
        for seed in seeds {
            println!("{seed} {:016x}", sim::digest(&Setup::draw(seed, duration)));
        }
        ExitCode::SUCCESS
    } else {
        run(&arguments, duration)
    }
}

fn trace(seed: u64, duration: Duration) -> u8 {
    let (report, lines) = sim::trace(&Setup::draw(seed, duration));
    let mut out = std::io::stdout().lock();
    for line in lines {
        // Whoever reads may have seen enough.
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    u8::from(report.violation.is_some())
}

fn run(arguments: &Arguments, duration: Duration) -> ExitCode {
    let Arguments { first, seeds, jobs, .. } = *arguments;
    let shows = std::io::stderr().is_terminal();
    let progress = |sum: &Summary| {
        if shows {
            let violations = sum.failed.len();
            eprint!("\r{} of {seeds} seeds, {violations} violations, {:.0?} ", sum.seeds, sum.took);
        }
    };
    let sum = Campaign { first, seeds, duration, jobs }.run(progress);
    if shows {
        eprintln!();
    }
    for failed in &sum.failed {
        let (seed, violation) = (failed.seed, &failed.violation);
        println!("seed {seed}: {}: {}", violation.check, violation.what);
        println!(
            "  again: cargo run --profile sim -p craq-tests --bin simulate -- --first {seed} --seeds 1 --seconds {} --trace\n",
            duration.as_secs()
        );
    }
    println!("{sum}");
    if sum.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(feature = "planted"))]
fn plant(_: &Arguments, _: Duration) -> ExitCode {
    eprintln!("this build has no planted bugs: build it with --features planted");
    ExitCode::from(2)
}

#[cfg(feature = "planted")]
fn plant(arguments: &Arguments, duration: Duration) -> ExitCode {
    use craq_proto::planted::{self, Bug};
    use craq_tests::sim::hunt::{Found, hunt, page};

    let named = arguments.planted.iter().map(|name| Bug::from_name(name).ok_or(name));
    let bugs = match named.collect::<Result<Vec<_>, _>>() {
        _ if arguments.planted == ["all"] => Bug::ALL.to_vec(),
        Ok(bugs) => bugs,
        Err(name) => {
            eprintln!("no bug has the name {name:?}");
            return ExitCode::from(2);
        }
    };
    if arguments.trace {
        planted::set(bugs.first().copied());
        return trace(arguments.first, duration).into();
    }
    let told = |found: &Found| match &found.by {
        Some((seed, violation)) => println!("{}: seed {seed}, {}", found.bug.name(), violation.check),
        None => println!("{}: NOT FOUND", found.bug.name()),
    };
    let found = hunt(&bugs, duration, arguments.jobs, told);
    if let Some(file) = &arguments.page
        && let Err(error) = std::fs::write(file, page(&found, duration))
    {
        eprintln!("cannot write {}: {error}", file.display());
        return ExitCode::from(74);
    }
    if found.iter().all(|found| found.by.is_some()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
