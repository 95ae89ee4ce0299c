//! The built `craq`: exit codes, stdout, and what it asks.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use craq_client::proto::{CallError, ErrorKind, Version, convert::uuid_bytes};
use uuid::Uuid;

use crate::process::{Answer, Fake, Heard, chain, error, not_head};

const UUID: Uuid = Uuid::from_u128(7);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_craq"));
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("CRAQ_") || name == "RUST_LOG")
    {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null());
    command
}

fn craq(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// A chain of one.
fn single() -> Fake {
    let node = Fake::node();
    chain(6, &[&node]);
    node
}

/// Runs `craq -c NODE ARGS`, with the exit code, stdout and stderr.
fn at(node: &Fake, args: &[&str]) -> (i32, String, String) {
    let output = craq(&[&["-c", &node.address], args].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text:?} is no JSON: {error}"))
}

#[test]
fn write_and_read_print_data_alone() {
    let node = single();
    node.will([Answer::Written(5), Answer::Found("v w"), Answer::Found("v"), Answer::Found("v")]);
    assert_eq!(at(&node, &["write", "k", "v", "w"]), (0, "OK version=5\n".into(), String::new()));
    assert_eq!(node.heard_write().value, "v w");
    assert_eq!(at(&node, &["read", "k"]), (0, "v w\n".into(), String::new()));
    assert_eq!(at(&node, &["read", "k", "--raw"]), (0, "v".into(), String::new()));
    let (code, out, _) = at(&node, &["read", "--meta", "k"]);
    let expected = format!("version=1 seq=1 commit=0 epoch=6 path=clean node={}\nv\n", node.address);
    assert_eq!((code, out), (0, expected));
}

#[test]
fn json_has_stable_names() {
    let node = single();
    node.will([Answer::Found("v"), Answer::Written(2)]);
    let (_, out, _) = at(&node, &["read", "k", "-o", "json"]);
    let expected = serde_json::json!({"key": "k", "value": "v", "encoding": "utf8", "version": 1, "seq": 1,
        "commit": 0, "chain": "default", "epoch": 6, "path": "clean", "node": node.address});
    assert_eq!(json(&out), expected);
    let (_, out, _) = at(&node, &["-o", "json", "write", "--hex", "ff", "00"]);
    let written = json(&out);
    assert_eq!(
        (&written["key"], &written["key_encoding"], &written["version"]),
        (&"ff".into(), &"hex".into(), &2.into())
    );
    assert!(written["request_id"].as_str().unwrap().contains(":1:"));
}

#[test]
fn a_missing_key_exits_with_1() {
    let node = single();
    node.will([Answer::Missing, error(ErrorKind::NotFound)]);
    for command in ["read", "delete"] {
        let (code, out, err) = at(&node, &[command, "nope"]);
        assert_eq!((code, out.as_str(), err.as_str()), (1, "", "craq: key not found: nope\n"));
    }
}

#[test]
fn wrong_usage_exits_with_2_and_a_hint() {
    for (args, hint) in [
        (&["wriet", "k", "v"][..], "'write'"),
        (&["write", "k", "-1"], "-- -1"),
        (&["read", "k", "--consistency", "weak"], "bounded:TIME"),
        (&["read", "k", "--timeout", "soon"], "timeout"),
        (&["write", "k", "v", "--if-absent", "--if-version", "1"], "cannot be used with"),
        (&["write", "k", "v", "--request-id", ""], "1 to 64"),
        (&["-c", "nonsense", "read", "k"], "no address"),
        (&["write", "--hex", "0", "0"], "hex digits"),
        (&[], "Usage"),
    ] {
        let output = craq(args);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {err}");
        assert!(err.contains(hint), "{args:?}: {err}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_is_not_reachable_or_unavailable_exits_with_3() {
    let node = single();
    node.will((0..1000).map(|_| error(ErrorKind::Unavailable)));
    let (code, out, err) = at(&node, &["--timeout", "200ms", "write", "k", "v"]);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("nothing was applied"), "{err}");
    node.dies();
    let (code, _, err) = at(&node, &["write", "k", "v"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("Connection refused"), "{err}");
}

#[test]
fn an_unknown_outcome_exits_with_4_and_names_the_id_that_makes_repeating_safe() {
    let node = single();
    node.will([Answer::Silence, Answer::Written(1)]);
    let (code, out, err) = at(&node, &["--timeout", "300ms", "write", "k", "secret"]);
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    assert!(!err.contains("secret"), "a value stands in a message: {err}");
    let first = node.heard_write().request_id.unwrap();
    let id = err.lines().find_map(|line| line.trim().strip_prefix("--request-id ")).unwrap();
    assert_eq!(at(&node, &["write", "k", "secret", "--request-id", id]).0, 0);
    let second = node.heard_write().request_id.unwrap();
    assert_eq!(
        (second.client, second.number, second.born, second.retry),
        (first.client, first.number, first.born, true)
    );
}

#[test]
fn a_false_condition_exits_with_6_and_says_the_version() {
    let node = single();
    let mut error = CallError::new(ErrorKind::ConditionFailed, "no");
    error.observed_version = Version(9);
    node.will([Answer::Error(error)]);
    let (code, _, err) = at(&node, &["write", "k", "v", "--if-absent"]);
    assert_eq!(code, 6);
    assert!(err.contains("version 9"), "{err}");
    assert_eq!(node.heard_write().if_version, Some(0));
}

#[test]
fn a_refusal_exits_with_7() {
    let node = single();
    node.will([error(ErrorKind::ResourceExhausted)]);
    let (code, _, err) = at(&node, &["write", "k", "v"]);
    assert_eq!(code, 7, "{err}");
}

#[test]
fn an_id_of_the_users_own_is_the_same_each_time_and_no_repeat() {
    let node = single();
    node.will([Answer::Written(1), Answer::Written(1), Answer::Written(1)]);
    let ids = [(); 2].map(|()| {
        at(&node, &["write", "k", "v", "--request-id", "order-17"]);
        node.heard_write().request_id.unwrap()
    });
    assert_eq!(ids[0], ids[1]);
    assert_eq!((ids[0].number, ids[0].retry), (1, false));
    at(&node, &["write", "k", "v", "--request-id", &format!("{UUID}:3:9")]);
    let id = node.heard_write().request_id.unwrap();
    assert_eq!((id.client, id.number, id.floor, id.born, id.retry), (uuid_bytes(UUID), 3, 0, 9, true));
}

#[test]
fn a_value_comes_from_words_stdin_or_a_file() {
    let node = single();
    node.will((0..4).map(|_| Answer::Written(1)));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"from\xff file\n").unwrap();
    at(&node, &["write", "k", "--file", file.path().to_str().unwrap()]);
    assert_eq!(node.heard_write().value, &b"from\xff file\n"[..]);
    for args in [&["write", "k"][..], &["write", "k", "-"]] {
        let mut child = command(&[&["-c", &node.address], args].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"a\n\x00b").unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(node.heard_write().value, &b"a\n\x00b"[..], "byte for byte");
    }
    at(&node, &["write", "k", ""]);
    assert_eq!(node.heard_write().value, "", "an empty word is an empty value");
}

#[test]
fn with_a_node_alone_everything_starts_there_and_reads_go_to_it_alone() {
    let (head, tail) = (Fake::node(), Fake::node());
    chain(1, &[&head, &tail]);
    head.will([Answer::Written(1)]);
    tail.will((0..4).map(|_| Answer::Found("v")));
    for _ in 0..4 {
        assert_eq!(craq(&["read", "k", "-n", &tail.address]).status.code(), Some(0));
    }
    assert_eq!((head.heard().len(), tail.heard().len()), (0, 4));
    assert_eq!(craq(&["-n", &tail.address, "write", "k", "v"]).status.code(), Some(0));
    assert_eq!((head.heard().len(), tail.heard().len()), (1, 0), "a write goes to the head");
}

#[test]
fn a_hint_is_followed_and_the_environment_heeded() {
    let (old, new) = (Fake::node(), Fake::node());
    chain(1, &[&old]);
    old.will([not_head(&new)]);
    new.will([Answer::Written(3)]);
    let mut command = command(&["write", "k", "v"]);
    command.env("CRAQ_COORDINATOR", &old.address).env("CRAQ_OUTPUT", "json");
    let output = command.output().unwrap();
    assert_eq!(json(&String::from_utf8(output.stdout).unwrap())["version"], 3);
}

#[test]
fn list_streams_lines() {
    let node = single();
    let pages = || Answer::Pages(vec![(vec!["a", "b"], "c"), (vec!["c"], "")]);
    node.will((0..3).map(|_| pages())).will([Answer::Pages(vec![(vec!["user/1"], "")])]);
    assert_eq!(at(&node, &["list"]), (0, "a\ta\nb\tb\nc\tc\n".into(), String::new()));
    assert_eq!(at(&node, &["readall", "--keys-only"]).1, "a\nb\nc\n");
    node.heard();
    let (_, out, _) = at(&node, &["list", "-o", "json", "--limit", "3"]);
    let keys: Vec<_> = out.lines().map(|line| json(line)["key"].clone()).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    at(&node, &["list", "user/"]);
    let heard = node.heard();
    let [Heard::Scan(limited), Heard::Scan(prefixed)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(limited.limit, 3);
    assert_eq!((&prefixed.start[..], &prefixed.end[..]), (&b"user/"[..], &b"user0"[..]));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let node = single();
    node.will([Answer::Pages(vec![(vec!["a"], "")])]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output =
        command(&["-c", &node.address, "list"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn status_comes_in_three_forms() {
    let node = single();
    node.commits(3);
    let (code, plain, _) = at(&node, &["status"]);
    let id = node.id();
    assert_eq!((code, plain), (0, format!("default\t6\tmiddle\t{id}\t{}\ttrue\ttrue\t3\n", node.address)));
    let (_, out, _) = at(&node, &["status", "-o", "json"]);
    assert_eq!(json(&out)["chains"][0]["members"][0]["commit"], 3);
    let (_, table, _) = at(&node, &["status", "-o", "table"]);
    assert!(table.contains("in sync") && table.contains("as the test wants"), "{table}");
}

#[test]
fn admin_commands_take_ids_and_addresses() {
    let (coordinator, node) = (Fake::coordinator(), Fake::node());
    coordinator.tells(&chain(4, &[&node]));
    let ok = (0, "OK epoch=4\n".to_owned(), String::new());
    assert_eq!(at(&coordinator, &["node", "remove", &node.id().to_string()]), ok);
    assert_eq!(at(&coordinator, &["node", "remove", &node.address]), ok);
    assert_eq!(at(&coordinator, &["node", "remove", "localhost:1"]).0, 2);
    assert_eq!(at(&coordinator, &["chain", "reorder", &node.id().to_string()]).0, 2);
    let (code, _, err) = at(&node, &["node", "remove", &node.id().to_string()]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("ask a coordinator"), "{err}");
}

#[test]
fn completions_and_help_need_no_cluster() {
    let script = craq(&["completions", "bash"]);
    assert!(script.status.success() && String::from_utf8(script.stdout).unwrap().contains("playground"));
    let help = String::from_utf8(craq(&["write", "--help"]).stdout).unwrap();
    assert!(help.contains("--if-absent") && help.contains("Examples:"), "{help}");
}
