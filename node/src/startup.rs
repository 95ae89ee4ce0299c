//! From the flags to a node that serves.

use std::{
    collections::BTreeMap, io, net::SocketAddr, path::Path, process::ExitCode, sync::Arc, thread,
    time::Instant,
};

use craq_proto::{ChainId, ClusterId, convert::uuid_bytes, wire};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    clock,
    config::{Config, StoreKind},
    driver::{self, Pace, Parts},
    error::NodeError,
    fatal,
    heartbeat::{Heartbeat, Signals},
    identity::Identity,
    limits::{LISTEN_BACKLOG, PROGRESS_INTERVAL, STORE_WAIT},
    logging,
    node::{Admission, Chains, Node},
    peers::{Peers, Reach},
    replica::{Loader, Replica},
    service::{self, Door, RequestIds},
    stop::{self, Serving},
    store::{Backend, ChainStore, Memory, Redb, Store, Writer, backend::StoreError},
};

#[cfg(feature = "fjall")]
use crate::store::Fjall;

/// The whole life of a `craq-node` process: log, panic hook, store, runtime, node.
pub fn start(config: &Config) -> ExitCode {
    logging::start(config.log_format);
    fatal::abort_on_panic();
    let ended = open(config).and_then(|backend| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = config.worker_threads {
            runtime.worker_threads(threads);
        }
        let runtime = runtime.enable_all().build().map_err(|error| NodeError::Server(error.to_string()))?;
        let ended = runtime.block_on(run(config.clone(), backend));
        runtime.shutdown_background();
        ended
    });
    let code = match &ended {
        Ok(()) => 0,
        Err(wrong) => {
            error!(exit_code = wrong.exit_code(), "{wrong}");
            wrong.exit_code()
        }
    };
    logging::flush(PROGRESS_INTERVAL);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Opens the store that the flags name.
fn open(config: &Config) -> Result<Arc<dyn Backend>, NodeError> {
    config.check()?;
    match config.store {
        StoreKind::Memory => Ok(Arc::new(Memory::new())),
        StoreKind::Redb => open_file(config, Redb::open),
        #[cfg(feature = "fjall")]
        StoreKind::Fjall => open_file(config, Fjall::open),
    }
}

/// The part of the cache that holds values as they are answered. The other part is the backend's, for what it reads.
fn recent_bytes(config: &Config) -> usize {
    config.cache_size / 4
}

/// Opens the file, waiting a little if that is refused: a process that was killed a moment ago may still hold it.
fn open_file<B: Backend>(
    config: &Config,
    open: impl Fn(&Path, usize) -> Result<B, StoreError>,
) -> Result<Arc<dyn Backend>, NodeError> {
    let began = Instant::now();
    loop {
        match open(&config.file, config.cache_size - recent_bytes(config)) {
            Ok(backend) => return Ok(Arc::new(backend)),
            Err(StoreError::Open(_)) if began.elapsed() < STORE_WAIT => thread::sleep(STORE_WAIT / 40),
            Err(source) => return Err(NodeError::Open { path: config.file.clone(), source }),
        }
    }
}

/// Runs a node on this backend until it is asked to stop (SIGTERM, SIGINT) and has left its chains.
///
/// What must not go on ends the whole process, whoever calls this: see [`NodeError::exit_code`].
pub async fn run(config: Config, backend: Arc<dyn Backend>) -> Result<(), NodeError> {
    config.check()?;
    let listener = listen(&config.listen)?;
    let bound = listener.local_addr().map_err(|source| unheard(&config.listen, source))?;
    info!("listening on {bound}");
    let (health, healthy) = watch::channel(false);
    let (door, end) = (Door::default(), CancellationToken::new());
    let task = tokio::spawn(service::serve(door.clone(), listener, healthy, end.clone().cancelled_owned()));
    let serving = Serving { task, health, end };
    let replica = config.replica();
    let Opened { store, loaded } = off_thread(move || load(&backend, &replica)).await?;
    let identity = store.identity();
    let address = config.public_address(bound);
    info!(node = %identity.node, incarnation = identity.incarnation.0, address, "reached by the others at");
    let me = Arc::new(Identity::new(identity.node, identity.incarnation, address, identity.cluster));
    let signals = Arc::new(Signals::default());
    let peers = Arc::new(Peers::new(Arc::clone(&me), config.lease, Reach::new(signals.alarm())));
    let writer = Arc::new(Writer::start(store.backend(), |error| fatal::exit(&error.into())));
    let pace = Arc::new(Pace::new(config.transfer_rate));
    let recent = recent_bytes(&config) / loaded.len().max(1);
    let chains = loaded.into_iter().map(|(id, replica, chain_store)| {
        let parts = Parts {
            peers: Arc::clone(&peers),
            writer: Arc::clone(&writer),
            pace: Arc::clone(&pace),
            signals: Arc::clone(&signals),
            node: me.node,
        };
        (id.clone(), driver::start(id, replica, chain_store.with_recent(recent), parts))
    });
    let chains: Chains = Arc::new(chains.collect::<BTreeMap<_, _>>());
    let (registered, registration) = watch::channel(false);
    let heartbeat = Heartbeat {
        me: Arc::clone(&me),
        chains: Arc::clone(&chains),
        peers: Arc::clone(&peers),
        signals: Arc::clone(&signals),
        store: Arc::new(store),
        coordinators: config.coordinators.clone(),
        interval: config.heartbeat_interval,
        failure_timeout: config.failure_timeout,
        placement: placement(&config),
        registered,
    };
    tokio::spawn(Arc::new(heartbeat).run());
    let node = Arc::new(Node {
        me,
        chains,
        peers,
        admission: Admission::new(config.requests_max),
        request_ids: RequestIds::default(),
        value_bytes_max: config.value_bytes_max,
        coordinators: config.coordinators,
        closing: CancellationToken::new(),
    });
    door.open(Arc::clone(&node));
    stop::serve_until_stopped(node, signals, serving, registration).await
}

