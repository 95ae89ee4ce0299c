//! How it goes, on stderr if that is a terminal.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::window::Window;

const INTERVAL: Duration = Duration::from_millis(250);

/// A bar, and the live counts that stand beside it.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    well: AtomicU64,
    bad: AtomicU64,
}

impl Progress {
    /// A bar of so many steps. Shows nothing where stderr is no terminal.
    pub(super) fn new(name: &str, steps: u64) -> Self {
        Self::on(ProgressDrawTarget::stderr(), name, steps)
    }

    /// A bar that is never drawn.
    pub(super) fn hidden() -> Self {
        Self::on(ProgressDrawTarget::hidden(), "", 0)
    }

    fn on(target: ProgressDrawTarget, name: &str, steps: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {elapsed_precise} {bar:30} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        Self { bar, counts: Arc::default() }
    }

    /// An operation has ended.
    pub(super) fn count(&self, is_bad: bool) {
        let count = if is_bad { &self.counts.bad } else { &self.counts.well };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// So many steps more are done.
    pub(super) fn step(&self, steps: u64) {
        self.bar.inc(steps);
    }

    /// The line goes away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Follows a round: a step is a millisecond.
    pub(super) async fn watch(self, window: Arc<Window>) {
        let mut last = (0, window.now());
        loop {
            tokio::time::sleep(INTERVAL).await;
            let (well, now) = (self.counts.well.load(Ordering::Relaxed), window.now());
            let rate = (well - last.0) as f64 * 1e9 / (now - last.1).max(1) as f64;
            let phase = if now < window.start() { "warmup, " } else { "" };
            let errors = self.counts.bad.load(Ordering::Relaxed);
            self.bar.set_position(now.min(window.end()) / 1_000_000);
            self.bar.set_message(format!("{phase}{rate:.0} ops/s, {errors} errors"));
            last = (well, now);
        }
    }
}
