//! Runs one script against one cluster.
//!
//! Time stands still between commands; `wait` moves it. Nodes are called n1, n2 and so on. What the cluster orders is
//! done at once (views are persisted, deadlines ticked), unless `hold` was said.
//!
//! ```text
//! register N [inc=I] [port=P] [at=HOST] [after=N|first] [epoch=E] [active]   opens a stream
//! beat N [active] [caught-up] [epoch=E] [suspects=N,N] [refused=N] heartbeat; the epoch is the newest one if not given
//! wait MS [N.. | all]         time passes; these nodes repeat their last heartbeat every 100 ms
//! settle [N..]                these nodes, or all, say what is good to hear, until nothing changes
//! break N | refused N | answered N | leave N
//! remove N [accept-data-loss] | reorder N N ..
//! hold | persist | beaten     views wait to be persisted | the waiting one is | another coordinator was faster
//! restart | stall MS          the coordinator restarts with its log | it does not run for a while
//! status                      what people are told
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    time::Duration,
};

use craq_proto::{ChainId, Epoch, Incarnation, NodeId, Role, Time, View};
use uuid::Uuid;

use crate::cluster::{
    Cluster, Input, OrderId, Output, Placement, Registration, ReplicaState, StreamId, Suspicion, Timing,
};

const TIMING: Timing = Timing { failure_timeout: Duration::from_secs(1) };

/// A node's part of the script.
#[derive(Default)]
struct Puppet {
    stream: Option<StreamId>,
    incarnation: u64,
    replica: ReplicaState,
    suspicions: Vec<Suspicion>,
}

pub(super) struct Script {
    cluster: Cluster,
    now: Time,
    puppets: BTreeMap<NodeId, Puppet>,
    log: Option<View>,
    held: Option<VecDeque<View>>,
    last_id: u64,
    text: String,
}

fn node(name: &str) -> NodeId {
    let number = name.strip_prefix('n').and_then(|n| n.parse().ok());
    NodeId(Uuid::from_u128(number.unwrap_or_else(|| panic!("{name} is no node"))))
}

impl Script {
    /// The script's text with what the cluster does now.
    pub(super) fn run(name: &str, text: &str) -> String {
        let mut script = Self {
            cluster: Cluster::new(Time::ZERO, TIMING, Vec::new()),
            now: Time::ZERO,
            puppets: BTreeMap::new(),
            log: None,
            held: None,
            last_id: 0,
            text: String::new(),
        };
        assert!(
            text.starts_with("# ") && text.lines().next().unwrap().ends_with('?'),
            "{name} asks no question"
        );
        for line in text.lines().filter(|line| !line.starts_with("    ")) {
            script.text.push_str(line);
            script.text.push('\n');
            if !line.is_empty() && !line.starts_with('#') {
                let words: Vec<&str> = line.split_whitespace().collect();
                script.command(name, words[0], &words[1..]);
            }
        }
        script.text
    }

