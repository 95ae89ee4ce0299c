//! How long does the protocol itself take, without disk and network?
//!
//! `cargo bench -p craq-node --bench replica`. Replicas are stepped by hand: what one orders is carried out at once.
#![allow(missing_docs, reason = "made by a macro of criterion")]

use std::{collections::VecDeque, hint::black_box, time::Duration};

use craq_node::{
    replica::{
        Loader, Look, Replica,
        event::{Change, Condition, Config, Input, LinkId, Output, Reply, Ticket, Write},
    },
    store::Meta,
};
use craq_proto::{
    ChainId, ClientId, Epoch, Incarnation, Key, Member, NodeId, RequestId, Seq, Time, Value, View, entry,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

const VALUE_BYTES: usize = 500;
/// Virtual time between two inputs.
const TICK: Duration = Duration::from_micros(1);

/// A chain of replicas; links, disks and promises take no time.
struct Chain {
    replicas: Vec<Replica>,
    /// Each open link: opener and acceptor, with the name that each has for it.
    links: Vec<[(usize, LinkId); 2]>,
    inputs: VecDeque<(usize, Input)>,
    outputs: Vec<Output>,
    pinging: usize,
    now: Time,
    writes: u64,
    answered: u64,
}

fn node(place: usize) -> NodeId {
    NodeId(Uuid::from_u128(place as u128 + 1))
}

impl Chain {
    fn new(members: usize) -> Self {
        let now = Time(Duration::from_secs(1));
        let replica =
            |place| Loader::new(Config::default(), node(place), Incarnation(1), Meta::default()).finish(now);
        let mut chain = Self {
            replicas: (0..members).map(replica).collect(),
            links: Vec::new(),
            inputs: VecDeque::new(),
            outputs: Vec::new(),
            pinging: 0,
            now,
            writes: 0,
            answered: 0,
        };
        let member = |place| Member {
            node: node(place),
            incarnation: Incarnation(1),
            in_sync: true,
            address: format!("n{place}:1"),
        };
        let view = View {
            chain: ChainId::default_chain(),
            epoch: Epoch(1),
            members: (0..members).map(member).collect(),
            learners: vec![],
            reason: "founded".to_owned(),
            rebuilt_in: Epoch::ZERO,
            expelled: Vec::new(),
        };
        for place in 0..members {
            chain.inputs.push_back((place, Input::View(view.clone())));
        }
        chain.run();
        chain.pass(Duration::from_secs(1));
        let status = chain.replicas[0].status(chain.now);
        assert!(status.writable && status.readable, "the chain is up: {status:?}");
        chain
    }

    /// Lets this time pass, with all that is due in it.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = |place: usize| Some((self.replicas[place].next_deadline()?, place));
            let next = (0..self.replicas.len()).filter_map(due).min();
            let Some((due, place)) = next.filter(|(due, _)| *due <= end) else { break };
            self.now = self.now.max(due);
            self.inputs.push_back((place, Input::DeadlinePassed));
            self.run();
            self.now = self.now + TICK;
        }
        self.now = self.now.max(end);
    }

    /// Carries out what is ordered, until nothing more is.
    fn run(&mut self) {
        while let Some((place, input)) = self.inputs.pop_front() {
            let mut outputs = std::mem::take(&mut self.outputs);
            self.replicas[place].step(self.now, input, &mut outputs);
            outputs.drain(..).for_each(|output| self.carry_out(place, output));
            self.outputs = outputs;
        }
    }

    fn carry_out(&mut self, place: usize, output: Output) {
        let place_of =
            |id: NodeId| (0..self.replicas.len()).find(|place| node(*place) == id).expect("a member");
        match output {
            Output::Persist { id, .. } => self.inputs.push_back((place, Input::Persisted { id })),
            Output::OpenLink { link, to, kind, epoch, .. } => {
                let to = place_of(to);
                let accepted = LinkId(2 * self.links.len() as u64 + 1);
                self.links.push([(place, link), (to, accepted)]);
                let (from, incarnation) = (node(place), Incarnation(1));
                self.inputs
                    .push_back((to, Input::LinkOffered { link: accepted, from, incarnation, epoch, kind }));
            }
            Output::Send { link, epoch, message } => {
                let ends =
                    self.links.iter().find(|ends| ends.contains(&(place, link))).expect("an open link");
                let (to, link) = if ends[0] == (place, link) { ends[1] } else { ends[0] };
                self.inputs.push_back((to, Input::Received { link, epoch, message }));
            }
            Output::Ping { to, epoch } => {
                for (to, _) in to {
                    let to = place_of(to);
                    self.inputs.push_back((
                        to,
                        Input::Pinged { ticket: Ticket(u64::MAX), from: node(place), epoch },
                    ));
                }
                self.pinging = place;
            }
            Output::Promise { .. } => {
                let (by, sent) = (node(place), self.now);
                for other in (0..self.replicas.len()).filter(|other| *other != place) {
                    self.inputs.push_back((other, Input::Promised { by, epoch: Epoch(1), sent }));
                }
            }
            Output::Reply { reply: Reply::Applied { .. }, .. } => self.answered += 1,
            Output::Report => {}
            other => panic!("the chain is at rest, and a replica orders {other:?}"),
        }
    }

    /// Writes one key at the head, and carries the write through the whole chain.
    fn write(&mut self, key: &Key, value: &Value) {
        self.now = self.now + TICK;
        self.writes += 1;
        let client = ClientId(Uuid::from_u128(7));
        let number = self.writes;
        let request = RequestId { client, number, floor: number - 1, born: Seq(number), retry: false };
        let checksum = entry::checksum(key.as_bytes(), value.as_bytes());
        let change =
            Change { key: key.clone(), value: Some(value.clone()), condition: Condition::Always, checksum };
        let write = Write { request, changes: vec![change] };
        self.inputs.push_back((0, Input::Write { ticket: Ticket(number), write }));
        self.run();
        assert_eq!(self.answered, self.writes, "every write is answered");
        if self.writes.is_multiple_of(1024) {
            self.pass(Duration::from_millis(10));
        }
    }
}

fn keys(count: u32) -> Vec<Key> {
    (0..count).map(|n| Key::new(format!("key-{n:012}").into_bytes()).expect("a legal key")).collect()
}

fn writes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replica");
    group.throughput(Throughput::Elements(1));
    let value = Value::new(vec![7; VALUE_BYTES], VALUE_BYTES).expect("a legal value");
    for (name, members) in [("write at a chain of one", 1), ("write through a chain of three", 3)] {
        let (mut chain, keys) = (Chain::new(members), keys(1000));
        let mut turn = keys.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| chain.write(turn.next().expect("endless"), &value));
        });
    }
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replica");
    group.throughput(Throughput::Elements(1));
    let value = Value::new(vec![7; VALUE_BYTES], VALUE_BYTES).expect("a legal value");
    let (mut chain, keys) = (Chain::new(3), keys(1000));
    keys.iter().for_each(|key| chain.write(key, &value));
    let (now, reader) = (chain.now, chain.replicas[1].reader());
    let mut turn = keys.iter().cycle();
    group.bench_function("plan of a clean read in the middle", |bencher| {
        bencher.iter(|| {
            let look = reader.strong(now, turn.next().expect("endless").as_bytes());
            assert!(matches!(look, Look::Serve { position: Some(_), at_tail: false, .. }), "{look:?}");
            black_box(look)
        });
    });
    group.finish();
}

criterion_group!(benches, writes, reads);
criterion_main!(benches);
