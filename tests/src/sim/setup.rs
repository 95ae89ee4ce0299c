//! What a seed draws: how large the cluster is, its times and limits, what its clients do, and which faults happen how
//! often. No seed has all of them: faults that are left out give the others room (swarm testing).

use std::{collections::BTreeSet, time::Duration};

use craq_node::replica::Config;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{disk::DiskKind, fault::Fault};

/// A run, before it begins.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Everything follows from it.
    pub seed: u64,
    /// Machines with nodes.
    pub machines: usize,
    /// How many of them run at the beginning.
    pub started: usize,
    /// Clients.
    pub clients: usize,
    /// Keys.
    pub keys: usize,
    /// The mean time between two calls of a client.
    pub think: Duration,
    /// How long a client's call may take.
    pub patience: Duration,
    /// Which part of the reads asks one node alone, whatever the views say.
    pub fixed_reads: f64,
    /// Which part of the writes deletes.
    pub deletions: f64,
    /// Times and limits of the replicas.
    pub replica: Config,
    /// A silent node is lost after this time.
    pub failure_timeout: Duration,
    /// Coordinators that run all the time.
    pub coordinators: usize,
    /// A leader that nothing was seen of for so long is replaced.
    pub leader_lease: Duration,
    /// What the disks are.
    pub disk: DiskKind,
    /// The least and greatest time of a batch on a disk, in microseconds.
    pub disk_micros: (u64, u64),
    /// The least and greatest delay of a message, in microseconds.
    pub delay_micros: (u64, u64),
    /// Which part of the messages takes much longer.
    pub stragglers: f64,
    /// Clocks err by up to this.
    pub clock_error_ppm: i64,
    /// This machine's clock is the slowest that there may be, and all others are the fastest.
    pub slowest: Option<usize>,
    /// Tombstones are collected soon, so that versions of a key may begin again.
    pub collects_tombstones: bool,
    /// Which part of the processes wants another place in the chain than its tail.
    pub placed: f64,
    /// What may happen.
    pub faults: BTreeSet<Fault>,
    /// The mean time between two faults.
    pub fault_interval: Duration,
    /// How long faults happen.
    pub duration: Duration,
}

/// How long the cluster may take to become whole when all faults have ended.
pub const HEALING_MAX: Duration = Duration::from_secs(60);

impl Setup {
    /// What this seed means. The run lasts so long, and then heals.
    #[must_use]
    pub fn draw(seed: u64, duration: Duration) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let r = &mut random;
        let machines = *[1, 2, 3, 3, 3, 3, 4, 4, 5].choose(r).expect("not empty");
        let started = if machines > 2 && r.random_bool(0.3) { machines - 1 } else { machines };
        let collects_tombstones = r.random_bool(0.3);
        let mut replica = replica(r, collects_tombstones);
        let faults = faults(r);
        let mut failure_timeout = millis(r, 300, 1_500);
        let mut slowest = None;
        if faults.contains(&Fault::FastClock) && r.random_bool(0.5) {
            // The further clocks drift apart while a lease lasts, the more shows what does not reckon with it.
            replica.clock_error_ppm = 50_000;
            replica.lease = millis(r, 1_000, 1_500);
            replica.ping_interval = replica.lease.mul_f64(r.random_range(0.15..0.33));
            failure_timeout = millis(r, 300, 600);
            slowest = Some(r.random_range(0..machines));
        }
        let clock_error_ppm = if faults.contains(&Fault::FastClock) {
            i64::from(replica.clock_error_ppm)
        } else {
            r.random_range(0..=100)
        };
        let mut setup = Self {
            seed,
            machines,
            started,
            clients: r.random_range(2..=8),
            keys: if r.random_bool(0.4) { 2 } else { r.random_range(2..=8) },
            think: if r.random_bool(0.5) { millis(r, 4, 200) } else { millis(r, 100, 3_000) },
            patience: millis(r, 120, 5_000),
            fixed_reads: if r.random_bool(0.5) { r.random_range(0.0..0.9) } else { 0.0 },
            deletions: if collects_tombstones { r.random_range(0.1..0.5) } else { r.random_range(0.0..0.3) },
            failure_timeout,
            coordinators: *[1, 1, 2, 3, 3].choose(r).expect("not empty"),
            leader_lease: millis(r, 300, 2_000),
            disk: if r.random_bool(0.1) { DiskKind::Redb } else { DiskKind::Model },
            disk_micros: span(r, 50, 3_000),
            delay_micros: span(r, 20, 3_000),
            stragglers: if r.random_bool(0.5) { r.random_range(0.0..0.05) } else { 0.0 },
            clock_error_ppm,
            slowest,
            collects_tombstones,
            placed: if r.random_bool(0.4) { r.random_range(0.1..0.8) } else { 0.0 },
            faults,
            fault_interval: millis(r, 200, 4_000),
            duration,
            replica,
        };
        match r.random_range(0..10) {
            0..6 if setup.slowest.is_some() => setup.ask_who_is_left_out(r),
            0..2 => setup.leave_out_early(r),
            2..6 if setup.collects_tombstones => setup.walk_slowly(r),
            _ => {}
        }
        setup
    }

    /// A cluster with the shipped times in which nothing goes wrong by itself: three coordinators, three nodes and a machine
    /// that does not run yet, and two clients that call about once a second. A seed still draws how long messages and
    /// disks take.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self {
            machines: 4,
            started: 3,
            clients: 2,
            keys: 8,
            think: Duration::from_secs(2),
            patience: Duration::from_secs(5),
            fixed_reads: 0.0,
            deletions: 0.1,
            replica: Config::default(),
            failure_timeout: Duration::from_secs(1),
            coordinators: 3,
            leader_lease: Duration::from_secs(2),
            disk: DiskKind::Model,
            stragglers: 0.0,
            clock_error_ppm: 100,
            slowest: None,
            collects_tombstones: false,
            placed: 0.0,
            faults: BTreeSet::new(),
            ..Self::draw(seed, Duration::ZERO)
        }
    }

    /// A member is left out long before its lease ends: shows who does not wait for that.
    fn leave_out_early(&mut self, r: &mut StdRng) {
        self.machines = r.random_range(2..=3);
        self.started = self.machines;
        self.replica.lease = millis(r, 1_000, 1_500);
        self.replica.ping_interval = self.replica.lease.mul_f64(r.random_range(0.15..0.33));
        self.failure_timeout = millis(r, 300, 500);
        self.ask_who_is_left_out(r);
    }

    /// Who is left out is asked on, and what it is asked for is written elsewhere.
    fn ask_who_is_left_out(&mut self, r: &mut StdRng) {
        self.fixed_reads = r.random_range(0.5..0.9);
        self.think = millis(r, 4, 50);
        self.keys = 2;
        self.faults.extend([Fault::Kill, Fault::Isolate]);
    }

    /// Many keys are deleted while a member that comes back soon is brought up slowly: shows what it then lacks.
    fn walk_slowly(&mut self, r: &mut StdRng) {
        self.keys = r.random_range(8..=60);
        self.deletions = r.random_range(0.3..0.5);
        self.think = millis(r, 4, 50);
        self.replica.tombstone_entries = r.random_range(3..30);
        self.replica.sweep_rows = r.random_range(1..4);
        self.replica.transfer_bytes = r.random_range(1..200);
        self.replica.transfer_window = 1;
        self.faults.extend([Fault::Kill, Fault::SlowLink]);
    }

    /// How often a node tells the coordinator that it lives.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        self.failure_timeout / 5
    }
}

