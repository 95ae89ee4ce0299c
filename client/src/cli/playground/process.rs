//! One child process: its start, its last words, its end.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// What a child logs when it takes connections; its address follows.
const LISTENING: &str = "listening on ";
/// How long a child may take to say so.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a child may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the rest of a dead child's log is waited for.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// How many of a child's last log lines are shown when it dies.
const LAST_LINES: usize = 20;

type LastLines = Arc<Mutex<VecDeque<String>>>;

/// A child process.
pub(super) struct Process {
    name: String,
    child: Child,
    pid: u32,
    address: String,
    last_lines: LastLines,
    reader: Option<JoinHandle<()>>,
    log: PathBuf,
    running: bool,
}

/// What there is to tell of a child.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    pub(super) pid: u32,
    pub(super) address: String,
}

impl Process {
    /// Starts a child and returns when it takes connections. Its log goes to a file in `directory`.
    pub(super) async fn start(
        name: &str,
        program: &Path,
        args: &[&OsStr],
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let mut command = Command::new(program);
        // Settings meant for other processes of the user's do not reach the children.
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"CRAQ_") {
                command.env_remove(variable);
            }
        }
        command
            .args(args)
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C reaches only this process, which then stops the children in order.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("a child ended before it began")?;
        let stderr = child.stderr.take().context("a child has no stderr")?;
        let (said, listening) = oneshot::channel();
        let last_lines = LastLines::default();
        let reader = tokio::spawn(listen(stderr, log.clone(), Arc::clone(&last_lines), said));
        let mut process = Self {
            name: name.to_owned(),
            child,
            pid,
            address: String::new(),
            last_lines,
            reader: Some(reader),
            log,
            running: true,
        };
        match timeout(START_TIMEOUT, listening).await {
            Ok(Ok(address)) => process.address = address,
            Ok(Err(_)) => bail!(process.ended().await),
            Err(_) => bail!(process.last_words(&format!("does not listen after {START_TIMEOUT:?}"))),
        }
        Ok(process)
    }

    /// Where it is reached.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What there is to tell of it.
    pub(super) fn summary(&self) -> Summary {
        Summary { pid: self.pid, address: self.address.clone() }
    }

    /// Whether its end is still to come.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Returns when it has ended, with what it said last.
    pub(super) async fn ended(&mut self) -> String {
        let status = self.child.wait().await;
        self.running = false;
        self.drain().await;
        self.last_words(&match status {
            Ok(status) => describe(status),
            Err(error) => format!("is lost: {error}"),
        })
    }

    /// Waits for the last lines of a child that has ended: they may still be in the pipe.
    async fn drain(&mut self) {
        if let Some(reader) = &mut self.reader
            && timeout(LAST_WORDS_TIMEOUT, reader).await.is_ok()
        {
            self.reader = None;
        }
    }

    fn last_words(&self, what: &str) -> String {
        let lines = self.last_lines.lock().iter().map(|line| format!("\n  | {line}")).collect::<String>();
        let said = if lines.is_empty() { "; it said nothing" } else { "; its last words:" };
        format!("{} (pid {}) {what}{said}{lines}\n  all of it: {}", self.name, self.pid, self.log.display())
    }

    /// Asks it to stop, waits for that, and kills it if it takes too long.
    pub(super) async fn stop(&mut self) {
        if !self.running {
            return;
        }
        if let Err(error) = self.terminate() {
            eprintln!("{}: {error:#}", self.name);
        }
        match timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => self.drain().await,
            Ok(Ok(_)) => eprintln!("{}", self.ended().await),
            Ok(Err(error)) => eprintln!("{} is lost: {error}", self.name),
            Err(_) => {
                eprintln!("{} (pid {}) does not stop after {STOP_TIMEOUT:?}: killed", self.name, self.pid);
                self.kill();
            }
        }
        self.running = false;
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            eprintln!("cannot kill {} (pid {}): {error}", self.name, self.pid);
        }
    }

    fn terminate(&self) -> anyhow::Result<()> {
        // Of a child that has been waited for there is no id, so no other process can be meant.
        let Some(id) = self.child.id() else { return Ok(()) };
        let pid =
            i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(|| anyhow!("{id} is no process id"))?;
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot stop process {id}"))
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("has ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "has ended".to_owned(),
    }
}

/// Keeps a child's log: all of it in a file, the last lines in memory. Says when the child listens, and where.
async fn listen(stderr: ChildStderr, log: PathBuf, last_lines: LastLines, said: oneshot::Sender<String>) {
    let mut said = Some(said);
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).ok();
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        // A log that can't be kept must not stop the child, whose pipe would fill.
        if let Some(open) = &mut file
            && open.write_all(&[&line[..], b"\n"].concat()).is_err()
        {
            file = None;
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(address) = listening_on(&line)
            && let Some(said) = said.take()
        {
            // Nobody may wait for it any more.
            let _ = said.send(address.to_owned());
        }
        let mut last_lines = last_lines.lock();
        if last_lines.len() == LAST_LINES {
            last_lines.pop_front();
        }
        last_lines.push_back(line);
    }
}

fn listening_on(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(LISTENING)?;
    rest.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_log_line() {
        let line = "2026-01-01T00:00:00Z  INFO listening on 127.0.0.1:40001 node=7";
        assert_eq!(listening_on(line), Some("127.0.0.1:40001"));
        assert_eq!(listening_on("INFO starting"), None);
    }
}
