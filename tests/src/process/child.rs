//! One child process: its last words, its signals, its end. Dies when it is dropped, and with the thread that spawned
//! it.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// How a process ended.
pub type Exit = ExitStatus;

/// Lines of a process's log that are kept for the message of a failed test.
const LINES_KEPT: usize = 4_000;
/// The part of them that is printed.
const LINES_SHOWN: usize = 60;
const START_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<String>,
    listening: Option<String>,
    ended: bool,
}

/// What a process writes to stderr.
#[derive(Debug, Default)]
struct Words {
    log: Mutex<Log>,
    more: Condvar,
}

/// A running process, or one that has ended and was not yet waited for.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    words: Arc<Words>,
    began: Instant,
    exit: Option<Exit>,
}

impl Child {
    /// Starts the program. `prefix` is a command that ends in an `exec` of its arguments (`ip netns exec NAME`).
    #[must_use]
    pub fn spawn(name: &str, prefix: &[String], program: &Path, arguments: &[String]) -> Self {
        let mut words: Vec<String> = vec!["setpriv".into(), "--pdeathsig".into(), "KILL".into(), "--".into()];
        if !Path::new("/usr/bin/setpriv").exists() {
            // Then a child survives a test that is killed; one that fails still takes its children along.
            words.clear();
        }
        words.extend(prefix.iter().cloned());
        words.push(program.display().to_string());
        words.extend(arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("CRAQ_")) {
            command.env_remove(variable);
        }
        let log = std::env::var("CRAQ_TEST_LOG").unwrap_or_else(|_| "info".to_owned());
        command.env("RUST_LOG", log).env("RUST_BACKTRACE", "1");
        let began = Instant::now();
        let mut process = command.spawn().unwrap_or_else(|error| panic!("cannot start {words:?}: {error}"));
        let heard = Arc::new(Words::default());
        let stderr = process.stderr.take().expect("stderr is a pipe");
        let to = Arc::clone(&heard);
        thread::spawn(move || listen(BufReader::new(stderr), &to));
        Self { name: name.to_owned(), process, words: heard, began, exit: None }
    }

    /// Waits until the process has said where it listens, and brings that address.
    #[must_use]
    pub fn listening(&self) -> String {
        let until = Instant::now() + START_PATIENCE;
        let mut log = self.words.log.lock();
        loop {
            if let Some(address) = &log.listening {
                return address.clone();
            }
            let late = log.ended || self.words.more.wait_until(&mut log, until).timed_out();
            if late && log.listening.is_none() {
                drop(log);
                panic!("{} does not listen\n{}", self.name, self.last_words());
            }
        }
    }

    /// Whether a line of the log so far has this in it.
    #[must_use]
    pub fn said(&self, what: &str) -> bool {
        self.words.log.lock().lines.iter().any(|line| line.contains(what))
    }

    /// How many lines of the log so far have this in them.
    #[must_use]
    pub fn times_said(&self, what: &str) -> usize {
        self.words.log.lock().lines.iter().filter(|line| line.contains(what)).count()
    }

    /// The end of the log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.words.log.lock();
        let skipped = log.lines.len().saturating_sub(LINES_SHOWN);
        let mut text = format!("--- {} (pid {}), the end of its log:\n", self.name, self.pid());
        for line in log.lines.iter().skip(skipped) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How long ago it was started.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        if self.exit.is_none() {
            // It fails only if the process is gone already.
            let _ = self.process.kill();
            self.exit = self.process.wait().ok();
        }
    }

    /// Asks it to stop (SIGTERM). Returns at once.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Stops it where it stands (SIGSTOP). Returns when it does.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        // A signal is on its way for a while, and the threads go on meanwhile.
        let until = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.process)), until).expect("a child can be waited for");
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// How it ended, if it has.
    pub fn exit(&mut self) -> Option<Exit> {
        if self.exit.is_none() {
            self.exit = self.process.try_wait().expect("a child can be waited for");
        }
        self.exit
    }

    fn signal(&mut self, signal: Signal) {
        assert!(self.exit().is_none(), "{} has ended\n{}", self.name, self.last_words());
        kill_process(Pid::from_child(&self.process), signal).expect("a child can be signalled");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}

fn listen(stderr: impl BufRead, to: &Words) {
    for line in stderr.lines() {
        let Ok(line) = line else { break };
        let mut log = to.log.lock();
        if log.listening.is_none()
            && let Some((_, address)) = line.split_once("listening on ")
        {
            log.listening = Some(address.split_whitespace().next().unwrap_or_default().to_owned());
        }
        if log.lines.len() == LINES_KEPT {
            log.lines.pop_front();
        }
        log.lines.push_back(line);
        to.more.notify_all();
    }
    to.log.lock().ended = true;
    to.more.notify_all();
}
