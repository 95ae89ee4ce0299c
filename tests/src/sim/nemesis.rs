//! Who makes the faults, and takes them back.

use std::{collections::BTreeSet, time::Duration};

use craq_coordinator::cluster::Input;
use craq_log::faulty::Trouble;
use craq_proto::{ChainId, NodeId, View};
use rand::{RngExt, seq::IndexedRandom};

use super::{
    disk::Trouble as DiskTrouble,
    fault::Fault,
    network::Cut,
    place::Place,
    time::At,
    world::{Event, ToNode, World, note},
};

/// An operator's order is carried out within this time.
const SETTLING: Duration = Duration::from_secs(10);

/// A member loses its disk within this time, or keeps it.
const CALM_WITHIN: Duration = Duration::from_secs(15);

/// What the nemesis does at its times.
#[derive(Debug)]
pub(super) enum Move {
    /// The next fault.
    Next,
    /// One more, close to something that has just happened.
    Sting,
    /// A cut or a slowness ends.
    Mend(u64),
    /// A machine starts its process again.
    Restart(usize),
    /// A process dies, and starts again at once.
    Stumble(usize),
    RestartCoordinator(usize),
    /// The further coordinator is not wanted any more.
    StopFurther,
    FastDisk(usize),
    FastStore,
    /// What is late arrives at the object store.
    Land,
    StoreBack,
    Truth(usize),
}

/// What it remembers.
#[derive(Debug, Default)]
pub(super) struct Nemesis {
    has_begun: bool,
    /// No fault begins any more.
    is_over: bool,
    /// A member has lost its disk: nothing else happens until the chain does without it.
    mourns: Option<NodeId>,
    /// A member is to lose its disk as soon as all is well: until then, or until this time, nothing else begins.
    waits_for_calm: Option<At>,
    /// Until when faults are under way, at the latest.
    busy_until: At,
    /// Where the last fault was, if it was at one machine: what goes wrong is seen there.
    pub(super) victim: usize,
    /// How many members the chain had.
    members: usize,
    /// Whom an operator has removed: such a process stays out until it is started again.
    removed: BTreeSet<NodeId>,
}

impl World {
    /// Faults begin from now on.
    pub(super) fn begin_faults(&mut self) {
        if self.setup.faults.contains(&Fault::FastClock) {
            let end = At(u64::MAX);
            self.faults.fire(Fault::FastClock, end);
        }
        self.nemesis.has_begun = true;
        self.next_fault();
    }

    fn next_fault(&mut self) {
        let wait = self.setup.fault_interval.as_secs_f64() * -self.random.random_range(0.001..1.0_f64).ln();
        self.schedule(Duration::from_secs_f64(wait), Event::Nemesis(Move::Next));
    }

    pub(super) fn on_move(&mut self, what: Move) {
        match what {
            Move::Next | Move::Sting if self.nemesis.is_over => {}
            Move::Next => {
                self.next_harm();
                if self.random.random_bool(0.25) {
                    self.sting(200);
                }
                self.next_fault();
            }
            Move::Sting => self.next_harm(),
            Move::Mend(id) => {
                note!(self, Place::World, "mend", "{id}");
                self.network.mend(id);
            }
            Move::Restart(machine) => self.restart(machine),
            Move::Stumble(machine) => self.stumble(machine),
            Move::RestartCoordinator(index) => self.start_coordinator(index),
            Move::StopFurther => self.crash_coordinator(self.setup.coordinators),
            Move::FastDisk(machine) => self.machines[machine].disk_delay = Duration::ZERO,
            Move::FastStore => self.storage.delay_max = Duration::from_millis(20),
            Move::Land => self.land(),
            Move::StoreBack => self.storage.out(false),
            Move::Truth(machine) => self.machines[machine].slanders = None,
        }
    }

    fn next_harm(&mut self) {
        if let Some(node) = self.nemesis.mourns {
            let is_member = self.newest.as_ref().is_some_and(|view| view.address(node).is_some());
            self.nemesis.mourns = Some(node).filter(|_| is_member);
        }
        self.nemesis.waits_for_calm = self.nemesis.waits_for_calm.filter(|until| self.now < *until);
        if self.nemesis.waits_for_calm.is_some() {
            if self.is_calm() {
                self.nemesis.waits_for_calm = None;
                self.wipe(Fault::WipeMember);
            }
            return;
        }
        let faults: Vec<Fault> = self.setup.faults.iter().copied().collect();
        if self.nemesis.mourns.is_none()
            && let Some(fault) = faults.choose(&mut self.random)
        {
            self.do_harm(*fault);
        }
    }

