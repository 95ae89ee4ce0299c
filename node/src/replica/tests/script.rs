//! Golden scripts: `scripts/*`, one scenario a file, its question in the first line.
//!
//! A line that begins with `> ` is a command; what follows it is what the replicas then ordered, said and answered.
//! `UPDATE_SCRIPTS=1 cargo test` writes what came out into the files. Commands:
//!
//! - `start a b c`: starts these nodes' processes, on what their disks have.
//! - `view 2 a b? c +d<c [rebuilt=2] [to a b]`: epoch 2 of members a, b (not in sync) and c, with learner d brought up by c; told to
//!   all who take part, or to those named.
//! - `write a k=v [if=N] [id=client:number[:floor]] [born=N] [retry]`, `delete a k`, `read a k`, `page a`, `peek a k` (weak).
//! - `settle`: everything happens that can without time going on. `deliver a b`: one parcel from a to b. `calls`: all calls
//!   arrive. `persist a`: a's oldest write is done.
//! - `time 100`: so many milliseconds pass, and timers run. `cut a b`, `heal`: nothing arrives between the two; all does.
//! - `break a b`: their links break. `crash a`. `forget a 1`: a's disk loses all after sequence 1.
//! - `permit a`: a read is planned at a. `holds a`: whether it may be answered now.
//! - `walk a`: the piece of the log that a has ordered is read.
//! - `tombstones 0`: so many entries are tombstones kept for; `pieces 1`: so many bytes of the log are read at a time; before any
//!   start. `status`: what each replica tells of itself. `quiet`/`loud`: whether orders are shown.

use std::{fmt::Write as _, fs, path::PathBuf};

use craq_proto::{
    ChainId, ClientId, Epoch, Key, Learner, Member, NodeId, RequestId, Seq, Value, Version, View,
    entry::checksum,
};
use uuid::Uuid;

use super::world::{Event, World, name, node_id};
use crate::replica::{
    Config, Look, Permit, Reader,
    event::{Change, Condition, Input, Message, Output, Position, Reply, StoreWrite, Write},
};

