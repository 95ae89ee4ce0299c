//! Does another coordinator take over when the one that leads is killed, paused or stopped, and does nobody notice?
//!
//! For longer: `CRAQ_TEST_ROUNDS=20 CRAQ_TEST_OUTAGE_SECONDS=60 CRAQ_TEST_IDLE_SECONDS=600 cargo test -p craq-tests --test process
//! -- --nocapture leaders`.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use craq_proto::{Role, wire};
use craq_tests::{
    process::{
        Builder, Cluster, PATIENCE, ask, free_address,
        wait::{unless, wait_for},
    },
    s3::{Requests, S3},
};

use crate::support::{Figures, binaries, cluster, figure, load, number, progress, rounds, turn, verdict};

/// The lease of leaders whose log is in a directory.
const LEASE: Duration = Duration::from_secs(2);
/// A new leader is there so long after the lease, at the latest.
const TAKEOVER: Duration = Duration::from_secs(2);

/// All coordinators that run agree on who leads.
async fn agreed(cluster: &Cluster, running: &[usize], term: u64) {
    let addresses = cluster.coordinator_addresses();
    wait_for("one leader in all eyes", PATIENCE, async || {
        let mut leads = 0;
        for index in running {
            let reply = ask::leadership(&addresses[*index]).await?;
            unless(reply.term == term, || format!("{index} knows term {}, not {term}", reply.term))?;
            leads += u32::from(reply.leads);
        }
        unless(leads == 1, || format!("{leads} lead"))
    })
    .await;
}

fn seconds(variable: &str, otherwise: usize) -> Duration {
    Duration::from_secs(number(variable, otherwise) as u64)
}

