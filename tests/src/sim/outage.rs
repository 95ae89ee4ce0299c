//! A healthy cluster whose coordinators' store is away for long, comes back, and then has a node to replace.
//!
//! Clients go on all the time. What they may expect is for the test to say; here is checked that the chain and the
//! leadership are left alone.

use std::time::Duration;

use super::{
    Fault, Report, Setup, place::Place, run::perform, time::At, trace::Trace, world::World, world::note,
};

/// So often it is looked at who leads, and in which epoch.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// So long the chain is left alone when the store is back, so that it shows what the new leader does to it.
const SETTLING: Duration = Duration::from_secs(20);

/// What came of an outage. Times are virtual, moments since the beginning.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    /// When the store fell silent.
    pub began: Duration,
    /// When it was back.
    pub ended: Duration,
    /// When a node was killed.
    pub killed: Duration,
    /// For how much of the outage somebody led.
    pub led: Duration,
    /// From the store's return until somebody led.
    pub leaderless: Duration,
    /// From a node's death until the chain was whole, with another node in its place.
    pub replaced: Duration,
}

/// Runs a cluster whose store is away for so long.
#[must_use]
pub fn outage(setup: &Setup, lasts: Duration) -> (Report, Outage) {
    let mut outage = Outage::default();
    let (report, _) = perform(setup, Trace::Off, |world| world.outlive(lasts, &mut outage));
    (report, outage)
}

impl World {
    /// Returns how long the chain needed to become whole at last.
    fn outlive(&mut self, lasts: Duration, outage: &mut Outage) -> Duration {
        self.start_all();
        self.wait_for("the chain does not become whole", Self::is_whole);
        let (began, epochs) = (self.now, self.epochs.len());
        outage.began = began.since(At(0));
        self.faults.fire(Fault::StoreOutage, began.after(lasts));
        self.storage.out(true);
        while self.violation.is_none() && self.now < began.after(lasts) {
            self.run_until(self.now.after(LOOK_INTERVAL));
            if self.leader().is_some() {
                outage.led = self.now.since(began);
            }
        }
        self.storage.out(false);
        outage.ended = self.now.since(At(0));
        outage.leaderless = self.time_until("nobody leads", |world| world.leader().is_some());
        self.run_until(self.now.after(SETTLING));
        if self.epochs.len() != epochs {
            let what = format!("{} epochs became {} in a healthy chain", epochs, self.epochs.len());
            self.wrong("outage", what);
        }
        outage.killed = self.now.since(At(0));
        self.replace_head();
        outage.replaced = self.time_until("the dead node is not replaced", Self::is_whole);
        self.heal_and_judge()
    }

    fn time_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        self.wait_for(what, is_so);
        self.now.since(began)
    }

    /// The head dies, and a machine that did not run yet starts.
    fn replace_head(&mut self) {
        let head = self.newest.as_ref().and_then(|view| self.machine_of(view.head()?.node));
        let spare = self.machines.iter().position(|machine| !machine.is_wanted);
        let (Some(head), Some(spare)) = (head, spare) else {
            return self.wrong("outage", format!("no head ({head:?}) or no spare ({spare:?})"));
        };
        note!(self, Place::Node(head), "replaced", "by {}", Place::Node(spare));
        self.machines[head].is_wanted = false;
        self.crash(head, true, "for good");
        self.machines[spare].is_wanted = true;
        self.start(spare);
    }
}
