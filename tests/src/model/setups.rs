//! The models that are explored: [`SMALL`] ones with every test run, [`FULL`] ones by hand.
//!
//! All faults and all clients in one model would be too many states. So each model has one of the features whole, with
//! the clients that can tell; what only two of them together could break is left to random schedules.

/// A change of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// That node is left out.
    Without(usize),
    /// The same members in this order.
    Order([usize; 3]),
    /// The same members; restarted processes are named by their new incarnation.
    Renamed,
}

/// What a model consists of. Nodes are 0, 1, 2 for a, b, c, from head to tail.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its name.
    pub name: &'static str,
    /// How many writes each writer makes, one after another.
    pub writes: &'static [u8],
    /// How many reads the reader makes, one after another …
    pub reads: u8,
    /// … each at one of these.
    pub readers: &'static [usize],
    /// The coordinator may make each of these changes …
    pub changes: &'static [Change],
    /// … so many in all.
    pub changes_max: u8,
    /// Each of these may crash …
    pub crashes: &'static [usize],
    /// … so many in all.
    pub crashes_max: u8,
    /// A process that has ended may start again.
    pub restarts: bool,
    /// How many links may break.
    pub breaks: u8,
    /// How often time passes, by a lease each.
    pub ticks: u8,
    /// The leases that all hold at the beginning run out with the first step of time. The pings of these nodes arrive, which
    /// ask for new ones; those of the others are lost.
    pub pings: &'static [usize],
    /// Stores take their time; else a write is done at once.
    pub stores_lag: bool,
}

/// What is left out everywhere but where it is the point.
const QUIET: Setup = Setup {
    name: "quiet",
    writes: &[1],
    reads: 0,
    readers: &[0, 1, 2],
    changes: &[],
    changes_max: 1,
    crashes: &[],
    crashes_max: 1,
    restarts: false,
    breaks: 0,
    ticks: 0,
    pings: &[],
    stores_lag: true,
};

/// Explored with every test run.
pub const SMALL: &[Setup] = &[
    Setup { name: "writes and reads", writes: &[1, 1], reads: 1, ticks: 1, ..QUIET },
    Setup { name: "reads that follow each other", reads: 2, ticks: 1, ..QUIET },
    Setup { name: "a link breaks", reads: 1, breaks: 1, ..QUIET },
    Setup { name: "a new order", changes: &[Change::Order([1, 2, 0])], stores_lag: false, ..QUIET },
    Setup {
        name: "the head crashes, and is left out or comes back",
        crashes: &[0],
        restarts: true,
        changes: &[Change::Without(0), Change::Renamed],
        ticks: 1,
        stores_lag: false,
        ..QUIET
    },
    Setup {
        name: "the tail is left out while it pauses",
        reads: 1,
        readers: &[2],
        changes: &[Change::Without(2)],
        ticks: 1,
        stores_lag: false,
        ..QUIET
    },
];

const WITHOUT_ONE: &[Change] = &[Change::Without(0), Change::Without(1), Change::Without(2)];

/// Explored by hand; together some minutes.
pub const FULL: &[Setup] = &[
    Setup { name: "two writers, two reads, a pause", writes: &[1, 1], reads: 2, ticks: 1, ..QUIET },
    Setup { name: "a link breaks under two writers", writes: &[1, 1], reads: 1, breaks: 1, ..QUIET },
    Setup { name: "links break twice", reads: 1, breaks: 2, ..QUIET },
    Setup {
        name: "a link breaks while the order changes",
        breaks: 1,
        changes: &[Change::Order([1, 2, 0])],
        stores_lag: false,
        ..QUIET
    },
    Setup {
        name: "any node crashes, any is left out",
        crashes: &[0, 1, 2],
        changes: WITHOUT_ONE,
        ticks: 1,
        stores_lag: false,
        ..QUIET
    },
    Setup {
        name: "any node is left out while another pauses",
        reads: 1,
        changes: WITHOUT_ONE,
        ticks: 1,
        stores_lag: false,
        ..QUIET
    },
    Setup {
        name: "a writer and a reader, a crash, a change of the chain and a pause",
        reads: 1,
        crashes: &[0, 1, 2],
        changes: WITHOUT_ONE,
        ticks: 1,
        stores_lag: false,
        ..QUIET
    },
    Setup {
        name: "the head crashes with slow stores",
        crashes: &[0],
        changes: &[Change::Without(0)],
        ticks: 1,
        ..QUIET
    },
    Setup {
        name: "any node crashes and starts again with slow stores",
        crashes: &[0, 1, 2],
        restarts: true,
        changes: &[Change::Renamed],
        ticks: 1,
        ..QUIET
    },
    Setup {
        name: "two writers and a new head",
        writes: &[1, 1],
        reads: 1,
        changes: &[Change::Order([1, 2, 0])],
        stores_lag: false,
        ..QUIET
    },
    Setup {
        name: "the tail becomes the head",
        reads: 1,
        changes: &[Change::Order([2, 0, 1])],
        stores_lag: false,
        ..QUIET
    },
    Setup {
        name: "the tail renews its lease, and is left out",
        reads: 1,
        readers: &[2],
        changes: &[Change::Without(2)],
        ticks: 2,
        pings: &[2],
        stores_lag: false,
        ..QUIET
    },
    Setup {
        name: "the tail is left out while it pauses, with slow stores",
        reads: 1,
        changes: &[Change::Without(2)],
        ticks: 1,
        ..QUIET
    },
];

impl Setup {
    /// The model of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SMALL.iter().chain(FULL).find(|setup| setup.name == name)
    }
}
