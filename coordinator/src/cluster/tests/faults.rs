//! Is every view legal under random faults, and does the chain become whole when they end?

use std::time::Duration;

use proptest::prelude::*;

use super::model::{Model, node};
use crate::cluster::Placement;

const NODES: usize = 5;

/// What goes wrong, or is put right again.
#[derive(Debug, Clone)]
enum Fault {
    Kill(usize),
    Start(usize, Option<usize>),
    Stop(usize),
    Continue(usize),
    Disconnect(usize),
    Leave(usize),
    Break(usize, usize),
    Mend(usize, usize),
    Remove(usize),
    Rotate,
    RestartCoordinator,
    Stall(u64),
    Hold,
    Release,
    Beaten,
}

fn fault() -> impl Strategy<Value = Fault> {
    let n = 0..NODES;
    prop_oneof![
        3 => n.clone().prop_map(Fault::Kill),
        6 => (n.clone(), proptest::option::of(0..=NODES)).prop_map(|(n, place)| Fault::Start(n, place)),
        2 => n.clone().prop_map(Fault::Stop),
        4 => n.clone().prop_map(Fault::Continue),
        2 => n.clone().prop_map(Fault::Disconnect),
        1 => n.clone().prop_map(Fault::Leave),
        2 => (n.clone(), n.clone()).prop_map(|(a, b)| Fault::Break(a, b)),
        3 => (n.clone(), n.clone()).prop_map(|(a, b)| Fault::Mend(a, b)),
        1 => n.prop_map(Fault::Remove),
        1 => Just(Fault::Rotate),
        1 => Just(Fault::RestartCoordinator),
        1 => (100..4000u64).prop_map(Fault::Stall),
        1 => Just(Fault::Hold),
        2 => Just(Fault::Release),
        1 => Just(Fault::Beaten),
    ]
}

fn apply(model: &mut Model, fault: Fault) {
    match fault {
        Fault::Kill(n) => model.kill(node(n)),
        Fault::Start(n, place) => model.start(
            node(n),
            match place {
                None => Placement::Tail,
                Some(NODES) => Placement::First,
                Some(other) => Placement::After(node(other)),
            },
        ),
        Fault::Stop(n) => model.stop(node(n), true),
        Fault::Continue(n) => model.stop(node(n), false),
        Fault::Disconnect(n) => model.disconnect(node(n)),
        Fault::Leave(n) => model.leave(node(n)),
        Fault::Break(a, b) => model.break_pair(node(a), node(b), true),
        Fault::Mend(a, b) => model.break_pair(node(a), node(b), false),
        Fault::Remove(n) => model.remove(node(n)),
        Fault::Rotate => model.rotate(),
        Fault::RestartCoordinator => model.restart_coordinator(),
        Fault::Stall(millis) => model.stall(Duration::from_millis(millis)),
        Fault::Hold => model.hold(true),
        Fault::Release => model.hold(false),
        Fault::Beaten => model.beat(),
    }
}

/// 64 random histories, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 64 };
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_view_is_legal_and_the_chain_becomes_whole(
        faults in proptest::collection::vec((fault(), 0..1500u64), 1..120),
        gently in any::<bool>(),
    ) {
        let mut model = Model::new(NODES);
        for (fault, pause) in faults {
            apply(&mut model, fault);
            model.run(Duration::from_millis(pause));
        }
        model.heal(gently);
        let views = model.log.len();
        let healed = model.now;
        while !model.is_whole() && model.now.since(healed) < Duration::from_secs(60) {
            model.run(Duration::from_millis(100));
        }
        prop_assert!(model.is_whole(), "not whole after 60 s: {:#?}", model.log.last());
        let views = model.log.len() - views;
        prop_assert!(views <= 12 * NODES, "it took {} epochs", views);
    }
}
