//! Does `craq bench` measure what it says: do its figures fit each other and what the cluster has seen, does it notice a
//! wrong value, leave nothing behind, refuse what makes no sense, and draw what it measured?

use std::{
    fs,
    process::{Command, Output, Stdio},
    time::Duration,
};

use craq_tests::process::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    command_line::shipped,
    support::{binaries, cluster, figure, turn},
};

/// A short measurement of few keys.
const SHORT: [&str; 8] = ["--keys", "200", "--duration", "1s", "--warmup", "200ms", "--clients", "8"];

fn bench(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries().client);
    command.args(["-c", cluster.coordinator_address(), "bench"]).args(arguments);
    command.env_remove("CRAQ_COORDINATOR").env_remove("CRAQ_NODE").env_remove("CRAQ_OUTPUT");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it prints on stdout, if it ends with this code.
fn ended(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs it apart from the threads that the cluster's tests need.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn report(cluster: &Cluster, arguments: &[&str]) -> Value {
    let output = run(bench(cluster, &[arguments, &["-o", "json"]].concat())).await;
    serde_json::from_str(&ended(&output, 0)).unwrap()
}

fn number(value: &Value, field: &str) -> f64 {
    value.pointer(field).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// What must be true of the figures of any round without faults.
fn consistent(round: &Value) {
    let of = |field: &str| number(round, field);
    assert_eq!((of("/errors"), of("/not_begun")), (0.0, 0.0), "{round}");
    let operations = of("/operations");
    assert!(operations > 0.0, "{round}");
    // Both are rounded.
    let product = of("/ops_per_s") * of("/measured_s");
    assert!((product - operations).abs() <= 1.0 + operations / 1_000.0, "{round}");
    // What ended in the measured time and what began in it differ by those under way at its ends.
    assert!((operations - of("/latency/count")).abs() <= 2.0 * of("/clients"), "{round}");
    let steps = ["min", "p50", "p90", "p99", "p999", "max"].map(|name| of(&format!("/latency/{name}_ms")));
    assert!(steps.is_sorted() && steps[0] > 0.0, "{steps:?}");
    assert!(of("/longest_stall_ms") < of("/measured_s") * 1_000.0, "{round}");
    let kinds = round["kinds"].as_object().unwrap();
    let sum: f64 = kinds.values().map(|kind| number(kind, "/operations")).sum();
    assert_eq!(sum, operations, "{round}");
    // Each kind has gone on without a success for as long as all together, or longer.
    assert!(
        kinds.values().all(|kind| number(kind, "/longest_stall_ms") >= of("/longest_stall_ms")),
        "{round}"
    );
    let paths = of("/reads_by_path/clean") + of("/reads_by_path/dirty");
    let nodes: f64 = round["reads_by_node"].as_object().unwrap().values().filter_map(Value::as_f64).sum();
    assert_eq!(paths, nodes, "{round}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_workload_brings_figures_that_fit_each_other() {
    let _turn = turn().await;
    let cluster = cluster().start().await;
    for workload in ["write", "read", "mixed", "scan", "cas"] {
        let report = report(&cluster, &[&[workload], &SHORT[..]].concat()).await;
        let round = &report["rounds"][0];
        figure(workload, format!("{} ops/s", round["ops_per_s"]));
        consistent(round);
        let of = |field: &str| number(round, field);
        let (operations, verified) = (of("/operations"), of("/values_verified"));
        match workload {
            "write" => assert_eq!(verified, 0.0),
            "scan" => {
                assert_eq!((verified, of("/keys_per_s")), (operations * 100.0, of("/ops_per_s") * 100.0))
            }
            "mixed" => {
                let reads = of("/kinds/read/operations");
                assert!((0.75..1.0).contains(&(reads / operations)), "{round}");
                assert_eq!(verified, reads);
            }
            _ => assert_eq!(verified, operations),
        }
        if workload == "read" {
            assert_eq!(round["reads_by_node"].as_object().unwrap().len(), 3, "reads go to every node");
            // The nodes are asked a little after the measured time begins, and a little after it ends.
            let counted = of("/nodes_counted/reads_clean");
            assert!((counted / operations - 1.0).abs() < 0.5, "{round}");
        }
        if workload == "cas" {
            let counters = &report["counters"];
            assert_eq!(counters["found"], counters["acknowledged"], "{report}");
        }
    }
    let left = run({
        let mut list = Command::new(binaries().client);
        list.args(["-c", cluster.coordinator_address(), "list", "craq-bench/"]);
        list
    });
    assert_eq!(ended(&left.await, 0), "", "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dirty_reads_are_told_and_the_nodes_count_them_too() {
    let _turn = turn().await;
    let cluster = cluster().start().await;
    // One key, half of the calls write it: most reads meet a write.
    let arguments =
        ["--read-ratio", "0.5", "--keys", "1", "--clients", "16", "--duration", "1s", "-n", "all"];
    let report = report(&cluster, &[&["mixed"], &arguments[..]].concat()).await;
    let round = &report["rounds"][0];
    consistent(round);
    let of = |field: &str| number(round, field);
    assert!(of("/reads_by_path/asked_tail") > 0.0 && of("/reads_by_path/at_tail") > 0.0, "{round}");
    assert!(
        of("/nodes_counted/reads_asked_tail") > 0.0 && of("/nodes_counted/reads_at_tail") > 0.0,
        "{round}"
    );
    let questions = of("/nodes_counted/questions_to_tail");
    assert!(questions > 0.0 && questions <= 1.5 * of("/nodes_counted/reads_asked_tail"), "{round}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_keeps_its_rate_and_does_not_hide_a_stall() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let arguments =
        ["write", "--rate", "100", "--keys", "20", "--clients", "4", "--duration", "3s", "--warmup", "500ms"];
    let calm = report(&cluster, &arguments).await;
    let of = |report: &Value, field: &str| number(&report["rounds"][0], field);
    assert!((290.0..=310.0).contains(&of(&calm, "/latency/count")), "{calm}");
    // The tail stands still for a while, shorter than it takes to be taken out.
    let stalled = bench(&cluster, &[&arguments[..], &["-o", "json"]].concat()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    cluster.node(2).pause();
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.node(2).resume();
    let output = tokio::task::spawn_blocking(move || stalled.wait_with_output().unwrap()).await.unwrap();
    let stalled: Value = serde_json::from_str(&ended(&output, 0)).unwrap();
    figure("a stall of 300 ms in an open loop, p90 in ms", of(&stalled, "/latency/p90_ms"));
    // About thirty were due meanwhile, though only four clients could wait.
    assert!(of(&stalled, "/longest_stall_ms") >= 250.0, "{stalled}");
    assert!(
        of(&stalled, "/latency/p95_ms") >= 100.0,
        "the stall is in the latencies of all that were due: {stalled}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_has_a_line_for_throughput_and_four_for_latency() {
    let _turn = turn().await;
    let cluster = cluster().nodes(1).start().await;
    let file = cluster.dir().join("read.svg");
    let path = file.display().to_string();
    let arguments = ["read", "--clients", "1,2,4", "--rounds", "2", "--keys", "20", "--plot", &path];
    let times = ["--duration", "200ms", "--warmup", "0s", "-o", "csv"];
    let output = run(bench(&cluster, &[&arguments[..], &times].concat())).await;
    let csv = ended(&output, 0);
    assert_eq!(csv.lines().count(), 1 + 3 * 2, "{csv}");
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(columns.iter().all(|count| *count == columns[0] && *count > 20), "{csv}");
    let svg = fs::read_to_string(file).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap();
    let is_series = |node: &roxmltree::Node<'_, '_>| {
        node.has_tag_name("polyline") && node.attribute("stroke") != Some("#000000")
    };
    let points = |node: roxmltree::Node<'_, '_>| node.attribute("points").unwrap().split_whitespace().count();
    let series: Vec<usize> = document.descendants().filter(is_series).map(points).collect();
    assert_eq!(series, [3; 5], "{svg}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_value_is_no_figure_and_no_success() {
    let _turn = turn().await;
    let cluster = cluster().nodes(1).start().await;
    let times = ["--keys", "20", "--duration", "200ms", "--warmup", "0s", "-o", "json"];
    let kept = run(bench(&cluster, &[&["read", "--keep"], &times[..]].concat())).await;
    ended(&kept, 0);
    // Another key's value stands under a key.
    let client = cluster.client().await;
    let other = client.read("craq-bench/000000000003").await.unwrap();
    client.write("craq-bench/000000000007", other.value.unwrap()).await.unwrap();
    let output = run(bench(&cluster, &[&["read", "--no-load"], &times[..]].concat())).await;
    let report: Value = serde_json::from_str(&ended(&output, 9)).unwrap();
    let round = &report["rounds"][0];
    let (wrong, operations) = (number(round, "/errors_by_kind/wrong_value"), number(round, "/operations"));
    assert!(wrong > 0.0 && operations > 0.0, "{round}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("wrong value"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_it_early_with_the_figures_so_far() {
    let _turn = turn().await;
    let cluster = cluster().nodes(1).start().await;
    let arguments = ["read", "--keys", "20", "--duration", "60s", "--warmup", "100ms", "-o", "json"];
    let child = bench(&cluster, &arguments).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let report: Value = serde_json::from_str(&ended(&output, 0)).unwrap();
    let round = &report["rounds"][0];
    assert_eq!(round["ended_early"], true);
    assert!((0.1..5.0).contains(&number(round, "/measured_s")), "{round}");
    consistent(round);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_papers_measurements_make_a_page_with_pictures_or_say_why_they_cannot() {
    let _turn = turn().await;
    let (dir, craq) = shipped();
    let page = dir.path().join("page");
    let mut command = Command::new(craq);
    command.args(["bench", "paper", "--quick"]).arg(&page).stdin(Stdio::null());
    let output = run(command).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if stderr.contains("no cgroup can be made here") {
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        return figure("bench paper", "refused: no cgroup can be made here");
    }
    ended(&output, 0);
    let all: Value = serde_json::from_slice(&fs::read(page.join("paper.json")).unwrap()).unwrap();
    let lengths: Vec<_> =
        all.as_array().unwrap().iter().map(|chain| chain["nodes"].as_u64().unwrap()).collect();
    assert_eq!(lengths, [1, 3]);
    for chain in all.as_array().unwrap() {
        for what in ["reads", "reads_at_tail", "writes", "test_and_set", "idle_reads", "idle_writes"] {
            assert!(number(&chain[what], "/operations") > 0.0, "{what} of {chain}");
        }
    }
    let text = fs::read_to_string(page.join("paper.md")).unwrap();
    for picture in ["reads.svg", "writes.svg", "reads-under-writes.svg", "paths.svg"] {
        assert!(text.contains(picture), "{text}");
        let svg = fs::read_to_string(page.join(picture)).unwrap();
        assert!(roxmltree::Document::parse(&svg).is_ok(), "{svg}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_runs() {
    // No cluster is there: only a refusal comes so early.
    for (line, says) in [
        ("read --read-ratio 0.5", "--read-ratio is for `mixed`"),
        ("write --batch 5", "--batch is for `read` and `scan`"),
        ("cas --value-size 8", "--value-size is at least 16"),
        ("write -n all", "--node all is for reads"),
        ("read --clients 1000 --connections 1", "on one connection"),
        ("read --distribution pareto:1", "expected uniform"),
        ("read --rate 0", "--rate must be above zero"),
    ] {
        let output = Command::new(binaries().client)
            .args(["-c", "127.0.0.1:1", "bench"])
            .args(line.split(' '))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(says), "{line}: {stderr}");
    }
}