fn failed(ops: &[craq_tests::history::Op]) -> Vec<&craq_tests::history::Op> {
    ops.iter().filter(|op| !op.is_ok()).take(3).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_again_and_again_is_replaced_and_nobody_notices() {
    let _turn = turn().await;
    let mut cluster = cluster().coordinators(3).start().await;
    let (mut leader, mut term) = cluster.leader(0).await;
    let load = load(&cluster).await;
    progress(&load, 30).await;
    let epoch = cluster.chain().await.epoch;
    let mut takeovers = Figures::default();
    for _ in 0..rounds() {
        let began = Instant::now();
        cluster.kill_coordinator_at(leader);
        let (next, next_term) = cluster.leader(term).await;
        takeovers.add(began.elapsed());
        assert!(next != leader && next_term > term);
        progress(&load, 10).await;
        cluster.start_coordinator_at(leader);
        (leader, term) = (next, next_term);
        agreed(&cluster, &[0, 1, 2], term).await;
    }
    figure("kill -9 of the leader, until another leads", &takeovers);
    assert!(takeovers.max() <= LEASE + TAKEOVER, "{takeovers}");
    cluster.whole().await;
    assert_eq!(cluster.chain().await.epoch, epoch, "the chain was healthy, so it has not changed");
    let (ops, counts) = verdict(&mut cluster, load).await;
    figure("leaders killed, history", counts);
    assert!(failed(&ops).is_empty(), "{:?}", failed(&ops));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_right_after_the_leader_is_replaced() {
    let _turn = turn().await;
    let mut cluster = cluster().coordinators(3).start().await;
    let mut times = Figures::default();
    for _ in 0..number("CRAQ_TEST_ROUNDS", 1) {
        let (leader, term) = cluster.leader(0).await;
        let epoch = cluster.chain().await.epoch;
        let tail = cluster.at(Role::Tail).await;
        let began = Instant::now();
        cluster.kill_coordinator_at(leader);
        cluster.kill_node(tail);
        let order = cluster.whole().await;
        times.add(began.elapsed());
        assert_eq!(order.len(), 2);
        let (_, next_term) = cluster.leader(term).await;
        assert!(next_term > term && cluster.chain().await.epoch > epoch);
        cluster.start_coordinator_at(leader);
        cluster.start_node(tail);
        cluster.whole().await;
    }
    figure("leader and tail killed, until the chain is whole again", &times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_past_its_lease_leads_no_longer_when_it_goes_on() {
    let _turn = turn().await;
    let mut cluster = cluster().coordinators(3).start().await;
    let load = load(&cluster).await;
    let epoch = cluster.chain().await.epoch;
    let (mut takeovers, mut newest) = (Figures::default(), 0);
    for _ in 0..number("CRAQ_TEST_ROUNDS", 1) {
        let (leader, term) = cluster.leader(0).await;
        progress(&load, 10).await;
        cluster.coordinator_at(leader).pause();
        let began = Instant::now();
        let (next, next_term) = cluster.leader(term).await;
        takeovers.add(began.elapsed());
        assert!(next != leader && next_term > term && term >= newest);
        newest = next_term;
        // The nodes have found the new one: it knows what each of them holds.
        cluster.whole().await;
        cluster.coordinator_at(leader).resume();
        agreed(&cluster, &[0, 1, 2], next_term).await;
        progress(&load, 10).await;
    }
    figure("SIGSTOP of the leader, until another leads", &takeovers);
    assert!(takeovers.max() <= LEASE + TAKEOVER, "{takeovers}");
    cluster.whole().await;
    assert_eq!(cluster.chain().await.epoch, epoch, "the chain was healthy, so it has not changed");
    let (ops, counts) = verdict(&mut cluster, load).await;
    figure("leaders paused, history", counts);
    assert!(failed(&ops).is_empty(), "{:?}", failed(&ops));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_over_from_a_leader_that_is_well() {
    let _turn = turn().await;
    let cluster = cluster().coordinators(3).start().await;
    let (leader, term) = cluster.leader(0).await;
    let epoch = cluster.chain().await.epoch;
    let end = Instant::now() + seconds("CRAQ_TEST_IDLE_SECONDS", 5);
    while Instant::now() < end {
        tokio::time::sleep(LEASE / 4).await;
        agreed(&cluster, &[0, 1, 2], term).await;
    }
    assert_eq!(cluster.leader(0).await, (leader, term), "the leader has changed for no reason");
    assert_eq!(cluster.chain().await.epoch, epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_stop_hands_over_without_a_wait() {
    let _turn = turn().await;
    let mut cluster = cluster().coordinators(3).start().await;
    let (leader, term) = cluster.leader(0).await;
    let load = load(&cluster).await;
    progress(&load, 10).await;
    let began = Instant::now();
    cluster.coordinator_at(leader).terminate();
    let (next, next_term) = cluster.leader(term).await;
    let took = began.elapsed();
    figure("SIGTERM of the leader, until another leads", format!("{} ms", took.as_millis()));
    assert!(next != leader && next_term == term + 1);
    assert!(took < LEASE, "it took {took:?}, as if nobody had given anything up");
    wait_for("its end", PATIENCE, async || {
        let exit = cluster.coordinator_at(leader).exit();
        exit.filter(|exit| exit.success()).map(|_| ()).ok_or_else(|| format!("{exit:?}"))
    })
    .await;
    let (ops, _) = verdict(&mut cluster, load).await;
    assert!(failed(&ops).is_empty(), "{:?}", failed(&ops));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_coordinator_answers_whoever_leads() {
    let _turn = turn().await;
    let cluster = cluster().coordinators(3).nodes(2).start().await;
    let (leader, _) = cluster.leader(0).await;
    for (index, address) in cluster.coordinator_addresses().into_iter().enumerate() {
        let mut client = wire::coordinator_client::CoordinatorClient::new(ask::dial(&address).await.unwrap());
        // The status comes from the leader; the view from the log, which the others read now and then.
        let now = ask::chain(&address).await.unwrap();
        wait_for("the newest view", PATIENCE, async || {
            let request = wire::GetViewRequest { header: None };
            let views =
                client.get_view(request).await.map_err(|status| status.to_string())?.into_inner().views;
            let is_newest = matches!(&views[..], [view] if view.epoch == now.epoch);
            unless(is_newest, || format!("coordinator {index}, with {leader} leading: {views:?}"))
        })
        .await;
        // An order goes to whoever leads.
        let order = now.members.iter().rev().map(|member| member.node.clone()).collect();
        let reply = client.reorder(wire::ReorderRequest { header: None, order }).await.unwrap().into_inner();
        assert!(reply.header.unwrap().epoch > now.epoch);
    }
}

/// A cluster whose log is on this store, with these further flags.
fn on_s3(s3: &S3, further: &[&str]) -> Builder {
    let flags = ["--data", "s3://craq-test/a/b", "--data-endpoint", &s3.endpoint];
    let flags = [&flags[..], further].concat();
    let variables = ["env", "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret"].map(str::to_owned);
    cluster().coordinator_flags(&flags).coordinator_at(&free_address(), variables.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_costs_no_call_and_the_chain_is_mended_when_it_is_back() {
    let _turn = turn().await;
    let s3 = S3::start(false).await;
    let mut cluster = on_s3(&s3, &["--leader-lease", "2s"]).coordinators(3).start().await;
    let (_, term) = cluster.leader(0).await;
    let epoch = cluster.chain().await.epoch;
    let load = load(&cluster).await;
    progress(&load, 10).await;
    s3.out(true);
    let addresses = cluster.coordinator_addresses();
    wait_for("that nobody leads", PATIENCE, async || {
        for address in &addresses {
            unless(!ask::leadership(address).await?.leads, || format!("{address} leads"))?;
        }
        Ok(())
    })
    .await;
    tokio::time::sleep(seconds("CRAQ_TEST_OUTAGE_SECONDS", 4)).await;
    progress(&load, 30).await;
    s3.out(false);
    let began = Instant::now();
    let (_, next_term) = cluster.leader(term).await;
    figure("the store is back, until somebody leads", format!("{} ms", began.elapsed().as_millis()));
    assert!(next_term > term);
    cluster.whole().await;
    assert_eq!(cluster.chain().await.epoch, epoch, "the chain was healthy, so it has not changed");
    let (ops, counts) = verdict(&mut cluster, load).await;
    figure("the store was away, history", counts);
    assert!(failed(&ops).is_empty(), "{:?}", failed(&ops));
    let head = cluster.at(Role::Head).await;
    cluster.kill_node(head);
    assert_eq!(cluster.whole().await.len(), 2);
    assert!(s3.names().iter().all(|name| name.starts_with("a/b/")), "{:?}", s3.names());
}

/// What a month of 30 days costs on S3 in US dollars: $0.005 for 1,000 puts or lists, $0.0004 for 1,000 gets.
fn dollars_a_month(requests: Requests, within: Duration) -> f64 {
    let price = (requests.puts + requests.lists) as f64 * 5e-6 + requests.gets as f64 * 4e-7;
    price * (30.0 * 86_400.0) / within.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_cluster_asks_little_of_its_object_store() {
    let _turn = turn().await;
    let s3 = S3::start(false).await;
    let cluster = on_s3(&s3, &[]).coordinators(3).start().await;
    cluster.leader(0).await;
    s3.take_requests();
    let began = Instant::now();
    tokio::time::sleep(seconds("CRAQ_TEST_IDLE_SECONDS", 20)).await;
    let (took, requests) = (began.elapsed(), s3.take_requests());
    let a_minute = |count: usize| count as f64 * 60.0 / took.as_secs_f64();
    figure(
        "a leader and two others on an object store, idle",
        format!("{requests:?} in {took:.0?}, ${:.2} a month", dollars_a_month(requests, took)),
    );
    // The leader writes every 2.5 s, and looks whether that is the newest; now and then it removes what is old.
    assert!(a_minute(requests.puts) <= 30.0 && a_minute(requests.lists) <= 40.0, "{requests:?}");
    // Each of the others looks for the next record every 750 ms, and reads it when it is there.
    assert!(a_minute(requests.gets) <= 2.0 * 120.0, "{requests:?}");
}

fn craq(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(binaries().client).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_told_by_a_coordinator_and_by_the_log_alone() {
    let _turn = turn().await;
    let mut cluster = cluster().coordinators(2).start().await;
    let (leader, term) = cluster.leader(0).await;
    let all = cluster.coordinator_addresses().join(",");
    let (code, told, wrong) = craq(&["-c", &all, "topology", "history", "-o", "plain"]);
    assert_eq!((code, wrong.as_str()), (0, ""));
    let epochs: Vec<u64> =
        told.lines().map(|line| line.split('\t').nth(1).unwrap().parse().unwrap()).collect();
    let newest = cluster.chain().await.epoch;
    assert_eq!(epochs, (1..=newest).collect::<Vec<_>>(), "{told}");

    let (code, listed, _) = craq(&["-c", &all, "coordinator", "list", "-o", "plain"]);
    let role = |index: usize| listed.lines().nth(index).unwrap().split('\t').nth(1).unwrap().to_owned();
    assert_eq!((code, role(leader).as_str(), role(1 - leader).as_str()), (0, "leads", "follows"), "{listed}");
    // By whichever coordinator it goes, the one that leads gives up.
    let (code, done, wrong) =
        craq(&["-c", &cluster.coordinator_addresses()[1 - leader], "coordinator", "transfer"]);
    assert_eq!((code, done.trim_end(), wrong.as_str()), (0, &*format!("OK term={term} ended"), ""));
    let (next, next_term) = cluster.leader(term).await;
    assert_eq!((next, next_term), (1 - leader, term + 1));

    cluster.kill_coordinator_at(0);
    cluster.kill_coordinator_at(1);
    let data = cluster.coordinator_data().display().to_string();
    let (code, alone, wrong) = craq(&["topology", "history", "--data", &data, "-o", "plain"]);
    assert_eq!((code, wrong.as_str()), (0, ""));
    assert_eq!(alone, told);
    let (code, shown, _) = craq(&["topology", "show", "--epoch", "2", "--data", &data, "-o", "json"]);
    assert!(code == 0 && shown.contains("\"epoch\":2") && shown.contains("\"reason\":\""), "{shown}");
    let (code, now, _) = craq(&["topology", "show", "--at", "0s", "--data", &data, "-o", "plain"]);
    assert!(code == 0 && Some(now.trim_end()) == told.lines().last(), "{now}");
    let (code, _, wrong) = craq(&["topology", "show", "--epoch", "99", "--data", &data]);
    assert!(code == 2 && wrong.contains("no view of that epoch"), "{wrong}");
    let (code, _, wrong) = craq(&["topology", "history", "--data", "/nowhere/at/all"]);
    assert!(code == 2 && wrong.contains("no directory"), "{wrong}");
    cluster.start_coordinator();
    cluster.whole().await;
}
