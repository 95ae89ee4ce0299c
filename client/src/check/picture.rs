//! A history as a page for a browser: a lane for each client, time from left to right, the offending call marked. One
//! file, without scripts and without anything from elsewhere.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{
    history::{Op, Outcome},
    linearizability::Violation,
    text::{call, line, outcome},
};

const WIDTH: f64 = 1_100.0;
const MARGIN: f64 = 90.0;
const ROW: f64 = 34.0;
const TOP: f64 = 40.0;
/// So that calls of no length can be seen.
const BAR_MIN: f64 = 4.0;
/// Marks on the axis of time.
const TICKS: u32 = 8;

const STYLE: &str = "body{font:14px sans-serif;margin:2em;color:#222}text{font:11px monospace}\
.applied{fill:#8fbf8f}.found{fill:#8fb4d9}.refused{fill:#d9c48f}.failed{fill:#ccc}.unknown{fill:#e0b0d0}\
.culprit{stroke:#c00;stroke-width:3}.axis{stroke:#ccc}li.culprit{color:#c00;font-weight:bold}\
li{font-family:monospace;margin:.2em 0}span.key{padding:.1em .6em;margin-right:.6em;border-radius:3px}";

/// Draws the calls of a violation.
#[must_use]
pub fn html(violation: &Violation) -> String {
    let ops = &violation.ops;
    let mut page = String::new();
    let keys = escape(&violation.keys.join(", "));
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Not linearizable</title>\
         <style>{STYLE}</style></head><body>\n<h1>Not linearizable</h1>\n<p>No order of these calls explains their \
         answers. Keys: {keys}. The call with the red frame made the history illegal.</p>\n"
    );
    if violation.hidden > 0 {
        let _ = writeln!(
            page,
            "<p>{} more writes of these keys are not shown: it is illegal whenever they took effect.</p>",
            violation.hidden
        );
    }
    for (class, colour, name) in [
        ("applied", "#8fbf8f", "write applied"),
        ("found", "#8fb4d9", "read"),
        ("refused", "#d9c48f", "condition false"),
        ("unknown", "#e0b0d0", "outcome unknown: open to the end"),
    ] {
        let _ =
            write!(page, "<span class=\"key\" id=\"{class}\" style=\"background:{colour}\">{name}</span>");
    }
    page.push('\n');
    draw(&mut page, ops, violation.culprit);
    page.push_str("<ol>\n");
    for (number, op) in ops.iter().enumerate() {
        let class = if number == violation.culprit { " class=\"culprit\"" } else { "" };
        let _ = writeln!(page, "<li{class}>{}</li>", escape(&line(op)));
    }
    page.push_str("</ol>\n</body></html>\n");
    page
}

/// Where times are on the page.
struct Scale {
    from: Duration,
    length: f64,
}

impl Scale {
    fn new(ops: &[Op]) -> Self {
        let from = ops.iter().map(|op| op.invoked).min().unwrap_or_default();
        let closed = ops.iter().filter(|op| !is_open(op));
        let to =
            closed.map(|op| op.returned).chain(ops.iter().map(|op| op.invoked)).max().unwrap_or_default();
        // A little beyond, where open calls go on.
        Self { from, length: to.saturating_sub(from).as_secs_f64().max(1e-9) * 1.05 }
    }

    fn x(&self, at: Duration) -> f64 {
        MARGIN + (at.saturating_sub(self.from).as_secs_f64() / self.length).min(1.0) * (WIDTH - MARGIN)
    }
}

fn is_open(op: &Op) -> bool {
    op.is_write() && matches!(op.outcome, Outcome::Unknown(_))
}

fn draw(page: &mut String, ops: &[Op], culprit: usize) {
    let scale = Scale::new(ops);
    let (rows, names) = rows(ops);
    let height = TOP + ROW * names.len() as f64 + 10.0;
    let _ = writeln!(page, "<p><svg width=\"{}\" height=\"{height}\" role=\"img\">", WIDTH + 40.0);
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let x = MARGIN + share * (WIDTH - MARGIN);
        let time = scale.from.as_secs_f64() * 1e3 + share * scale.length * 1e3;
        let _ = writeln!(
            page,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"20\" y2=\"{height}\"/>\
             <text x=\"{x:.1}\" y=\"14\" text-anchor=\"middle\">{time:.3} ms</text>"
        );
    }
    for (row, name) in names.iter().enumerate() {
        let y = TOP + ROW * row as f64 + 14.0;
        let _ = writeln!(page, "<text x=\"0\" y=\"{y}\">{name}</text>");
    }
    for (number, op) in ops.iter().enumerate() {
        let (x, y) = (scale.x(op.invoked), TOP + ROW * rows[number] as f64);
        let end = if is_open(op) { WIDTH } else { scale.x(op.returned) };
        let width = (end - x).max(BAR_MIN);
        let mark = if number == culprit { " culprit" } else { "" };
        let label = escape(&format!("{}: {}", call(op), outcome(op)));
        // On the right there is no room for words: they end there.
        let (at, anchor) = if x > WIDTH * 0.6 { (x + width, "end") } else { (x, "start") };
        let _ = writeln!(
            page,
            "<g><title>{}</title><rect class=\"{}{mark}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"14\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text></g>",
            escape(&line(op)),
            class(op),
            y + 25.0
        );
    }
    page.push_str("</svg></p>\n");
}

fn class(op: &Op) -> &'static str {
    match op.outcome {
        Outcome::Applied { .. } => "applied",
        Outcome::Found(_) => "found",
        Outcome::ConditionFailed { .. } => "refused",
        Outcome::NotApplied(_) => "failed",
        Outcome::Unknown(_) => "unknown",
    }
}

/// The row of each call, and the names of the rows: a client has as many as it has calls at once.
fn rows(ops: &[Op]) -> (Vec<usize>, Vec<String>) {
    let mut order: Vec<usize> = (0..ops.len()).collect();
    order.sort_by_key(|number| (ops[*number].client, ops[*number].invoked));
    let mut rows = vec![0; ops.len()];
    let mut names = Vec::new();
    // Of each of the client's rows: its number, and until when it is taken.
    let mut lanes: BTreeMap<u32, Vec<(usize, Duration)>> = BTreeMap::new();
    for number in order {
        let op = &ops[number];
        let until = if is_open(op) { Duration::MAX } else { op.returned };
        let own = lanes.entry(op.client).or_default();
        if let Some((row, taken)) = own.iter_mut().find(|(_, taken)| *taken < op.invoked) {
            (rows[number], *taken) = (*row, until);
            continue;
        }
        names.push(format!("client {}", op.client));
        rows[number] = names.len() - 1;
        own.push((names.len() - 1, until));
    }
    (rows, names)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
