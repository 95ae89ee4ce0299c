//! Does the program itself start, say where it listens, stop when asked to, and explain what is wrong?

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

/// Ends the process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_craq-coordinator"));
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("CRAQ_")) {
        command.env_remove(variable);
    }
    command.env_remove("RUST_LOG").stderr(Stdio::piped()).stdout(Stdio::null());
    command
}

#[test]
fn it_says_where_it_listens_and_stops_when_asked_to() {
    for signal in ["TERM", "INT"] {
        let data = tempfile::tempdir().unwrap();
        let mut command = command();
        command.env("CRAQ_DATA", data.path()).args(["--listen", "127.0.0.1:0"]);
        let mut running = Running(command.spawn().unwrap());
        let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
        let line = lines.find(|line| line.as_ref().unwrap().contains("listening on ")).unwrap().unwrap();
        let address: SocketAddr = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        TcpStream::connect(address).unwrap();

        let pid = running.0.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        // Its log ends when it does.
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        assert!(running.0.wait().unwrap().success(), "{rest:?}");
        assert!(data.path().join("cluster").exists());
    }
}

#[test]
fn settings_that_do_not_fit_are_refused_with_the_reason() {
    let output = command().args(["--heartbeat-interval", "500ms"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains("at most a third of the failure timeout (1s)"), "{text}");
}

#[test]
fn times_of_the_leadership_and_places_that_make_no_sense_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let output = command().arg("--data").arg(data.path()).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(&["--leader-step-down", "1900ms"]);
    assert!(text.contains("must be less than the lease (2s)"), "{text}");
    let text = refused(&["--data-endpoint", "http://localhost:1"]);
    assert!(text.contains("no endpoint"), "{text}");
    let output = command().args(["--data", "ftp://a/b"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("s3://BUCKET/PREFIX"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let data = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command().arg("--data").arg(data.path()).args(["--listen", &address]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
}
