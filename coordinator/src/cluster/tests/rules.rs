//! Do single rules hold where no scenario leads, because other rules stand before them?

use std::time::Duration;

use craq_proto::{ChainId, Epoch, Expelled, Incarnation, Member, NodeId, Time, View};
use uuid::Uuid;

use crate::cluster::{
    Cluster, Input, Placement, Registration, ReplicaState, StreamId, Timing,
    facts::{Cut, Facts, Lost, NodeFacts},
    legal::{Authority, legal_successor},
    next_view::next_view,
};

fn node(n: u128) -> NodeId {
    NodeId(Uuid::from_u128(n))
}

/// Members with their `in_sync`, all of incarnation 2.
fn view(members: &[(u128, bool)]) -> View {
    let member = |(n, in_sync): &(u128, bool)| Member {
        node: node(*n),
        incarnation: Incarnation(2),
        in_sync: *in_sync,
        address: format!("n{n}:1"),
    };
    View {
        chain: ChainId::default_chain(),
        epoch: Epoch(7),
        members: members.iter().map(member).collect(),
        learners: Vec::new(),
        rebuilt_in: Epoch::ZERO,
        expelled: Vec::new(),
        reason: "given".to_owned(),
    }
}

/// All members said Active in epoch 7.
fn facts(view: &View) -> Facts {
    let replica = ReplicaState { epoch: view.epoch, active: true, ..ReplicaState::default() };
    let one = |member: &Member| {
        let (incarnation, address) = (member.incarnation, member.address.clone());
        (
            member.node,
            NodeFacts { incarnation, address, replica: Some(replica.clone()), ..NodeFacts::default() },
        )
    };
    Facts { nodes: view.members.iter().map(one).collect(), cut: None }
}

#[test]
fn what_another_process_said_is_not_believed() {
    let view = view(&[(1, true), (2, false)]);
    let mut facts = facts(&view);
    let synced = next_view(&view, &facts).unwrap().0;
    assert!(synced.members[1].in_sync);
    facts.nodes.get_mut(&node(2)).unwrap().incarnation = Incarnation(1);
    assert_eq!(next_view(&view, &facts), None);
}

#[test]
fn the_only_in_sync_member_stays_whatever_the_facts_are() {
    let view = view(&[(1, true), (2, false)]);
    let mut cut = facts(&view);
    cut.nodes.get_mut(&node(2)).unwrap().replica = None;
    cut.cut = Some(Cut { victim: node(1), other: node(2) });
    assert_eq!(next_view(&view, &cut), None);
    let mut lost = facts(&view);
    lost.nodes.get_mut(&node(1)).unwrap().lost = Some(Lost::Refused);
    assert_eq!(next_view(&view, &lost), None);
    let mut leaving = facts(&view);
    leaving.nodes.get_mut(&node(2)).unwrap().replica = None;
    leaving.nodes.get_mut(&node(1)).unwrap().leaving = true;
    assert_eq!(next_view(&view, &leaving), None);
}

#[test]
fn illegal_steps_are_recognised() {
    let expelled = |n| Expelled { node: node(n), incarnation: Incarnation(2) };
    let old = View { expelled: vec![expelled(9)], ..view(&[(1, true), (2, true), (3, false)]) };
    let new =
        |members: &[(u128, bool)]| View { epoch: Epoch(8), expelled: old.expelled.clone(), ..view(members) };
    let same = new(&[(1, true), (2, true), (3, false)]);
    assert_eq!(legal_successor(&old, &same, Authority::System), Ok(()));
    let mut older_process = same.clone();
    older_process.members[0].incarnation = Incarnation(1);
    let mut fresh_process = new(&[(1, true), (2, true), (3, true)]);
    fresh_process.members[2].incarnation = Incarnation(3);
    for (illegal, what) in [
        (View { epoch: Epoch(9), ..same.clone() }, "not the next one"),
        (View { members: Vec::new(), ..same.clone() }, "no member"),
        (View { reason: String::new(), ..same.clone() }, "no reason"),
        (View { expelled: vec![], ..same.clone() }, "taken out is forgotten"),
        (View { expelled: vec![expelled(9), expelled(1)], ..same }, "is in it and was taken out"),
        (older_process, "goes back"),
        (fresh_process, "incarnation that was no member"),
        (new(&[(3, false), (1, true), (2, true)]), "head is not in sync"),
        (new(&[(1, true), (1, true)]), "stands twice"),
        (new(&[(3, true)]), "no member that was in sync stays"),
        (new(&[(1, true), (2, false), (3, false)]), "lost its in_sync"),
        (new(&[(1, true), (2, true), (3, false), (4, false)]), "without having been a learner"),
        (new(&[(1, true), (3, true)]), "more than one of"),
        (new(&[(2, true), (1, true), (3, true)]), "more than one of"),
        (new(&[(1, true), (3, false), (2, true)]), "changed places"),
    ] {
        let violated = legal_successor(&old, &illegal, Authority::System).expect_err(what);
        assert!(violated.contains(what), "{violated}");
    }
}

#[test]
fn a_deadline_that_passes_while_another_node_is_heard_is_still_due() {
    let mut cluster =
        Cluster::new(Time::ZERO, Timing { failure_timeout: Duration::from_secs(1) }, Vec::new());
    let at = |millis| Time::ZERO + Duration::from_millis(millis);
    let mut out = Vec::new();
    for n in [1, 2] {
        let registration = Registration {
            node: node(n),
            incarnation: Incarnation(1),
            address: format!("n{n}:1"),
            placement: Placement::Tail,
            replicas: Vec::new(),
        };
        cluster.step(at(1_000), Input::Registered { stream: StreamId(n as u64), registration }, &mut out);
    }
    cluster.step(at(1_100), Input::Tick, &mut out);
    // Node 1 is heard at the very moment at which the silence of node 2 is to be judged, and a little later.
    for millis in [1_400, 1_800, 2_000, 2_001] {
        let beat = Input::Heartbeat { stream: StreamId(1), replicas: Vec::new(), suspicions: Vec::new() };
        cluster.step(at(millis), beat, &mut out);
    }
    let due = cluster.next_deadline().expect("something is due");
    assert!(due <= at(2_001), "the silence of node 2 would be judged at {due:?}, if at all");
    cluster.step(at(2_001), Input::Tick, &mut out);
    assert!(cluster.next_deadline().is_some_and(|due| due > at(2_001)), "a tick leaves nothing due");
}
