//! Does the command line do what its users are told, against a live cluster?

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use craq_proto::Role;
use craq_tests::process::{Child, Cluster, PATIENCE, ask, free_address, wait::wait_for};
use tempfile::TempDir;

use crate::support::{binaries, cluster, turn};

fn craq(arguments: &[&str]) -> Output {
    let mut command = Command::new(binaries().client);
    command.args(arguments).env_remove("CRAQ_COORDINATOR").env_remove("CRAQ_NODE");
    command.output().expect("craq can be started")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// With `-c`, at a cluster.
fn at(cluster: &Cluster, arguments: &[&str]) -> Output {
    craq(&[&["-c", cluster.coordinator_address()], arguments].concat())
}

/// The exit code, and that stdout carries data only.
fn refused(output: &Output) -> i32 {
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    output.status.code().expect("an exit code")
}

/// The binaries under their own names, side by side, as they are shipped.
pub(crate) fn shipped() -> (TempDir, PathBuf) {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory beside the build");
    let all = binaries();
    for (from, name) in
        [(&all.client, "craq"), (&all.node, "craq-node"), (&all.coordinator, "craq-coordinator")]
    {
        let to = dir.path().join(name);
        fs::hard_link(from, &to).or_else(|_| fs::copy(from, &to).map(drop)).expect("a copy of a binary");
    }
    let craq = dir.path().join("craq");
    (dir, craq)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_playground_checks_itself() {
    let _turn = turn().await;
    let (_dir, craq) = shipped();
    let three = ["playground", "--once", "--coordinators", "3"];
    for flags in [&["playground", "--once"][..], &["playground", "--once", "--nodes", "5"], &three] {
        let output = Command::new(&craq).args(flags).output().unwrap();
        let text = stdout(&output);
        assert!(text.contains("head") && text.contains("tail") && text.contains("read it at each"), "{text}");
    }
}

/// The walk-through of the ancestor's README, with its own flags.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_through_of_go_craq_works_with_its_own_flags() {
    let _turn = turn().await;
    let dir = TempDir::new().unwrap();
    let port = || format!(":{}", free_address().rsplit_once(':').unwrap().1);
    let start = |name: &str, program: &Path, arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let child = Child::spawn(name, &[], program, &arguments);
        let _ = child.listening();
        child
    };
    let all = binaries();
    let coordinator = port();
    let data = dir.path().join("views").display().to_string();
    let _coordinator = start("coordinator", &all.coordinator, &["-a", &coordinator, "--data", &data]);
    let mut nodes = vec![];
    for number in 0..3 {
        let (address, file) = (port(), dir.path().join(format!("{number}.db")).display().to_string());
        let child =
            start("node", &all.node, &["-a", &address, "-p", &address, "-c", &coordinator, "-f", &file]);
        nodes.push((address, child));
        let reached = format!("localhost{coordinator}");
        wait_for("the chain", PATIENCE, async || {
            let chain = ask::chain(&reached).await?;
            let is_whole = chain.members.len() == nodes.len() && chain.members.iter().all(|m| m.in_sync);
            if is_whole { Ok(()) } else { Err(chain.reason) }
        })
        .await;
    }
    assert_eq!(
        stdout(&craq(&["-c", &coordinator, "-n", &nodes[0].0, "write", "hello", "world"])),
        "OK version=1\n"
    );
    for (address, _) in &nodes {
        assert_eq!(stdout(&craq(&["-c", &coordinator, "-n", address, "read", "hello"])), "world\n");
    }
    assert_eq!(stdout(&craq(&["-c", &coordinator, "write", "hello", "two", "words"])), "OK version=2\n");
    assert_eq!(stdout(&craq(&["-c", &coordinator, "read", "hello"])), "two words\n");
    assert!(stdout(&craq(&["-c", &coordinator, "readall"])).contains("two words"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_tell_what_is_known() {
    let _turn = turn().await;
    let timing = ["--failure-timeout", "30s"];
    let mut cluster = cluster().nodes(2).node_flags(&timing).coordinator_flags(&timing).start().await;
    assert_eq!(stdout(&at(&cluster, &["write", "k", "v", "--if-absent"])), "OK version=1\n");
    assert_eq!(refused(&at(&cluster, &["read", "none"])), 1, "not found");
    assert_eq!(refused(&at(&cluster, &["delete", "none"])), 1, "not found");
    assert_eq!(refused(&at(&cluster, &["write"])), 2, "usage");
    assert_eq!(refused(&craq(&["-c", &free_address(), "--timeout", "1s", "read", "k"])), 3, "not reachable");
    assert_eq!(refused(&at(&cluster, &["write", "k", "w", "--if-absent"])), 6, "condition");
    assert_eq!(refused(&at(&cluster, &["write", "k", "w", "--if-version", "7"])), 6, "condition");
    assert_eq!(stdout(&at(&cluster, &["write", "k", "w", "--if-version", "1"])), "OK version=2\n");
    let large = cluster.dir().join("large");
    fs::write(&large, vec![b'v'; 1024 * 1024 + 1]).unwrap();
    let large = large.display().to_string();
    assert_eq!(refused(&at(&cluster, &["write", "large", "--file", &large])), 7, "too large");
    unknown_and_repeated(&mut cluster).await;
}

/// Exit code 4, and the repetition that the message names.
async fn unknown_and_repeated(cluster: &mut Cluster) {
    let tail = cluster.at(Role::Tail).await;
    cluster.node(tail).pause();
    let unknown = at(cluster, &["--timeout", "400ms", "write", "u", "once"]);
    cluster.node(tail).resume();
    assert_eq!(refused(&unknown), 4, "outcome unknown: {unknown:?}");
    let text = String::from_utf8(unknown.stderr).unwrap();
    let id =
        text.split("--request-id ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an id");
    for _ in 0..2 {
        assert_eq!(stdout(&at(cluster, &["write", "u", "once", "--request-id", id])), "OK version=1\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_names_every_member_and_its_role() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let text = stdout(&at(&cluster, &["status", "-o", "json"]));
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(status["cluster"].is_string(), "{text}");
    let chain = &status["chains"][0];
    assert_eq!(chain["chain"], "default");
    assert!(chain["epoch"].as_u64().unwrap() > 0 && chain["reason"].is_string(), "{text}");
    let members = chain["members"].as_array().unwrap();
    let roles: Vec<_> = members.iter().map(|member| member["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["head", "middle", "tail"]);
    for member in members {
        assert!(
            member["in_sync"] == true && member["alive"] == true && member["commit"].is_u64(),
            "{member}"
        );
        assert!(member["node"].as_str().unwrap().parse::<uuid::Uuid>().is_ok(), "{member}");
    }
    let order = cluster.whole().await;
    cluster.kill_node(order[0]);
    cluster.whole().await;
    // Without the coordinator, and by a node alone.
    cluster.kill_coordinator();
    let text = stdout(&craq(&["-c", &cluster.address(order[1]), "status", "-o", "json"]));
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["chains"][0]["members"].as_array().unwrap().len(), 2, "{text}");
}
