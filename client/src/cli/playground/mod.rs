//! `playground`: a whole cluster on this machine, from the binaries beside this one.
//!
//! Starts it, checks it as a user would, and keeps it running. However this ends, the children are stopped.

mod check;
mod process;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use futures::future::{join_all, select_all};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::PlaygroundArgs;
use process::Process;

/// Runs a cluster until Ctrl-C, or until it has been checked.
pub(crate) async fn run(args: PlaygroundArgs) -> anyhow::Result<()> {
    // Before the first child, so that none is left behind.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let place = Place::new(args.data.as_deref())?;
    let mut cluster = Cluster::default();
    let outcome = tokio::select! {
        outcome = serve(&args, &place, &mut cluster) => outcome,
        () = either(&mut interrupt, &mut terminate) => Ok(()),
    };
    eprintln!("stopping …");
    // A second Ctrl-C does not wait for a graceful end.
    tokio::select! {
        () = cluster.stop() => {}
        () = either(&mut interrupt, &mut terminate) => cluster.kill(),
    }
    place.leave();
    outcome
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn serve(args: &PlaygroundArgs, place: &Place, cluster: &mut Cluster) -> anyhow::Result<()> {
    let (coordinator, node) = (beside("craq-coordinator")?, beside("craq-node")?);
    let coordinators = if args.coordinators == 1 {
        "a coordinator".to_owned()
    } else {
        format!("{} coordinators", args.coordinators)
    };
    eprintln!("starting {coordinators} and {} nodes, data in {}", args.nodes, place.directory.display());
    for _ in 0..args.coordinators {
        cluster.start_coordinator(&coordinator, &place.directory).await?;
    }
    for number in 1..=args.nodes {
        cluster.start_node(&node, number, &place.directory, args.store.as_str()).await?;
    }
    let summaries = |processes: &[Process]| processes.iter().map(Process::summary).collect::<Vec<_>>();
    let (coordinators, nodes) = (summaries(&cluster.coordinators), summaries(&cluster.nodes));
    tokio::select! {
        checked = Box::pin(check::check(&coordinators, &nodes)) => checked?,
        died = cluster.died() => bail!(died),
    }
    if args.once {
        return Ok(());
    }
    eprintln!("serving until Ctrl-C");
    loop {
        let died = cluster.died().await;
        eprintln!("{died}");
        eprintln!("the others go on; Ctrl-C ends them");
    }
}

/// The path of a binary in the directory of the running one.
pub(super) fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this binary is")?;
    let path = own.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if path.is_file() {
        return Ok(path);
    }
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    bail!("{} is missing; build it with: cargo build{release}", path.display())
}

/// Where the cluster keeps its data.
pub(super) struct Place {
    directory: PathBuf,
    temporary: bool,
}

impl Place {
    /// The given directory, or a temporary one.
    pub(super) fn new(data: Option<&Path>) -> anyhow::Result<Self> {
        let (directory, temporary) = match data {
            Some(data) => (data.to_owned(), false),
            None => (std::env::temp_dir().join(format!("craq-playground-{}", uuid::Uuid::new_v4())), true),
        };
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        Ok(Self { directory, temporary })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes what is temporary.
    pub(super) fn leave(&self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.directory)
        {
            eprintln!("cannot remove {}: {error}", self.directory.display());
        }
    }
}

/// The children.
#[derive(Default)]
pub(super) struct Cluster {
    coordinators: Vec<Process>,
    nodes: Vec<Process>,
}

impl Cluster {
    pub(super) async fn start_coordinator(&mut self, program: &Path, directory: &Path) -> anyhow::Result<()> {
        let data = directory.join("coordinator");
        let args = ["--listen".as_ref(), "127.0.0.1:0".as_ref(), "--data".as_ref(), data.as_os_str()];
        let name = match self.coordinators.len() {
            0 => "coordinator".to_owned(),
            others => format!("coordinator-{}", others + 1),
        };
        self.coordinators.push(Process::start(&name, program, &args, directory).await?);
        Ok(())
    }

    pub(super) async fn start_node(
        &mut self,
        program: &Path,
        number: u16,
        directory: &Path,
        store: &str,
    ) -> anyhow::Result<()> {
        let name = format!("node-{number}");
        let file = directory.join(format!("{name}.{store}"));
        let coordinator = self.coordinator_addresses();
        let args = [
            "--listen".as_ref(),
            "127.0.0.1:0".as_ref(),
            "--coordinator".as_ref(),
            coordinator.as_ref(),
            "--file".as_ref(),
            file.as_os_str(),
            "--store".as_ref(),
            store.as_ref(),
        ];
        self.nodes.push(Process::start(&name, program, &args, directory).await?);
        Ok(())
    }

    /// Where the coordinators are reached, separated by commas.
    pub(super) fn coordinator_addresses(&self) -> String {
        self.coordinators.iter().map(Process::address).collect::<Vec<_>>().join(",")
    }

    /// The nodes' process ids, in the order of their start.
    pub(super) fn node_pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.summary().pid).collect()
    }

    /// Returns when a child has ended that was not asked to, with what it said last. That child is let go of.
    pub(super) async fn died(&mut self) -> String {
        let children: Vec<_> =
            self.coordinators.iter_mut().chain(&mut self.nodes).filter(|child| child.is_running()).collect();
        if children.is_empty() {
            return std::future::pending().await;
        }
        let (died, _, _) = select_all(children.into_iter().map(|child| Box::pin(child.ended()))).await;
        died
    }

    /// The nodes first: they leave their chain in good order as long as a coordinator is there.
    pub(super) async fn stop(&mut self) {
        join_all(self.nodes.iter_mut().map(Process::stop)).await;
        join_all(self.coordinators.iter_mut().map(Process::stop)).await;
    }

    fn kill(&mut self) {
        for child in self.coordinators.iter_mut().chain(&mut self.nodes) {
            child.kill();
        }
    }
}
