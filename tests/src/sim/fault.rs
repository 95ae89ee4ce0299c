//! What can go wrong, by name, and how often it did: a run in which nothing went wrong shows nothing.

use std::{collections::BTreeMap, fmt};

use super::time::At;

macro_rules! faults {
    ($($name:ident $text:literal $doc:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $(#[doc = $doc] $name,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in tables and traces.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

faults! {
    Kill "kill" "kill -9 of a node; what it had written to the kernel survives.",
    PowerLoss "power-loss" "A machine loses power: what was not synced is lost, in part or torn, and nobody is told.",
    CrashAtStep "crash-at-step" "A node dies between two orders that its replica has given in one step.",
    CrashInRecovery "crash-in-recovery" "A node that starts again dies while it opens its store.",
    KillAll "kill-all" "All nodes die at once.",
    Pause "pause" "A node stands still, mostly for longer than a lease, and goes on.",
    PauseCoordinator "pause-coordinator" "A coordinator stands still and goes on.",
    KillCoordinator "kill-coordinator" "A coordinator dies and starts again from the log.",
    TwoCoordinators "two-coordinators" "One more coordinator works on the same log for a while.",
    Transfer "leader-transfer" "An operator has the leader give up.",
    Halves "cut-halves" "The network falls into two parts.",
    Isolate "cut-isolate-one" "One node is cut off from everybody, sometimes but for its clients.",
    OneWay "cut-one-way" "Messages from one node to another get lost, not those back.",
    Bridge "cut-bridge" "Two parts of the network have only one node in common.",
    CutCoordinator "cut-coordinator" "A node and the coordinators do not reach each other.",
    CutNonNeighbours "cut-non-neighbours" "Two members that are no neighbours do not reach each other.",
    CutClients "cut-clients" "A client does not reach a node.",
    SlowLink "slow-link" "Messages between two places take long.",
    Reset "connection-reset" "The connections between two places break.",
    SlowDisk "disk-slow" "A disk takes long for each batch.",
    HungDisk "disk-hung" "A disk does not answer for many leases.",
    DiskError "disk-eio" "A disk reports an error; the node must end.",
    FullDisk "disk-full" "A disk is full; the node must end.",
    Wipe "wiped-disk" "A node outside the chain loses its disk and comes back as a new one.",
    WipeMember "wiped-member" "A member loses its disk and comes back as a new node, while others are in sync.",
    Join "join" "A machine that was not there joins.",
    Leave "leave" "A node asks to leave, and stops.",
    Reorder "reorder" "An operator changes the order of the members.",
    Remove "remove" "An operator removes a member that is well.",
    Slander "wrong-suspicion" "A node tells that it does not reach a member that is well.",
    StoreError "log-store-error" "The coordinators' object store fails to answer, having done or not done what it was asked.",
    SlowStore "log-store-slow" "The coordinators' object store takes up to ten seconds.",
    StoreConflict "log-store-conflict" "The object store says that a record is there already, and it is not (409).",
    LatePut "log-late-put" "A record is on its way to the object store for long, and its writer is told of an error.",
    StoreOutage "log-store-outage" "The object store answers nothing at all.",
    FastClock "clock-rates" "Clocks differ by as much as the drift bound allows.",
}

/// How often something happened, and how many calls of clients were begun under it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fired {
    /// How often.
    pub times: u64,
    /// Calls of clients that were begun meanwhile.
    pub calls: u64,
}

/// All faults of a run, or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    fired: BTreeMap<Fault, Fired>,
    until: BTreeMap<Fault, At>,
}

impl Faults {
    /// A fault begins; it counts for calls until this moment.
    pub(super) fn fire(&mut self, fault: Fault, until: At) {
        self.fired.entry(fault).or_default().times += 1;
        let end = self.until.entry(fault).or_default();
        *end = until.max(*end);
    }

    /// A client calls.
    pub(super) fn call(&mut self, now: At) {
        for (fault, until) in &self.until {
            if now < *until {
                self.fired.entry(*fault).or_default().calls += 1;
            }
        }
    }

    /// What happened to each fault.
    #[must_use]
    pub fn of(&self, fault: Fault) -> Fired {
        self.fired.get(&fault).copied().unwrap_or_default()
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (fault, fired) in &other.fired {
            let sum = self.fired.entry(*fault).or_default();
            sum.times += fired.times;
            sum.calls += fired.calls;
        }
    }

    /// The faults that did not happen so often, or under which no client called.
    #[must_use]
    pub fn missing(&self, least: u64) -> Vec<Fault> {
        let is_missing = |fault: &Fault| self.of(*fault).times < least || self.of(*fault).calls == 0;
        Fault::ALL.iter().copied().filter(is_missing).collect()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>10} {:>12}", "fault", "times", "calls under it")?;
        for fault in Fault::ALL {
            let fired = self.of(*fault);
            writeln!(f, "{:<20} {:>10} {:>12}", fault.name(), fired.times, fired.calls)?;
        }
        Ok(())
    }
}
