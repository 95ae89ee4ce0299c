//! Does a network that is cut anywhere show something stale, or keep the rest from going on?
//!
//! With network namespaces where there are the rights for them; with proxies everywhere.

use std::time::Duration;

use craq_proto::Role;
use craq_tests::{
    history::Op,
    load::{Load, Plan, is_pinned},
    netns::Network,
    process::{Cluster, NodeSpec, PATIENCE, wait::wait_for},
    proxy::{Proxy, State},
};

use crate::support::{
    Figures, cluster, figure, load_as, longest_gap, number, progress, rounds, turn, verdict,
};

/// The coordinator's host; node `n` is on host `n + 2`.
const COORDINATOR: u32 = 1;
/// The clients' host.
const CLIENTS: u32 = 254;

fn host(node: usize) -> u32 {
    u32::try_from(node).unwrap() + 2
}

/// Longer than the lease and the failure timeout together.
fn cut_time() -> Duration {
    Duration::from_millis(number("CRAQ_TEST_CUT_MS", 3_000) as u64)
}

/// Three nodes and the coordinator, each on a host of its own; nothing if this machine can't.
async fn on_hosts(flags: &[&str]) -> Option<(Network, Cluster)> {
    let network = match Network::new(4) {
        Ok(network) => network,
        Err(why) => {
            println!("SKIPPED: network namespaces need root and `ip` (package iproute2): {why}");
            return None;
        }
    };
    let coordinator = format!("{}:1234", network.address(COORDINATOR));
    let places: Vec<_> =
        (0..3).map(|node| (network.address(host(node)), network.prefix(host(node)))).collect();
    let place = move |index: usize, spec: &mut NodeSpec| {
        let (address, prefix) = &places[index];
        spec.listen = format!("{address}:1235");
        spec.public.clone_from(&spec.listen);
        spec.prefix.clone_from(prefix);
    };
    let builder =
        cluster().node_flags(flags).coordinator_at(&coordinator, network.prefix(COORDINATOR)).each(place);
    let cluster = builder.start().await;
    Some((network, cluster))
}

/// Cuts, waits, heals, for the node in this place, under load; all must be whole and right again in the end.
async fn cut(what: &str, role: Role, cut: impl Fn(&Network, usize)) {
    let _turn = turn().await;
    let Some((network, mut cluster)) = on_hosts(&[]).await else { return };
    let plan = Plan { pinned_timeout: Duration::from_secs(1), ..Plan::default() };
    let load = load_as(&cluster, plan).await;
    let mut gaps = Figures::default();
    for _ in 0..rounds().div_ceil(2) {
        progress(&load, 30).await;
        let victim = cluster.at(role).await;
        cut(&network, victim);
        let from = load.recorder.now();
        next_write(&load, from).await;
        tokio::time::sleep(cut_time().saturating_sub(load.recorder.now() - from)).await;
        progress(&load, 10).await;
        gaps.add(longest_gap(&load.recorder.ops(), from, load.recorder.now()));
        network.heal();
        cluster.whole().await;
    }
    let (ops, counts) = verdict(&mut cluster, load).await;
    figure(&format!("{what} ({role}), longest time without an acknowledged write"), &gaps);
    figure(&format!("{what} ({role}), history"), counts);
    figure(&format!("{what} ({role}), calls that failed though they could go elsewhere"), failed(&ops));
    assert!(gaps.max() < Duration::from_secs(8), "{gaps}");
}

async fn next_write(load: &Load, from: Duration) {
    wait_for("an acknowledged write", PATIENCE, async || {
        load.recorder.first_ack_of_new_write(from).ok_or_else(|| "none yet".to_owned())
    })
    .await;
}

/// A lease that is longer than the failure timeout: the chain has changed long before it runs out. The node that was left
/// alone may answer meanwhile, and so the others must not write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_chain_waits_for_the_lease_of_a_member_that_was_left_alone() {
    let _turn = turn().await;
    let lease = Duration::from_secs(4);
    let Some((network, mut cluster)) = on_hosts(&["--lease", "4s"]).await else { return };
    let pinned = cluster.addresses().into_iter().flat_map(|address| vec![address; 3]).collect();
    // More keys than writers: some stay clean, and are answered.
    let plan = Plan { pinned, writers: 4, own_keys: 4, shared_keys: 2, ..Plan::default() };
    let load = load_as(&cluster, plan).await;
    progress(&load, 30).await;
    let victim = cluster.at(Role::Middle).await;
    from_processes(&network, victim);
    let from = load.recorder.now();
    tokio::time::sleep(lease + cut_time()).await;
    progress(&load, 10).await;
    let to = load.recorder.now();
    network.heal();
    let (ops, counts) = verdict(&mut cluster, load).await;
    let of_victim = |op: &&Op| is_pinned(op) && (op.client - 200) / 3 == u32::try_from(victim).unwrap();
    let answered: Vec<_> =
        ops.iter().filter(of_victim).filter(|op| op.is_ok() && op.invoked > from).collect();
    let under_lease = answered.iter().filter(|op| op.returned < from + lease).count();
    figure("left alone with a lease of 4 s: answers under it", under_lease);
    figure("left alone with a lease of 4 s: the others wrote nothing for", {
        format!("{:?}", longest_gap(&ops, from, to))
    });
    figure("left alone with a lease of 4 s, history", counts);
    assert!(under_lease > 10, "a member may answer as long as its lease holds: {under_lease}");
}