    fn command(&mut self, script: &str, command: &str, words: &[&str]) {
        match command {
            "register" => self.register(node(words[0]), &words[1..]),
            "beat" => self.beat(node(words[0]), &words[1..]),
            "wait" => self.wait(words[0].parse().unwrap(), &words[1..]),
            "settle" => self.settle(words),
            "break" => {
                let stream = self.puppets.get_mut(&node(words[0])).unwrap().stream.take().unwrap();
                self.step(Input::StreamBroke { stream });
            }
            "refused" => {
                let node = node(words[0]);
                self.step(Input::DialRefused { node, address: format!("{}:1", words[0]) });
            }
            "answered" => self.step(Input::DialAnswered { node: node(words[0]) }),
            "leave" => {
                let stream = self.puppets[&node(words[0])].stream.unwrap();
                self.step(Input::Leave { stream });
            }
            "remove" => {
                let accept_data_loss = words.contains(&"accept-data-loss");
                let (order, chain) = (OrderId(self.next_id()), ChainId::default_chain());
                self.step(Input::Remove { order, chain, node: node(words[0]), accept_data_loss });
            }
            "reorder" => {
                let (order, chain) = (OrderId(self.next_id()), ChainId::default_chain());
                let nodes = words.iter().map(|word| node(word)).collect();
                self.step(Input::Reorder { order, chain, nodes });
            }
            "hold" => self.held = Some(VecDeque::new()),
            "persist" => {
                let view = self.held.take().unwrap().pop_front().unwrap();
                self.persisted(view);
            }
            "beaten" => {
                self.held = None;
                let mut view = self.log.clone().unwrap();
                view.epoch = view.epoch.next();
                view.reason = "decided elsewhere".to_owned();
                self.log = Some(view.clone());
                self.step(Input::Superseded { views: vec![view] });
            }
            "restart" => {
                let views = self.log.clone().into_iter().collect();
                self.cluster = Cluster::new(self.now, TIMING, views);
                self.puppets.values_mut().for_each(|puppet| puppet.stream = None);
            }
            "stall" => {
                self.now = self.now + Duration::from_millis(words[0].parse().unwrap());
                self.step(Input::Tick);
            }
            "status" => self.status(),
            other => panic!("{script}: there is no command {other}"),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn epoch(&self) -> Epoch {
        self.log.as_ref().map(|view| view.epoch).unwrap_or_default()
    }

    fn register(&mut self, node: NodeId, words: &[&str]) {
        let stream = StreamId(self.next_id());
        let (mut port, mut host, mut placement) = ("1", format!("n{}", node.0.as_u128()), Placement::Tail);
        let puppet = self.puppets.entry(node).or_default();
        puppet.incarnation = puppet.incarnation.max(1);
        let mut incarnation = puppet.incarnation;
        let mut replica = ReplicaState::default();
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("inc", text) => incarnation = text.parse().unwrap(),
                ("port", text) => port = text,
                ("at", text) => host = text.to_owned(),
                ("after", text) => placement = Placement::After(self::node(text)),
                ("first", _) => placement = Placement::First,
                ("epoch", text) => replica.epoch = Epoch(text.parse().unwrap()),
                ("active", _) => replica.active = true,
                (other, _) => panic!("register has no {other}"),
            }
        }
        let address = format!("{host}:{port}");
        let replicas = vec![(ChainId::default_chain(), replica.clone())];
        let registration =
            Registration { node, incarnation: Incarnation(incarnation), address, placement, replicas };
        let (stream, replica) = (Some(stream), replica);
        *puppet = Puppet { stream, incarnation, replica, suspicions: Vec::new() };
        self.step(Input::Registered { stream: stream.unwrap(), registration });
    }

