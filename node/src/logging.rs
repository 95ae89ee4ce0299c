//! Log lines to stderr that never make anyone wait: a full pipe loses lines, and says how many, but blocks nothing.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::config::LogFormat;

/// Lines that may wait for stderr; what comes on top is lost.
const LINES_MAX: usize = 10_000;

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

static SINK: OnceLock<SyncSender<Item>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

/// Starts logging, filtered by `RUST_LOG` (`info` if it is not set). Called once, by `main`.
pub(crate) fn start(format: LogFormat) {
    let (sink, lines) = sync_channel(LINES_MAX);
    if SINK.set(sink).is_err() {
        return;
    }
    let spawned = thread::Builder::new().name("log".into()).spawn(move || write_out(&lines));
    if let Err(error) = spawned {
        write_direct(format!("cannot start the log's thread: {error}\n").as_bytes());
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines).with_target(false);
    match format {
        LogFormat::Plain => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Waits until the lines so far have left, but not longer than `patience`.
pub(crate) fn flush(patience: Duration) {
    let Some(sink) = SINK.get() else { return };
    let (done, wait) = sync_channel(1);
    if sink.try_send(Item::Flush(done)).is_ok() {
        // Nothing is lost by not waiting longer but the last lines.
        let _ = wait.recv_timeout(patience);
    }
}

fn write_out(lines: &Receiver<Item>) {
    while let Ok(item) = lines.recv() {
        match item {
            Item::Line(line) => write_direct(&line),
            Item::Flush(done) => drop(done.try_send(())),
        }
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            write_direct(format!("{lost} log lines were lost: stderr is too slow\n").as_bytes());
        }
    }
}

/// Nothing can be done about a log that cannot be written.
fn write_direct(line: &[u8]) {
    let _ = io::stderr().write_all(line);
}

/// Makes a writer for each log line.
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::with_capacity(256))
    }
}

/// One log line; it is handed over when it is complete.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(sink) = SINK.get() else { return };
        let line = std::mem::take(&mut self.0);
        if let Err(TrySendError::Full(_)) = sink.try_send(Item::Line(line)) {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}