fn failed(ops: &[Op]) -> usize {
    ops.iter().filter(|op| !op.is_ok() && !is_pinned(op)).count()
}

fn from_coordinator(network: &Network, node: usize) {
    network.cut(COORDINATOR, host(node));
}

fn from_clients(network: &Network, node: usize) {
    network.cut(CLIENTS, host(node));
}

/// From everything but the clients.
fn from_processes(network: &Network, node: usize) {
    for other in (COORDINATOR..=4).filter(|other| *other != host(node)) {
        network.cut(other, host(node));
    }
}

fn from_everything(network: &Network, node: usize) {
    from_processes(network, node);
    from_clients(network, node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_only_the_coordinator_cannot_reach_shows_nothing_stale() {
    cut("cut off from the coordinator", Role::Head, from_coordinator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_only_the_coordinator_cannot_reach_shows_nothing_stale() {
    cut("cut off from the coordinator", Role::Tail, from_coordinator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_only_the_clients_cannot_reach_is_worked_around() {
    cut("cut off from the clients", Role::Head, from_clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_middle_that_only_the_clients_cannot_reach_is_worked_around() {
    cut("cut off from the clients", Role::Middle, from_clients).await;
}

/// R7. The old head takes writes that can't commit, while the others go on with the same keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_only_the_clients_can_reach_shows_nothing_stale_and_drops_what_it_took() {
    cut("left alone with the clients", Role::Head, from_processes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_middle_that_only_the_clients_can_reach_shows_nothing_stale() {
    cut("left alone with the clients", Role::Middle, from_processes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_only_the_clients_can_reach_shows_nothing_stale() {
    cut("left alone with the clients", Role::Tail, from_processes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_nobody_can_reach_is_replaced() {
    cut("cut off from everything", Role::Head, from_everything).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_hears_its_neighbours_but_is_not_heard_is_replaced() {
    cut("heard by nobody", Role::Tail, |network, node| {
        for other in (COORDINATOR..=4).filter(|other| *other != host(node)) {
            network.cut_one_way(host(node), other);
        }
    })
    .await;
}

/// Two members that both reach the coordinator and not each other: one of them has to go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_members_that_do_not_reach_each_other_one_goes() {
    cut("two members cut off from each other", Role::Tail, |network, node| {
        network.cut(host((node + 2) % 3), host(node));
        network.cut(host((node + 1) % 3), host(node));
    })
    .await;
}

/// Without any rights: each node reaches the coordinator through a proxy of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_lose_the_coordinator_one_by_one_show_nothing_stale() {
    let _turn = turn().await;
    let builder = cluster();
    let coordinator = builder.coordinator_address().to_owned();
    let mut proxies = vec![];
    for _ in 0..3 {
        proxies.push(Proxy::start(&coordinator).await);
    }
    let addresses: Vec<_> = proxies.iter().map(Proxy::address).collect();
    let through = move |index: usize, spec: &mut NodeSpec| spec.coordinator.clone_from(&addresses[index]);
    let mut cluster = builder.each(through).start().await;
    let load = load_as(&cluster, Plan::default()).await;
    for round in 0..rounds().max(2) {
        progress(&load, 20).await;
        proxies[round % 3].set(State::Cut);
        tokio::time::sleep(cut_time()).await;
        progress(&load, 20).await;
        proxies[round % 3].set(State::Slow(Duration::from_millis(20)));
        cluster.whole().await;
        proxies[round % 3].set(State::Open);
    }
    // All at once: nobody is told anything, and everything goes on.
    let epoch = cluster.chain().await.epoch;
    proxies.iter().for_each(|proxy| proxy.set(State::Cut));
    tokio::time::sleep(cut_time()).await;
    progress(&load, 20).await;
    proxies.iter().for_each(|proxy| proxy.set(State::Open));
    cluster.whole().await;
    assert_eq!(cluster.chain().await.epoch, epoch, "the coordinator was cut off, not the nodes");
    let (ops, counts) = verdict(&mut cluster, load).await;
    figure("cut off from the coordinator by proxies, history", counts);
    assert_eq!(failed(&ops), 0);
}