fn millis(random: &mut StdRng, least: u64, most: u64) -> Duration {
    // Small values as likely as large ones: by their logarithm.
    let (low, high) = ((least as f64).ln(), (most as f64).ln());
    Duration::from_secs_f64(random.random_range(low..=high).exp() / 1_000.0)
}

fn span(random: &mut StdRng, least: u64, most: u64) -> (u64, u64) {
    let (low, high) = ((least as f64).ln(), (most as f64).ln());
    let mut draw = || random.random_range(low..=high).exp() as u64;
    let (a, b) = (draw(), draw());
    (a.min(b), a.max(b))
}

/// Each client has one outcome at least, so that the smallest limits forget all the time.
fn outcomes_max(random: &mut StdRng) -> Option<usize> {
    match random.random_range(0..10) {
        0..2 => Some(random.random_range(1..8)),
        2..4 => Some(random.random_range(8..200)),
        _ => None,
    }
}

fn replica(random: &mut StdRng, collects_tombstones: bool) -> Config {
    let r = random;
    let lease = millis(r, 120, 1_500);
    let roomy = Config::default();
    let small = r.random_bool(0.3);
    Config {
        lease,
        ping_interval: lease.mul_f64(r.random_range(0.15..0.33)),
        clock_error_ppm: *[1_000, 10_000, 50_000].choose(r).expect("not empty"),
        dirty_entries_max: if small { r.random_range(4..40) } else { roomy.dirty_entries_max },
        dirty_bytes_max: if small { r.random_range(400..4_000) } else { roomy.dirty_bytes_max },
        outcomes_max: outcomes_max(r).unwrap_or(roomy.outcomes_max),
        client_outcomes_max: if small { r.random_range(2..20) } else { roomy.client_outcomes_max },
        waiting_reads_max: if small { r.random_range(1..5) } else { roomy.waiting_reads_max },
        question_interval: if r.random_bool(0.5) { Duration::ZERO } else { millis(r, 1, 20) },
        question_reads: 3,
        tombstone_entries: if collects_tombstones { r.random_range(0..60) } else { 1_000_000 },
        sweep_rows: r.random_range(1..64),
        sweep_interval: millis(r, 20, 1_000),
        transfer_bytes: r.random_range(100..20_000),
        transfer_window: r.random_range(1..=4),
    }
}

fn faults(random: &mut StdRng) -> BTreeSet<Fault> {
    // Some runs have none at all: a healthy cluster must be right too.
    if random.random_bool(0.03) {
        return BTreeSet::new();
    }
    let density = random.random_range(0.15..0.7);
    Fault::ALL.iter().copied().filter(|_| random.random_bool(density)).collect()
}
