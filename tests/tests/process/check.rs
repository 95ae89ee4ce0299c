//! Does `craq check` find a live cluster linearizable while a node dies and returns, leave nothing behind, and refuse a
//! history in which an answer was forged?

use std::{
    fs,
    process::{Command, Output, Stdio},
    time::Duration,
};

use craq_tests::process::Cluster;

use crate::support::{binaries, cluster, figure, turn};

fn craq(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries().client);
    command.args(["-c", cluster.coordinator_address()]).args(arguments);
    command.env_remove("CRAQ_COORDINATOR").env_remove("CRAQ_NODE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What is on stdout, if it ended with this code.
fn ended(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_a_live_cluster_passes_and_forged_histories_are_refused() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let file = cluster.dir().join("history.ndjson");
    let path = file.display().to_string();
    let arguments = ["check", "linearizability", "--duration", "3s", "--seed", "7", "--history", &path];
    let check = craq(&cluster, &arguments).arg("-ojson").spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.kill_node(1);
    tokio::time::sleep(Duration::from_millis(800)).await;
    cluster.start_node(1);
    let output = tokio::task::spawn_blocking(move || check.wait_with_output().unwrap()).await.unwrap();
    let report: serde_json::Value = serde_json::from_str(&ended(&output, 0)).unwrap();
    figure("a check of 3 s", &report);
    assert_eq!(report["verdict"], "linearizable");
    let reads = report["reads_per_node"].as_object().unwrap();
    assert_eq!(reads.len(), 3, "{report}");
    assert!(reads.values().all(|reads| reads.as_u64().unwrap() > 0), "a node answered no read: {report}");
    assert!(
        report["unknown"].as_u64().unwrap() + report["failed"].as_u64().unwrap() > 0,
        "nothing was lost: {report}"
    );

    let list = craq(&cluster, &["list", "--keys-only"]).output().unwrap();
    assert_eq!(ended(&list, 0), "", "the check left keys behind");

    let again = craq(&cluster, &["check", "history", &path]).output().unwrap();
    assert!(ended(&again, 0).contains("verdict: linearizable"));
    forged(&cluster, &fs::read_to_string(&file).unwrap());
}

/// The last value that was read becomes an older one of the same key, the history is cut short, and a line is damaged.
fn forged(cluster: &Cluster, history: &str) {
    let mut lines: Vec<serde_json::Value> =
        history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_read = |line: &serde_json::Value| {
        line["outcome"]["found"][0]["value"].is_object() && line["call"]["read"][1].is_null()
    };
    let last = lines.iter().rposition(is_read).unwrap();
    let older =
        lines.iter().find(|line| is_read(line) && line["call"] == lines[last]["call"]).unwrap().clone();
    assert_ne!(older["outcome"], lines[last]["outcome"], "the key was written but once");
    lines[last]["outcome"] = older["outcome"].clone();
    let stale: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let few: String = history.lines().take(5).map(|line| format!("{line}\n")).collect();
    let html = cluster.dir().join("violation.html");
    for (name, text, code, says) in [
        ("stale", stale, 8, "verdict: violation"),
        ("few", few, 4, "verdict: unknown"),
        ("empty", String::new(), 4, "verdict: unknown"),
        ("damaged", history.replacen("client", "cliemt", 1), 2, ""),
    ] {
        let file = cluster.dir().join(name);
        fs::write(&file, text).unwrap();
        let (file, html) = (file.display().to_string(), html.display().to_string());
        let output = craq(cluster, &["check", "history", &file, "--html", &html]).output().unwrap();
        let stdout = ended(&output, code);
        assert!(stdout.contains(says), "{name}: {stdout}");
    }
    let page = fs::read_to_string(html).unwrap();
    assert!(page.contains("<svg") && page.contains("culprit"), "{page}");
}