    fn sting(&mut self, millis_max: u64) {
        let wait = self.time(Duration::from_micros(50), Duration::from_millis(millis_max));
        self.schedule(wait, Event::Nemesis(Move::Sting));
    }

    /// The chain has changed: what goes wrong just now goes wrong in the middle of it.
    pub(super) fn on_change(&mut self) {
        if !self.may_harm() {
            return;
        }
        if self.random.random_bool(0.2) {
            self.sting(100);
        }
        let members = self.newest.as_ref().map_or(0, |view| view.members.len());
        if members < std::mem::replace(&mut self.nemesis.members, members) {
            self.may_forget();
        }
        self.may_behead();
        // What is brought up slowly sees more of what happens meanwhile.
        let learner = self.newest.as_ref().and_then(|view| {
            let learner = view.learners.first()?;
            Some((Place::of(view.address(learner.source)?)?, Place::of(&learner.address)?))
        });
        if let Some((source, learner)) = learner
            && self.setup.faults.contains(&Fault::SlowLink)
            && self.random.random_bool(if self.setup.collects_tombstones { 0.7 } else { 0.3 })
        {
            self.slow(source, learner);
        }
    }

    /// A time between the two, small ones as likely as large ones.
    fn time(&mut self, least: Duration, most: Duration) -> Duration {
        let (low, high) = (least.as_secs_f64().ln(), most.as_secs_f64().ln());
        Duration::from_secs_f64(self.random.random_range(low..=high).exp())
    }

    fn fire(&mut self, fault: Fault, lasts: Duration) {
        let until = self.now.after(lasts.max(Duration::from_secs(1)));
        self.nemesis.busy_until = until.max(self.nemesis.busy_until);
        self.faults.fire(fault, until);
        note!(self, Place::World, "FAULT", "{} for {lasts:?}", fault.name());
    }

    fn do_harm(&mut self, fault: Fault) {
        use Fault as F;
        match fault {
            F::Kill | F::PowerLoss | F::CrashAtStep | F::CrashInRecovery | F::KillAll => self.kill(fault),
            F::Pause => self.pause(),
            F::PauseCoordinator | F::KillCoordinator | F::TwoCoordinators | F::Transfer => {
                self.harm_coordinator(fault);
            }
            F::Halves
            | F::Isolate
            | F::OneWay
            | F::Bridge
            | F::CutCoordinator
            | F::CutNonNeighbours
            | F::CutClients => self.cut(fault),
            F::SlowLink | F::Reset => self.harm_connections(fault),
            F::SlowDisk | F::HungDisk | F::DiskError | F::FullDisk => self.harm_disk(fault),
            F::Wipe | F::WipeMember => self.wipe(fault),
            F::Join | F::Leave => self.come_or_go(fault),
            F::Reorder | F::Remove | F::Slander => self.meddle(fault),
            F::StoreError | F::SlowStore | F::StoreConflict | F::LatePut | F::StoreOutage => {
                self.harm_store(fault);
            }
            // Clocks differ from the beginning.
            F::FastClock => {}
        }
    }

    /// Faults happen, and nothing has asked for calm.
    fn may_harm(&self) -> bool {
        let Nemesis { has_begun, is_over, mourns, waits_for_calm, .. } = &self.nemesis;
        *has_begun && !*is_over && mourns.is_none() && waits_for_calm.is_none()
    }