    fn beat(&mut self, node: NodeId, words: &[&str]) {
        let mut replica = ReplicaState { epoch: self.epoch(), ..ReplicaState::default() };
        let mut suspicions = Vec::new();
        let suspect = |name: &str, refused| {
            let (chain, node) = (ChainId::default_chain(), self::node(name));
            let incarnation = Incarnation(self.puppets[&node].incarnation);
            Suspicion { chain, epoch: self.epoch(), node, incarnation, refused }
        };
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("active", _) => replica.active = true,
                ("caught-up", _) => replica.caught_up = true,
                ("epoch", text) => replica.epoch = Epoch(text.parse().unwrap()),
                ("suspects", names) => suspicions.extend(names.split(',').map(|name| suspect(name, false))),
                ("refused", names) => suspicions.extend(names.split(',').map(|name| suspect(name, true))),
                (other, _) => panic!("beat has no {other}"),
            }
        }
        let puppet = self.puppets.get_mut(&node).unwrap();
        (puppet.replica, puppet.suspicions) = (replica, suspicions);
        self.say_again(node);
    }

    /// The node's last heartbeat once more.
    fn say_again(&mut self, node: NodeId) {
        let puppet = &self.puppets[&node];
        let Some(stream) = puppet.stream else { return };
        let replicas = vec![(ChainId::default_chain(), puppet.replica.clone())];
        self.step(Input::Heartbeat { stream, replicas, suspicions: puppet.suspicions.clone() });
    }

    fn wait(&mut self, millis: u64, names: &[&str]) {
        let all = names == ["all"];
        let alive: Vec<NodeId> = match all {
            true => self.puppets.keys().copied().collect(),
            false => names.iter().map(|name| node(name)).collect(),
        };
        for _ in 0..millis / 100 {
            let until = self.now + Duration::from_millis(100);
            while let Some(deadline) = self.cluster.next_deadline().filter(|deadline| *deadline < until) {
                self.now = deadline;
                self.step(Input::Tick);
            }
            self.now = until;
            alive.iter().for_each(|node| self.say_again(*node));
            self.step(Input::Tick);
        }
    }

    fn settle(&mut self, names: &[&str]) {
        let speak = |id: &NodeId| names.is_empty() || names.iter().any(|name| node(name) == *id);
        for _ in 0..100 {
            let before = self.epoch();
            let nodes: Vec<NodeId> = self.puppets.keys().copied().filter(speak).collect();
            for node in nodes {
                let role = self.log.as_ref().map_or(Role::None, |view| view.role(node));
                let said: &[&str] = match role {
                    Role::Learner => &["caught-up"],
                    Role::None => &[],
                    _ => &["active"],
                };
                if self.puppets[&node].stream.is_some() {
                    self.beat(node, said);
                }
            }
            if self.epoch() == before {
                return;
            }
        }
        panic!("it never settled:\n{}", self.text);
    }

    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.cluster.step(self.now, input, &mut outputs);
        for output in outputs {
            self.perform(output);
        }
    }

    fn persisted(&mut self, view: View) {
        self.log = Some(view.clone());
        self.step(Input::Persisted { view });
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Persist(view) => match &mut self.held {
                Some(held) => {
                    let line = format!("to be persisted: epoch {}", view.epoch);
                    held.push_back(view);
                    self.print(&line);
                }
                None => self.persisted(view),
            },
            Output::Publish(view) => self.print(&show(&view)),
            Output::Dial { address, .. } => self.print(&format!("dial {address}")),
            Output::Accept { .. } => {}
            Output::Refuse { reason, .. } => self.print(&format!("refused: {reason}")),
            Output::Close { reason, .. } => self.print(&format!("closed: {reason}")),
            Output::Answer { result: Ok(epoch), .. } => self.print(&format!("answer: done in epoch {epoch}")),
            Output::Answer { result: Err(refusal), .. } => {
                let kind = format!("{refusal:?}");
                let kind = kind.split('(').next().unwrap().to_lowercase();
                self.print(&format!("answer: {kind}: {refusal}"));
            }
            Output::Reload => self.print("reload the log"),
        }
    }

    fn status(&mut self) {
        let status = self.cluster.status();
        for chain in status.chains {
            self.print(&format!("{} epoch {}: {}", chain.chain, chain.epoch, chain.reason));
            for replica in chain.members.iter().chain(&chain.learners) {
                let alive = if replica.alive { "alive" } else { "not heard" };
                let synced = if replica.in_sync { ", in sync" } else { "" };
                self.print(&format!("  {} {}, {alive}{synced}", replica.node, replica.role));
            }
        }
        for spare in status.spares {
            self.print(&format!("spare {}: {}", spare.node, spare.reason));
        }
    }

    /// Prints with the nodes' short names.
    fn print(&mut self, line: &str) {
        let mut line = line.to_owned();
        for n in 1..10 {
            line = line.replace(&Uuid::from_u128(n).to_string(), &format!("n{n}"));
            line = line.replace(&format!("n{n}:1 (n{n})"), &format!("n{n}"));
        }
        writeln!(self.text, "    {line}").unwrap();
    }
}

/// `epoch 3: n1 n2~ | n3<n2  reason`: n2 is a member but not in sync, n3 learns from n2. `#2` is incarnation 2.
fn show(view: &View) -> String {
    let name = |id: NodeId| {
        let incarnation = view.incarnation(id).unwrap().0;
        let number = if incarnation == 1 { String::new() } else { format!("#{incarnation}") };
        format!("{id}{number}")
    };
    let mut text = format!("epoch {}:", view.epoch);
    for member in &view.members {
        let synced = if member.in_sync { "" } else { "~" };
        write!(text, " {}{synced}", name(member.node)).unwrap();
    }
    for (i, learner) in view.learners.iter().enumerate() {
        let bar = if i == 0 { " |" } else { "" };
        write!(text, "{bar} {}<{}", name(learner.node), learner.source).unwrap();
    }
    format!("{text}   {}", view.reason)
}