#[test]
fn scripts_do_what_they_say() {
    let mut wrong = String::new();
    for file in files() {
        let expected = fs::read_to_string(&file).unwrap();
        assert!(expected.starts_with("# "), "{} does not begin with its question", file.display());
        let actual = Runner::new().run(&expected);
        if actual != expected && std::env::var_os("UPDATE_SCRIPTS").is_some() {
            fs::write(&file, &actual).unwrap();
        } else if actual != expected {
            let line = expected.lines().zip(actual.lines()).position(|(a, b)| a != b).unwrap_or_default();
            write!(wrong, "\n{} differs from line {}; what came out:\n{actual}", file.display(), line + 1)
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn files() -> Vec<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/replica/tests/scripts");
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no scripts in {}", directory.display());
    files
}

/// The first script that something planted changes, if any does.
#[cfg(feature = "planted")]
pub(super) fn first_changed() -> Option<String> {
    let is_changed = |file: &PathBuf| {
        let expected = fs::read_to_string(file).unwrap();
        let actual = std::panic::catch_unwind(|| Runner::new().run(&expected));
        actual.ok().as_ref() != Some(&expected)
    };
    let changed = files().into_iter().find(is_changed)?;
    Some(changed.file_name().unwrap().to_string_lossy().into_owned())
}

struct Runner {
    world: World,
    names: std::collections::BTreeMap<u64, String>,
    loud: bool,
    permit: Option<Permit>,
}

impl Runner {
    fn new() -> Self {
        let config = Config {
            sweep_rows: 2,
            tombstone_entries: 4,
            outcomes_max: 4,
            client_outcomes_max: 3,
            dirty_entries_max: 4,
            ..Config::default()
        };
        Self { world: World::new(config), names: std::collections::BTreeMap::new(), loud: true, permit: None }
    }

    fn run(&mut self, script: &str) -> String {
        let mut out = String::new();
        for line in script.lines() {
            if line.starts_with('#') || line.is_empty() {
                out.push_str(line);
                out.push('\n');
            } else if let Some(command) = line.strip_prefix("> ") {
                writeln!(out, "{line}").unwrap();
                self.command(command);
                for line in self.world.trace.drain(..) {
                    if self.loud || line.starts_with("  ") {
                        writeln!(out, "{line}").unwrap();
                    }
                }
            }
        }
        out
    }

    fn say(&mut self, line: String) {
        self.world.trace.push(format!("  {line}"));
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let nodes = |from: usize| words[from..].iter().map(|word| node(word)).collect::<Vec<_>>();
        match words[0] {
            "start" => nodes(1).into_iter().for_each(|node| self.world.start(node)),
            "crash" => self.world.crash(node(words[1])),
            "view" => self.view(&words[1..]),
            "write" | "delete" => self.write(&words),
            "read" | "page" | "peek" => self.read(&words),
            "settle" => self.world.settle(),
            "calls" => self.calls(),
            "persist" => self.world.run(Event::Persisted(node(words[1]))),
            "walk" => self.walk(node(words[1])),
            "deliver" => self.deliver(node(words[1]), node(words[2])),
            "time" => self.time(words[1].parse().unwrap()),
            "cut" => {
                let (a, b) = (node(words[1]), node(words[2]));
                self.world.cut.extend([(a, b), (b, a)]);
            }
            "heal" => self.world.cut.clear(),
            "break" => {
                let pair = [node(words[1]), node(words[2])];
                let between = |a, b| pair.contains(&a) && pair.contains(&b);
                let wires = self.world.wires.iter();
                let broken: Vec<_> = wires
                    .filter(|(_, wire)| between(wire.opener.0, wire.acceptor.0))
                    .map(|(id, _)| *id)
                    .collect();
                broken.into_iter().for_each(|id| self.world.break_wire(id));
            }
            "status" => self.status(),
            "permit" => self.permit = self.reader(words[1]).permit(self.world.now).ok(),
            "holds" => {
                let holds =
                    self.permit.is_some_and(|permit| self.reader(words[1]).holds(self.world.now, permit));
                self.say(format!(
                    "{}: what was planned {} be answered",
                    words[1],
                    if holds { "may" } else { "may not" }
                ));
            }
            "forget" => {
                let disk = &mut self.world.nodes.get_mut(&node(words[1])).unwrap().disk;
                disk.lose_all_after(Seq(words[2].parse().unwrap()));
            }
            // Before any process starts.
            "tombstones" => self.world.config.tombstone_entries = words[1].parse().unwrap(),
            "pieces" => self.world.config.transfer_bytes = words[1].parse().unwrap(),
            "quiet" => self.loud = false,
            "loud" => self.loud = true,
            other => panic!("no command {other:?}"),
        }
        self.answers();
    }

    fn answers(&mut self) {
        while let Some(answered) = self.world.answers.pop_front() {
            let what = self.names.get(&answered.ticket.0).cloned().unwrap_or_default();
            let may_read =
                self.world.replica(answered.by).is_some_and(|r| r.reader().permit(self.world.now).is_ok());
            let lapsed = answered.under_lease && !may_read;
            let lapsed = if lapsed { " (withheld: no lease)" } else { "" };
            self.say(format!("{}: {what}: {}{lapsed}", name(answered.by), describe_reply(&answered.reply)));
        }
        for (node, reason) in std::mem::take(&mut self.world.halted) {
            self.say(format!("{} HALTS: {reason}", name(node)));
        }
    }

    fn view(&mut self, words: &[&str]) {
        let (who, told) = words.split_at(words.iter().position(|word| *word == "to").unwrap_or(words.len()));
        let incarnation = |world: &World, node: NodeId| world.nodes[&node].incarnation;
        let (mut members, mut learners) = (Vec::new(), Vec::new());
        let rebuilt_in = who.iter().find_map(|word| word.strip_prefix("rebuilt="));
        let rebuilt_in = Epoch(rebuilt_in.map_or(0, |epoch| epoch.parse().unwrap()));
        for word in who[1..].iter().filter(|word| !word.starts_with("rebuilt=")) {
            let id = node(word.trim_start_matches('+'));
            let (incarnation, address) = (incarnation(&self.world, id), name(id).to_string());
            match word.split_once('<') {
                Some((_, source)) => {
                    learners.push(Learner { node: id, incarnation, source: node(source), address })
                }
                None => {
                    members.push(Member { node: id, incarnation, in_sync: !word.ends_with('?'), address })
                }
            }
        }
        let to: Vec<NodeId> = match told {
            [] => members.iter().map(|m| m.node).chain(learners.iter().map(|l| l.node)).collect(),
            _ => told[1..].iter().map(|word| node(word)).collect(),
        };
        let (chain, epoch) = (ChainId::default_chain(), Epoch(who[0].parse().unwrap()));
        let view =
            View { chain, epoch, members, learners, reason: String::new(), rebuilt_in, expelled: Vec::new() };
        self.world.newest = Some(view.clone());
        to.into_iter().for_each(|node| self.world.input(node, Input::View(view.clone())));
    }

    fn write(&mut self, words: &[&str]) {
        let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let (key, value) =
            words[2].split_once('=').map_or((words[2], None), |(key, value)| (key, Some(value)));
        let condition = match option("if") {
            Some(version) => Condition::Version(Version(version.parse().unwrap())),
            None if words[0] == "delete" => Condition::Exists,
            None => Condition::Always,
        };
        let ticket = self.world.ticket();
        let id: Vec<u64> = option("id")
            .map_or(vec![100 + ticket.0, 1], |id| id.split(':').map(|n| n.parse().unwrap()).collect());
        let request = RequestId {
            client: ClientId(Uuid::from_u128(u128::from(id[0]))),
            number: id[1],
            floor: id.get(2).copied().unwrap_or(0),
            born: Seq(option("born").map_or(0, |born| born.parse().unwrap())),
            retry: words.contains(&"retry"),
        };
        let change = Change {
            key: Key::new(key.to_owned()).unwrap(),
            value: value.map(|value| Value::new(value.to_owned(), 1000).unwrap()),
            condition,
            checksum: checksum(key.as_bytes(), value.unwrap_or_default().as_bytes()),
        };
        self.names.insert(ticket.0, format!("{} {}", words[0], words[2]));
        let write = Write { request, changes: vec![change] };
        self.world.input(node(words[1]), Input::Write { ticket, write });
    }

    fn read(&mut self, words: &[&str]) {
        let at = node(words[1]);
        let ticket = self.world.ticket();
        self.names
            .insert(ticket.0, words[..1].iter().chain(&words[2..]).copied().collect::<Vec<_>>().join(" "));
        if words[0] == "page" {
            return self.world.input(at, Input::ReadPage { ticket });
        }
        let Some(replica) = self.world.replica(at) else { return };
        let (reader, now) = (replica.reader(), self.world.now);
        let look = match words[0] {
            "peek" => {
                let bound = words.get(3).map(|ms| std::time::Duration::from_millis(ms.parse().unwrap()));
                reader.weak(now, words[2].as_bytes(), bound, Seq::ZERO)
            }
            _ => reader.strong(now, words[2].as_bytes()),
        };
        match look {
            Look::Serve { position, at_tail, .. } => {
                let at_tail = if at_tail { ", dirty at the tail" } else { "" };
                self.say(format!("{}: {} is {}{at_tail}", words[1], words[2], describe_position(position)));
            }
            Look::Refused(error) => self.say(format!("{}: refused: {error}", words[1])),
            Look::Dirty => {
                self.say(format!("{}: {} is dirty", words[1], words[2]));
                let key = Key::new(words[2].to_owned()).unwrap();
                self.world.input(at, Input::Read { ticket, key });
            }
        }
    }

    fn calls(&mut self) {
        while let Some(event) = self.world.events().into_iter().find(|event| matches!(event, Event::Call(_)))
        {
            self.world.run(event);
        }
    }

    fn reader(&self, name: &str) -> Reader {
        self.world.replica(node(name)).expect("the node runs").reader()
    }

    fn walk(&mut self, source: NodeId) {
        match self.world.log_read(source) {
            Some(event) => self.world.run(event),
            None => self.say(format!("{} reads nothing", name(source))),
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId) {
        let found = self.world.wires.iter().find_map(|(id, wire)| {
            if (wire.opener.0, wire.acceptor.0) == (from, to) && !wire.down.is_empty() {
                return Some(Event::Down(*id));
            }
            let is_up = (wire.acceptor.0, wire.opener.0) == (from, to) && !wire.up.is_empty();
            is_up.then_some(Event::Up(*id))
        });
        match found {
            Some(event) => self.world.run(event),
            None => self.say(format!("nothing is on its way from {} to {}", name(from), name(to))),
        }
    }

    /// In steps, so that timers run about when they are due.
    fn time(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(10) {
            self.world.now = self.world.now + std::time::Duration::from_millis(10);
            while let Some(event) =
                self.world.events().into_iter().find(|event| matches!(event, Event::Deadline(_)))
            {
                self.world.run(event);
            }
            self.calls();
        }
    }

    fn status(&mut self) {
        let now = self.world.now;
        let line = |(id, sim): (&NodeId, &super::world::SimNode)| {
            let Some(status) = sim.replica.as_ref().map(|replica| replica.status(now)) else {
                return format!("{} is down", name(*id));
            };
            let flag = |is, name| if is { format!(" {name}") } else { String::new() };
            format!(
                "{} {} epoch={} commit={} durable={} last={} keys={} rows={}{}{}{}{}",
                name(*id),
                status.role,
                status.epoch,
                status.commit,
                status.durable,
                status.last,
                status.keys,
                sim.disk.rows.len(),
                flag(status.active, "active"),
                flag(status.caught_up, "caught-up"),
                flag(status.readable, "readable"),
                flag(status.writable, "writable"),
            )
        };
        let lines: Vec<_> = self.world.nodes.iter().map(line).collect();
        lines.into_iter().for_each(|line| self.say(line));
    }
}

fn node(word: &str) -> NodeId {
    node_id(word.chars().next().expect("a node has a name"))
}

/// An order as scripts show it; pings and promises are left out, they are too many.
pub(super) fn describe(node: NodeId, output: &Output) -> Option<String> {
    let node = name(node);
    Some(match output {
        Output::Persist { write, .. } => format!("{node} persist{}", describe_write(write)),
        Output::OpenLink { to, kind, .. } => format!("{node} -> {} open {kind:?}", name(*to)),
        Output::Send { message, .. } => format!("{node} send {}", describe_message(message)),
        Output::CloseLink { .. } => format!("{node} close"),
        Output::ReadLog { after, up_to, .. } => format!("{node} read log {after}..{up_to}"),
        Output::AskTail { tail, keys, .. } => {
            format!("{node} -> {} which versions of {keys:?}?", name(tail.0))
        }
        Output::Release { epoch, .. } => format!("{node} release epoch={epoch}"),
        Output::FetchView => format!("{node} fetch view"),
        Output::Ping { .. }
        | Output::Promise { .. }
        | Output::Report
        | Output::Reply { .. }
        | Output::Halt { .. } => return None,
    })
}

fn describe_write(write: &StoreWrite) -> String {
    let mut text = String::new();
    let mut part = |is: bool, what: String| {
        if is {
            text.push(' ');
            text.push_str(&what);
        }
    };
    part(write.wipe, "wipe".into());
    part(
        !write.remove_rows.is_empty(),
        format!("remove={:?}", write.remove_rows.iter().map(|row| row.0).collect::<Vec<_>>()),
    );
    write.entries.iter().for_each(|entry| part(true, describe_entry(entry)));
    part(
        !write.rows.is_empty(),
        format!("rows={:?}", write.rows.iter().map(|row| row.seq).collect::<Vec<_>>()),
    );
    part(write.commit.is_some(), format!("commit={}", write.commit.unwrap_or_default()));
    part(write.gc_floor > Some(Seq::ZERO), format!("gc_floor={}", write.gc_floor.unwrap_or_default()));
    part(
        write.forgotten_through.is_some(),
        format!("forgotten={}", write.forgotten_through.unwrap_or_default()),
    );
    part(
        !write.keep_outcomes.is_empty(),
        format!("keep={:?}", write.keep_outcomes.iter().map(|o| o.seq).collect::<Vec<_>>()),
    );
    part(!write.drop_outcomes.is_empty(), format!("drop={:?}", write.drop_outcomes));
    if let Some(stored) = &write.view {
        let bound: String = stored.bound.iter().map(|node| name(*node)).collect();
        part(true, format!("view={} bound=[{bound}]", stored.view.epoch));
    }
    text
}

fn describe_entry(entry: &craq_proto::Entry) -> String {
    let mutation = |mutation: &craq_proto::Mutation| format!("{:?}@{}", mutation.key, mutation.version);
    let what = match (entry.mutations.as_slice(), entry.forget_through) {
        ([], Seq::ZERO) => "first".to_owned(),
        ([], through) => format!("forget..{through}"),
        (mutations, _) => mutations.iter().map(mutation).collect::<Vec<_>>().join(","),
    };
    format!("{}/e{}:{what}", entry.seq, entry.origin_epoch)
}

fn describe_message(message: &Message) -> String {
    match message {
        Message::Hello { commit, last, suffix } => {
            let run = |run: &crate::replica::event::Run| {
                format!("{}-{}/e{}", run.first, run.last, run.origin_epoch)
            };
            let suffix: Vec<_> = suffix.iter().map(run).collect();
            format!("hello commit={commit} last={last} suffix=[{}]", suffix.join(" "))
        }
        Message::Level { commit, truncate_to } => format!("level commit={commit} truncate_to={truncate_to}"),
        Message::Rows { rows, through, from_nothing, gc_floor } => {
            let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
            let from_nothing = if *from_nothing { " from nothing" } else { "" };
            let floor = if *gc_floor > Seq::ZERO { format!(" gc_floor={gc_floor}") } else { String::new() };
            format!("rows {seqs:?} through={through}{from_nothing}{floor}")
        }
        Message::RowsAck { through } => format!("rows-ack through={through}"),
        Message::CaughtUp { through, outcomes, .. } => {
            format!("caught-up through={through} outcomes={}", outcomes.len())
        }
        Message::Append { entries, durable, commit } => {
            let entries: Vec<_> = entries.iter().map(|entry| describe_entry(entry)).collect();
            format!("append [{}] durable={durable} commit={commit}", entries.join(" "))
        }
        Message::Ack { commit } => format!("ack commit={commit}"),
    }
}

/// A view as scripts write it.
pub(super) fn describe_view(view: &View) -> String {
    let member = |m: &Member| format!("{}{}", name(m.node), if m.in_sync { "" } else { "?" });
    let learner = |l: &Learner| format!("+{}<{}", name(l.node), name(l.source));
    let who: Vec<_> = view.members.iter().map(member).chain(view.learners.iter().map(learner)).collect();
    format!("{} {}", view.epoch, who.join(" "))
}

fn describe_position(position: Option<Position>) -> String {
    match position {
        None => "absent".to_owned(),
        Some(Position { seq, version, deleted: true, .. }) => format!("deleted @{version} seq={seq}"),
        Some(Position { seq, version, .. }) => format!("@{version} seq={seq}"),
    }
}

fn describe_reply(reply: &Reply) -> String {
    match reply {
        Reply::Applied { seq, versions } => format!("applied @{} seq={seq}", versions[0]),
        Reply::Serve { position, .. } => describe_position(*position),
        Reply::ServePage => "read the page now".to_owned(),
        Reply::Refused(error) => format!("{:?}: {error}", error.kind),
    }
}