fn placement(config: &Config) -> Option<wire::Placement> {
    use wire::placement::Place;
    let place = match config.after {
        Some(after) => Some(Place::After(uuid_bytes(after.0))),
        None if config.first => Some(Place::First(true)),
        None => None,
    };
    place.map(|place| wire::Placement { place: Some(place) })
}

/// Listens on the address; `:PORT` is all interfaces, of both families where there are two.
fn listen(address: &str) -> Result<TcpListener, NodeError> {
    let candidates = match address.trim().strip_prefix(':') {
        Some(port) => vec![format!("[::]:{port}"), format!("0.0.0.0:{port}")],
        None => vec![address.trim().to_owned()],
    };
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "it is no HOST:PORT");
    for candidate in candidates {
        let resolved = match std::net::ToSocketAddrs::to_socket_addrs(candidate.as_str()) {
            Ok(resolved) => resolved,
            Err(error) => {
                failed = error;
                continue;
            }
        };
        for socket in resolved {
            match bind(socket) {
                Ok(listener) => return Ok(listener),
                Err(error) => failed = error,
            }
        }
    }
    Err(unheard(address, failed))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

fn unheard(address: &str, source: io::Error) -> NodeError {
    NodeError::Listen { address: address.to_owned(), source }
}

/// Work that blocks, away from the threads that serve.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, NodeError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| NodeError::Server(error.to_string()))??)
}

/// The store, and the replicas that were rebuilt from it.
struct Opened {
    store: Store,
    loaded: Vec<(ChainId, Replica, ChainStore)>,
}

fn load(backend: &Arc<dyn Backend>, config: &crate::replica::event::Config) -> Result<Opened, StoreError> {
    let store = Store::open(Arc::clone(backend))?;
    let cluster: Option<ClusterId> = store.identity().cluster;
    info!(
        node = %store.identity().node,
        cluster = cluster.map_or_else(|| "none yet".to_owned(), |id| id.to_string()),
        store_bytes = store.size_bytes(),
        "the store is open"
    );
    if store.is_volatile() {
        warn!("the store is in memory: when this process ends, all that it holds is gone");
    }
    let mut ids = store.chains();
    if !ids.contains(&ChainId::default_chain()) {
        ids.push(ChainId::default_chain());
    }
    let mut loaded = Vec::with_capacity(ids.len());
    for id in ids {
        let chain = store.chain(&id)?;
        let replica = load_chain(&store, &chain, config.clone())?;
        loaded.push((id, replica, chain));
    }
    Ok(Opened { store, loaded })
}

/// Rebuilds one replica by a walk of its log.
fn load_chain(
    store: &Store,
    chain: &ChainStore,
    config: crate::replica::event::Config,
) -> Result<Replica, StoreError> {
    let began = Instant::now();
    let identity = store.identity();
    let mut loader = Loader::new(config, identity.node, identity.incarnation, chain.meta()?);
    let mut told = began;
    let mut progress = |rows: u64| {
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            info!(chain = %chain.chain(), rows, seconds = began.elapsed().as_secs(), "reading the log");
        }
    };
    let rows = chain.walk(&mut progress, &mut |row| loader.row(row))?;
    let now = clock::now();
    let replica = loader.finish(now);
    let status = replica.status(now);
    info!(
        chain = %chain.chain(),
        rows,
        keys = status.keys,
        epoch = status.epoch.0,
        commit = status.commit.0,
        last = status.last.0,
        seconds = began.elapsed().as_secs_f64(),
        "the log is read"
    );
    Ok(replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_alone_listens_everywhere_and_a_taken_one_is_named_in_the_error() {
        let first = listen(":0").unwrap().local_addr().unwrap();
        assert!(first.ip().is_unspecified());
        let taken = listen("127.0.0.1:0").unwrap();
        let address: SocketAddr = taken.local_addr().unwrap();
        let refused = listen(&address.to_string()).err().unwrap();
        assert!(refused.to_string().contains(&address.to_string()), "{refused}");
        assert!(listen("nonsense").is_err());
    }
}