    /// The machines with a process.
    fn running(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|machine| self.machines[*machine].process.is_some()).collect()
    }

    /// A machine with a process; often the head's, sometimes the tail's.
    fn any_running(&mut self) -> Option<usize> {
        let view = self.newest.clone();
        let ends = view.as_ref().and_then(|view| Some((view.head()?.node, view.tail()?.node)));
        let wanted = match (self.random.random_range(0..10), ends) {
            (0..3, Some((head, _))) => self.machine_of(head),
            (3..5, Some((_, tail))) => self.machine_of(tail),
            _ => None,
        };
        let running = self.running();
        // A clock that is slow shows when its machine is left out.
        let slowest = self.setup.slowest.filter(|_| self.random.random_bool(0.5));
        let machine = slowest
            .or(wanted)
            .filter(|machine| running.contains(machine))
            .or_else(|| running.choose(&mut self.random).copied())?;
        self.nemesis.victim = machine;
        Some(machine)
    }

    /// The machine that is a node of the newest view, if it still has that node's disk.
    pub(super) fn machine_of(&self, node: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.node == Some(node))
    }

    fn kill(&mut self, fault: Fault) {
        let Some(machine) = self.any_running() else { return };
        match fault {
            Fault::CrashAtStep => {
                self.machines[machine].dies_in = Some(self.random.random_range(1..60));
                return;
            }
            Fault::KillAll => {
                self.fire(fault, Duration::ZERO);
                for machine in self.running() {
                    let power = self.random.random_bool(0.5);
                    self.crash(machine, power, "with all others");
                    self.restart_later(machine);
                }
                return;
            }
            Fault::CrashInRecovery => {
                self.fire(fault, Duration::ZERO);
                self.crash(machine, true, "and will again");
                let operations = self.random.random_range(0..30);
                self.machines[machine].disk.trouble_after(operations, DiskTrouble::PowerLoss);
            }
            _ => {
                self.fire(fault, Duration::ZERO);
                self.crash(machine, fault == Fault::PowerLoss, "planned");
            }
        }
        self.restart_later(machine);
    }

    /// A machine whose process has ended starts it again, sooner or later.
    pub(super) fn restart_later(&mut self, machine: usize) {
        if self.machines[machine].is_wanted {
            let wait = self.time(Duration::from_millis(5), Duration::from_secs(4));
            self.schedule(wait, Event::Nemesis(Move::Restart(machine)));
        }
    }

    fn restart(&mut self, machine: usize) {
        if !self.machines[machine].is_wanted || self.machines[machine].process.is_some() {
            return;
        }
        if !self.start(machine) {
            self.machines[machine].disk.cure();
            self.restart_later(machine);
        }
    }

    /// One that remembers less than it has promised does harm only if it is back before the promise has run out.
    fn stumble(&mut self, machine: usize) {
        if self.machines[machine].process.is_some() && self.may_harm() {
            self.fire(Fault::Kill, Duration::ZERO);
            self.crash(machine, false, "and is back at once");
            let wait = self.time(Duration::from_millis(1), Duration::from_millis(100));
            self.schedule(wait, Event::Nemesis(Move::Restart(machine)));
        }
    }

    /// Another one than the victim of what has just begun may stumble over it.
    fn may_stumble(&mut self, within: Duration) {
        let others: Vec<usize> =
            self.running().into_iter().filter(|machine| *machine != self.nemesis.victim).collect();
        if self.setup.faults.contains(&Fault::Kill)
            && self.random.random_bool(0.15)
            && let Some(machine) = others.choose(&mut self.random).copied()
        {
            let wait = self.time(Duration::from_millis(1), within);
            self.schedule(wait, Event::Nemesis(Move::Stumble(machine)));
        }
    }

    /// A member was left out: those that remain have promised it something, and may stumble while that binds. The last one
    /// above all, since nobody else waits then.
    fn may_forget(&mut self) {
        let Some(view) = self.newest.clone() else { return };
        let chance = if view.members.len() == 1 { 0.5 } else { 0.15 };
        if self.setup.faults.contains(&Fault::Kill)
            && self.random.random_bool(chance)
            && let Some(member) = view.members.choose(&mut self.random)
            && let Some(machine) = self.machine_of(member.node)
        {
            let wait = self.time(Duration::from_micros(100), self.setup.replica.lease);
            self.schedule(wait, Event::Nemesis(Move::Stumble(machine)));
        }
    }

    /// The head dies just when a member that is not in sync yet has come behind it.
    fn may_behead(&mut self) {
        let Some(view) = self.newest.clone() else { return };
        if view.members.get(1).is_some_and(|second| !second.in_sync)
            && self.setup.faults.contains(&Fault::Kill)
            && self.random.random_bool(0.3)
            && let Some(machine) = self.machine_of(view.members[0].node)
        {
            let wait = self.time(Duration::from_micros(100), Duration::from_millis(100));
            self.schedule(wait, Event::Nemesis(Move::Stumble(machine)));
        }
    }

    /// A question is on its way: its answer may come to one that has slept meanwhile.
    pub(super) fn on_ping(&mut self, machine: usize) {
        if self.may_harm() && self.setup.faults.contains(&Fault::Pause) && self.random.random_bool(0.003) {
            self.pause_one(machine);
        }
    }

    fn pause(&mut self) {
        if let Some(machine) = self.any_running() {
            self.pause_one(machine);
        }
    }

    fn pause_one(&mut self, machine: usize) {
        self.nemesis.victim = machine;
        let lease = self.setup.replica.lease;
        let lasts = self.time(lease / 10, lease * 12);
        self.fire(Fault::Pause, lasts);
        note!(self, Place::Node(machine), "pause", "{lasts:?}");
        self.machines[machine].paused_until = Some(self.now.after(lasts));
    }

    fn harm_coordinator(&mut self, fault: Fault) {
        let further = self.setup.coordinators;
        let running = (0..=further).filter(|index| self.coordinators[*index].process.is_some());
        let running: Vec<usize> = running.collect();
        // Mostly the one that leads.
        let leader = self.leader().filter(|_| self.random.random_bool(0.7));
        let Some(index) = leader.or_else(|| running.choose(&mut self.random).copied()) else { return };
        let lasts = self.time(Duration::from_millis(20), Duration::from_secs(8));
        match fault {
            Fault::PauseCoordinator => self.coordinators[index].paused_until = Some(self.now.after(lasts)),
            Fault::KillCoordinator => {
                self.crash_coordinator(index);
                if index < further {
                    self.schedule(lasts, Event::Nemesis(Move::RestartCoordinator(index)));
                }
            }
            Fault::TwoCoordinators if self.coordinators[further].process.is_none() => {
                self.start_coordinator(further);
                self.schedule(lasts * 3, Event::Nemesis(Move::StopFurther));
            }
            Fault::Transfer => self.resign(index),
            _ => return,
        }
        self.fire(fault, lasts);
    }

    fn cut(&mut self, fault: Fault) {
        let Some(cut) = self.pairs(fault) else { return };
        let lasts = self.time(Duration::from_millis(50), Duration::from_secs(10));
        self.fire(fault, lasts);
        let id = self.next_id();
        if self.trace.is_on() {
            let text: Vec<String> = cut.iter().map(|(from, to)| format!("{from}>{to}")).collect();
            note!(self, Place::World, "cut", "{id}: {}", text.join(" "));
        }
        self.network.cut(id, cut);
        self.schedule(lasts, Event::Nemesis(Move::Mend(id)));
        if matches!(fault, Fault::Isolate | Fault::OneWay | Fault::CutCoordinator) {
            self.may_stumble(self.setup.failure_timeout);
        }
    }

    fn pairs(&mut self, fault: Fault) -> Option<Cut> {
        let nodes: Vec<Place> = (0..self.machines.len()).map(Place::Node).collect();
        let coordinators: Vec<Place> = (0..self.coordinators.len()).map(Place::Coordinator).collect();
        let clients: Vec<Place> = (0..self.clients.len()).map(Place::Client).collect();
        let one = Place::Node(self.any_running()?);
        let others = |one: Place| nodes.iter().copied().filter(move |node| *node != one);
        match fault {
            Fault::Halves => {
                let all = nodes.iter().chain(&coordinators).chain(&clients).copied();
                let (a, b): (Vec<_>, Vec<_>) = all.partition(|_| self.random.random_bool(0.5));
                Some(both_ways(&a, &b))
            }
            Fault::Isolate => {
                let mut rest: Vec<Place> = others(one).chain(coordinators.iter().copied()).collect();
                if self.random.random_bool(0.5) {
                    rest.extend(clients);
                }
                Some(both_ways(&[one], &rest))
            }
            Fault::OneWay => {
                let mut rest: Vec<Place> = others(one).chain(coordinators.iter().copied()).collect();
                if self.random.random_bool(0.5) {
                    rest = vec![*rest.choose(&mut self.random)?];
                }
                let is_out = self.random.random_bool(0.5);
                let pair = |other: &Place| if is_out { (one, *other) } else { (*other, one) };
                Some(rest.iter().map(pair).collect())
            }
            Fault::Bridge => {
                let (a, b): (Vec<_>, Vec<_>) = others(one).partition(|_| self.random.random_bool(0.5));
                Some(both_ways(&a, &b)).filter(|cut| !cut.is_empty())
            }
            Fault::CutCoordinator => Some(both_ways(&[one], &coordinators)),
            Fault::CutNonNeighbours => {
                let view = self.newest.clone()?;
                let at = self.random.random_range(0..view.members.len());
                let far = view.members.get(at + 2)?;
                let (a, b) = (Place::of(&view.members[at].address)?, Place::of(&far.address)?);
                Some(both_ways(&[a], &[b]))
            }
            _ => {
                let client = *clients.choose(&mut self.random)?;
                let some: Vec<Place> =
                    nodes.iter().copied().filter(|_| self.random.random_bool(0.5)).collect();
                Some(both_ways(&[client], &some)).filter(|cut| !cut.is_empty())
            }
        }
    }

    fn harm_connections(&mut self, fault: Fault) {
        let mut places: Vec<Place> = (0..self.machines.len()).map(Place::Node).collect();
        let Some(mut a) = places.choose(&mut self.random).copied() else { return };
        places.extend((0..self.setup.coordinators).map(Place::Coordinator));
        places.extend((0..self.clients.len()).map(Place::Client));
        places.retain(|place| *place != a);
        let Some(mut b) = places.choose(&mut self.random).copied() else { return };
        // Most of all, links of the chain.
        if let Some(pair) = self.neighbours().filter(|_| self.random.random_bool(0.5)) {
            (a, b) = pair;
        } else if let Some(pair) = self.asker_and_tail().filter(|_| self.random.random_bool(0.4)) {
            (a, b) = pair;
        }
        if fault == Fault::Reset {
            self.fire(fault, Duration::ZERO);
            self.break_pipes(a, b);
            self.break_calls(a, b);
            return;
        }
        if self.random.random_bool(0.15) {
            return self.slow_tail();
        }
        self.slow(a, b);
    }

    /// What the tail says takes long to every member: others may read there what they do not know to be committed.
    fn slow_tail(&mut self) {
        let Some(view) = self.newest.clone() else { return };
        let members: Vec<Place> =
            view.members.iter().filter_map(|member| Place::of(&member.address)).collect();
        let Some((tail, others)) = members.split_last() else { return };
        for other in others {
            self.slow(*other, *tail);
        }
    }

    fn slow(&mut self, a: Place, b: Place) {
        let lasts = self.time(Duration::from_millis(100), Duration::from_secs(10));
        self.fire(Fault::SlowLink, lasts);
        let id = self.next_id();
        let by = self.time(Duration::from_millis(2), Duration::from_millis(600));
        note!(self, Place::World, "slow", "{id}: {a}-{b} by {by:?}");
        if let (Place::Node(a), Place::Node(b)) = (a, b) {
            self.nemesis.victim = if self.random.random_bool(0.5) { a } else { b };
        }
        self.network.slow(id, a, b, by);
        self.schedule(lasts, Event::Nemesis(Move::Mend(id)));
    }

    /// A member and the tail, which it asks though it is not its neighbour: a long chain's head, often.
    fn asker_and_tail(&mut self) -> Option<(Place, Place)> {
        let view = self.newest.clone()?;
        let at =
            if self.random.random_bool(0.5) { 0 } else { self.random.random_range(0..view.members.len()) };
        let asker = view.members.get(at).filter(|_| at + 2 < view.members.len())?;
        Some((Place::of(&asker.address)?, Place::of(&view.tail()?.address)?))
    }

    /// Two members that stand next to each other, or a learner and its source.
    fn neighbours(&mut self) -> Option<(Place, Place)> {
        let view = self.newest.clone()?;
        let member = |address: &str| Place::of(address);
        let mut pairs: Vec<_> = view
            .members
            .windows(2)
            .filter_map(|pair| Some((member(&pair[0].address)?, member(&pair[1].address)?)))
            .collect();
        let sources = view
            .learners
            .iter()
            .filter_map(|learner| Some((member(view.address(learner.source)?)?, member(&learner.address)?)));
        pairs.extend(sources);
        pairs.choose(&mut self.random).copied()
    }

    fn harm_disk(&mut self, fault: Fault) {
        let Some(machine) = self.any_running() else { return };
        let trouble = match fault {
            Fault::DiskError => DiskTrouble::Eio,
            Fault::FullDisk => DiskTrouble::Full,
            _ => {
                let is_slow = fault == Fault::SlowDisk;
                let lasts = self.time(Duration::from_millis(200), Duration::from_secs(10));
                let (least, most) = if is_slow { (5, 300) } else { (2_000, 15_000) };
                self.fire(fault, lasts);
                let by = self.time(Duration::from_millis(least), Duration::from_millis(most));
                self.machines[machine].disk_delay = by;
                self.schedule(lasts, Event::Nemesis(Move::FastDisk(machine)));
                return;
            }
        };
        self.fire(fault, Duration::ZERO);
        let operations = self.random.random_range(0..20);
        self.machines[machine].disk.trouble_after(operations, trouble);
    }

    /// A disk is lost: that of a node outside the chain at any time, that of a member only when nothing else is wrong.
    fn wipe(&mut self, fault: Fault) {
        let Some(view) = self.newest.clone() else { return };
        let is_in =
            |machine: &usize| self.machines[*machine].node.is_some_and(|node| view.address(node).is_some());
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            (0..self.machines.len()).filter(|machine| self.machines[*machine].is_wanted).partition(is_in);
        let machine = if fault == Fault::Wipe {
            outside.choose(&mut self.random).copied()
        } else if !self.is_calm() {
            self.nemesis.waits_for_calm = Some(self.now.after(CALM_WITHIN));
            None
        } else if view.members.iter().filter(|member| member.in_sync).count() > 1 {
            inside.choose(&mut self.random).copied()
        } else {
            None
        };
        let Some(machine) = machine else { return };
        self.fire(fault, Duration::ZERO);
        self.crash(machine, true, "its disk is lost");
        let Some(node) = self.machines[machine].node.take() else { return };
        note!(self, Place::Node(machine), "wiped", "node {node} is no more");
        self.machines[machine].disk.wipe();
        self.fact(crate::invariants::Fact::Wiped { node });
        if fault == Fault::WipeMember {
            self.nemesis.mourns = Some(node);
            // Nor may trouble begin now that was meant for later.
            self.machines.iter().for_each(|machine| machine.disk.cure());
        }
        self.restart_later(machine);
    }

    /// Nothing is wrong, and the chain is whole.
    fn is_calm(&self) -> bool {
        // What silence there was has been judged by then.
        self.nemesis.busy_until.after(self.setup.failure_timeout * 3) < self.now
            && self.coordinators[..self.setup.coordinators].iter().all(|one| one.process.is_some())
            && self.coordinators[self.setup.coordinators].process.is_none()
            && self.leader().is_some()
            && self.machines.iter().all(|machine| machine.dies_in.is_none())
            && self.is_whole()
    }

    fn come_or_go(&mut self, fault: Fault) {
        if fault == Fault::Join {
            let idle = |machine: &usize| !self.machines[*machine].is_wanted;
            let idle: Vec<usize> = (0..self.machines.len()).filter(idle).collect();
            let Some(machine) = idle.choose(&mut self.random).copied() else { return };
            self.fire(fault, Duration::ZERO);
            self.machines[machine].is_wanted = true;
            self.restart(machine);
        } else if self.running().len() > 1
            && let Some(machine) = self.any_running()
        {
            self.fire(fault, Duration::ZERO);
            self.leave(machine);
        }
    }

    fn meddle(&mut self, fault: Fault) {
        let Some(view) = self.newest.clone() else { return };
        let mut nodes: Vec<NodeId> = view.members.iter().map(|member| member.node).collect();
        // Most of all the head, for which clients wait.
        let is_head = fault == Fault::Remove && self.random.random_bool(0.4);
        let node = if is_head { nodes.first() } else { nodes.choose(&mut self.random) };
        let Some(node) = node.copied() else { return };
        let chain = ChainId::default_chain();
        match fault {
            Fault::Reorder if nodes.len() > 1 => {
                self.fire(fault, Duration::ZERO);
                let to =
                    if self.random.random_bool(0.5) { 0 } else { self.random.random_range(0..nodes.len()) };
                nodes.retain(|other| *other != node);
                nodes.insert(to, node);
                self.order(|order| Input::Reorder { order, chain, nodes });
            }
            // Not at the very end: whom it concerns is started again then, and must not be taken out after that.
            Fault::Remove
                if nodes.len() > 1 && self.now.after(SETTLING) < At(0).after(self.setup.duration) =>
            {
                self.fire(fault, Duration::ZERO);
                self.nemesis.removed.insert(node);
                self.order(|order| Input::Remove { order, chain, node, accept_data_loss: false });
            }
            Fault::Slander if nodes.len() > 1 => {
                let Some(machine) = self.any_running() else { return };
                let lasts = self.time(Duration::from_millis(300), Duration::from_secs(4));
                self.fire(fault, lasts);
                self.machines[machine].slanders = Some(node);
                self.schedule(lasts, Event::Nemesis(Move::Truth(machine)));
            }
            _ => {}
        }
    }

    fn harm_store(&mut self, fault: Fault) {
        let lasts = self.time(Duration::from_millis(500), Duration::from_secs(8));
        self.fire(fault, lasts);
        match fault {
            Fault::StoreError => {
                let which: u8 = self.random.random();
                let is_done = |bit: u8| which >> bit & 1 == 1_u8;
                let said = |bit| if is_done(bit) { Trouble::DoneUnsaid } else { Trouble::NotDone };
                let times = self.random.random_range(1..=8);
                self.storage.expect((0..times).map(said));
            }
            Fault::StoreConflict => {
                let times = self.random.random_range(1..=4);
                self.storage.expect([Trouble::Conflict; 4].into_iter().take(times));
            }
            Fault::LatePut => {
                // Often so many that the writer gives up.
                for _ in 0..*[1, 1, 100].choose(&mut self.random).expect("not empty") {
                    self.storage.expect([Trouble::Late]);
                }
                let late = self.time(Duration::from_millis(10), Duration::from_secs(20));
                self.schedule(late, Event::Nemesis(Move::Land));
            }
            Fault::StoreOutage => {
                self.storage.out(true);
                self.schedule(lasts, Event::Nemesis(Move::StoreBack));
            }
            _ => {
                self.storage.delay_max = self.time(Duration::from_secs(1), Duration::from_secs(10));
                self.schedule(lasts, Event::Nemesis(Move::FastStore));
            }
        }
    }

    /// All faults end; whoever is down starts.
    pub(super) fn heal(&mut self) {
        note!(self, Place::World, "HEAL", "all faults end");
        self.nemesis.is_over = true;
        self.network.mend_all();
        self.storage.delay_max = Duration::from_millis(20);
        self.storage.cure();
        self.crash_coordinator(self.setup.coordinators);
        for index in 0..self.setup.coordinators {
            self.coordinators[index].paused_until = None;
            self.start_coordinator(index);
        }
        for machine in 0..self.machines.len() {
            let body = &mut self.machines[machine];
            (body.is_wanted, body.paused_until, body.dies_in) = (true, None, None);
            (body.disk_delay, body.slanders) = (Duration::ZERO, None);
            body.disk.cure();
            // Whoever was told to go comes back as operators bring it back.
            if body.process.as_ref().is_some_and(|process| {
                process.heartbeat.is_leaving || self.nemesis.removed.contains(&process.node)
            }) {
                self.crash(machine, false, "to come back");
            }
            self.restart(machine);
            // A disk that hung answers now.
            self.later(machine, Duration::from_millis(20), ToNode::BatchDone);
        }
    }

    /// Every node is an in-sync member of one epoch and answers, and the head takes writes.
    pub(super) fn is_whole(&self) -> bool {
        let Some(view) = self.newest.as_deref() else { return false };
        let wanted = self.machines.iter().filter(|machine| machine.is_wanted).count();
        view.members.len() == wanted
            && view.learners.is_empty()
            && view.members.iter().all(|member| member.in_sync && self.is_well(view, member.node))
    }

    fn is_well(&self, view: &View, node: NodeId) -> bool {
        let Some(machine) = self.machine_of(node) else { return false };
        let Some(process) = &self.machines[machine].process else { return false };
        let status = process.replica.status(self.clock(machine));
        let is_head = view.head().is_some_and(|head| head.node == node);
        !process.heartbeat.is_leaving
            && status.epoch == view.epoch
            && status.active
            && status.readable
            && (status.writable || !is_head)
    }
}

fn both_ways(a: &[Place], b: &[Place]) -> Cut {
    let pairs = a.iter().flat_map(|a| b.iter().flat_map(|b| [(*a, *b), (*b, *a)]));
    pairs.collect::<BTreeSet<_>>()
}
