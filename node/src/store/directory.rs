//! The node's store as a whole: who the node is, which cluster it belongs to, and which chains are in it.
//!
//! Table 0 of the backend is the directory. Chain number n, counted from 0, has the tables 4n+1 (log), 4n+2 (meta) and
//! 4n+3 (requests). Numbers are never given twice.
//! Never here: what is in a chain (see `chain_store`).

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use craq_proto::{ChainId, ClusterId, Incarnation, NodeId, Term};
use uuid::Uuid;

use super::{
    Backend, ChainStore, Change, StoreError, Table,
    guard::Guard,
    records::{seal, unseal, unseal_number},
};

/// The newest format of a store that this version reads; it writes this one. The record that holds it never changes.
pub const FORMAT: u64 = 1;

const DIRECTORY: Table = Table(0);
const FORMAT_KEY: &[u8] = b"format";
const NODE_KEY: &[u8] = b"node";
const INCARNATION_KEY: &[u8] = b"incarnation";
const CLUSTER_KEY: &[u8] = b"cluster";
const TERM_KEY: &[u8] = b"term";
const CHAIN_PREFIX: &[u8] = b"chain/";
const CHAIN_END: &[u8] = b"chain0";
/// Its tables are the last ones.
const CHAIN_NUMBER_MAX: u32 = u32::MAX / 4 - 1;

/// Who a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Made when the store was first opened.
    pub node: NodeId,
    /// Grown by one, durably, when this [`Store`] was opened.
    pub incarnation: Incarnation,
    /// The cluster that the node has joined; none yet: any may take it.
    pub cluster: Option<ClusterId>,
}

/// A node's store. One process has it open at a time.
pub struct Store {
    backend: Arc<dyn Backend>,
    directory: Mutex<Directory>,
}

/// Volatile copy of table 0; changed only after the table.
struct Directory {
    identity: Identity,
    /// The highest term of a leading coordinator that the node has heard of.
    term: Term,
    chains: BTreeMap<ChainId, u32>,
}

impl Store {
    /// Opens what the backend holds, or begins a new store in it. Either way the incarnation grows, durably.
    ///
    /// Fails with [`StoreError::Open`] if the store is of a newer format than [`FORMAT`].
    pub fn open(backend: Arc<dyn Backend>) -> Result<Self, StoreError> {
        Self::open_with(backend, || NodeId(Uuid::new_v4()))
    }

    /// As [`Store::open`]; a new store gets this id. For simulations, which draw their own.
    pub fn open_with(
        backend: Arc<dyn Backend>,
        new_node: impl FnOnce() -> NodeId,
    ) -> Result<Self, StoreError> {
        let backend: Arc<dyn Backend> = Arc::new(Guard::new(backend));
        let mut directory = load(&*backend)?.unwrap_or_else(|| Directory {
            identity: Identity { node: new_node(), incarnation: Incarnation::ZERO, cluster: None },
            term: Term::ZERO,
            chains: BTreeMap::new(),
        });
        let identity = &mut directory.identity;
        identity.incarnation = identity.incarnation.next();
        backend.apply(vec![
            put(FORMAT_KEY, &FORMAT.to_be_bytes()),
            put(NODE_KEY, identity.node.0.as_bytes()),
            put(INCARNATION_KEY, &identity.incarnation.0.to_be_bytes()),
        ])?;
        Ok(Self { backend, directory: Mutex::new(directory) })
    }

    /// The backend, for the [`Writer`](super::Writer): it and this directory take turns in writing, and when one of
    /// them has failed, so has the other.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.backend)
    }

    /// Who the node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.directory().identity
    }

    /// Notes, durably, which cluster the store belongs to, for good.
    ///
    /// Fails with [`StoreError::Open`] if it belongs to another one.
    pub fn set_cluster(&self, cluster: ClusterId) -> Result<(), StoreError> {
        let mut directory = self.directory();
        match directory.identity.cluster {
            Some(own) if own == cluster => Ok(()),
            Some(own) => {
                Err(StoreError::Open(format!("the store belongs to cluster {own}, not to cluster {cluster}")))
            }
            None => {
                self.backend.apply(vec![put(CLUSTER_KEY, cluster.0.as_bytes())])?;
                directory.identity.cluster = Some(cluster);
                Ok(())
            }
        }
    }

    /// The highest term of a leading coordinator that the node has heard of.
    #[must_use]
    pub fn term(&self) -> Term {
        self.directory().term
    }

    /// Notes, durably, that there is a leader of this term. False: a higher one has begun, and this is to be refused.
    pub fn raise_term(&self, term: Term) -> Result<bool, StoreError> {
        let mut directory = self.directory();
        if term > directory.term {
            self.backend.apply(vec![put(TERM_KEY, &term.0.to_be_bytes())])?;
            directory.term = term;
        }
        Ok(term == directory.term)
    }

    /// The chains in the store, in the order of their names.
    #[must_use]
    pub fn chains(&self) -> Vec<ChainId> {
        self.directory().chains.keys().cloned().collect()
    }

    /// The chain's part of the store. A chain that is not there yet is added, durably.
    pub fn chain(&self, chain: &ChainId) -> Result<ChainStore, StoreError> {
        let mut directory = self.directory();
        let number = match directory.chains.get(chain) {
            Some(number) => *number,
            None => {
                let number = directory.chains.values().max().map_or(0, |last| last + 1);
                if number > CHAIN_NUMBER_MAX {
                    return Err(StoreError::Corrupt(
                        "the directory has no number left for a chain".to_owned(),
                    ));
                }
                let key = [CHAIN_PREFIX, &number.to_be_bytes()].concat();
                self.backend.apply(vec![put(&key, chain.as_str().as_bytes())])?;
                directory.chains.insert(chain.clone(), number);
                number
            }
        };
        Ok(ChainStore::new(Arc::clone(&self.backend), chain.clone(), number))
    }

    /// Whether everything is lost when the process ends.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.backend.is_volatile()
    }

    /// Bytes that the store takes on disk or in memory, for people.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.backend.size_bytes()
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        // Changed in one step, after the table: a panic leaves nothing half done.
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

fn put(key: &[u8], content: &[u8]) -> Change {
    Change::Put(DIRECTORY, Bytes::copy_from_slice(key), seal(key, content))
}

/// What the directory says; none if there is no store yet.
fn load(backend: &dyn Backend) -> Result<Option<Directory>, StoreError> {
    let Some(format) = backend.get(DIRECTORY, FORMAT_KEY)? else {
        return refuse_remains(backend).map(|()| None);
    };
    let format = unseal_number(FORMAT_KEY, &format)?;
    if format > FORMAT {
        return Err(StoreError::Open(format!(
            "it has format {format}; this version of craq reads formats up to {FORMAT}"
        )));
    }
    let missing = |what: &str| StoreError::Corrupt(format!("the directory has no {what}"));
    let node = backend.get(DIRECTORY, NODE_KEY)?.ok_or_else(|| missing("node id"))?;
    let incarnation = backend.get(DIRECTORY, INCARNATION_KEY)?.ok_or_else(|| missing("incarnation"))?;
    let cluster = backend.get(DIRECTORY, CLUSTER_KEY)?;
    let cluster = cluster.map(|record| unseal_uuid(CLUSTER_KEY, &record)).transpose()?;
    let identity = Identity {
        node: NodeId(unseal_uuid(NODE_KEY, &node)?),
        incarnation: Incarnation(unseal_number(INCARNATION_KEY, &incarnation)?),
        cluster: cluster.map(ClusterId),
    };
    // A store of before there were terms has none.
    let term =
        backend.get(DIRECTORY, TERM_KEY)?.map(|record| unseal_number(TERM_KEY, &record)).transpose()?;
    Ok(Some(Directory { identity, term: Term(term.unwrap_or(0)), chains: load_chains(backend)? }))
}

/// A directory without its format was not made by any version of this program.
fn refuse_remains(backend: &dyn Backend) -> Result<(), StoreError> {
    let mut empty = true;
    backend.snapshot()?.scan(DIRECTORY, &[], None, &mut |_, _| {
        empty = false;
        ControlFlow::Break(())
    })?;
    if empty { Ok(()) } else { Err(StoreError::Corrupt("the directory has no format".to_owned())) }
}

fn load_chains(backend: &dyn Backend) -> Result<BTreeMap<ChainId, u32>, StoreError> {
    let mut chains = BTreeMap::new();
    let mut error = None;
    let twice = |chain: &ChainId| StoreError::Corrupt(format!("the directory has chain {chain} twice"));
    backend.snapshot()?.scan(
        DIRECTORY,
        CHAIN_PREFIX,
        Some(CHAIN_END),
        &mut |key, record| match unseal_chain(key, record) {
            // The number is the key, so that no two chains can have the same.
            Ok((chain, _)) if chains.contains_key(&chain) => {
                error = Some(twice(&chain));
                ControlFlow::Break(())
            }
            Ok((chain, number)) => {
                chains.insert(chain, number);
                ControlFlow::Continue(())
            }
            Err(refused) => {
                error = Some(refused);
                ControlFlow::Break(())
            }
        },
    )?;
    error.map_or(Ok(chains), Err)
}

fn unseal_chain(key: &[u8], record: &[u8]) -> Result<(ChainId, u32), StoreError> {
    let content = unseal(key, record)?;
    let number = key[CHAIN_PREFIX.len()..].try_into().map(u32::from_be_bytes).ok();
    let number = number.filter(|number| *number <= CHAIN_NUMBER_MAX);
    let chain = std::str::from_utf8(content).ok().and_then(|name| name.parse().ok());
    let no_chain = || StoreError::Corrupt(format!("record {}: it is no chain", key.escape_ascii()));
    chain.zip(number).ok_or_else(no_chain)
}

fn unseal_uuid(key: &[u8], record: &[u8]) -> Result<Uuid, StoreError> {
    let content = unseal(key, record)?;
    let no_uuid = |_| StoreError::Corrupt(format!("record {}: it is no id", key.escape_ascii()));
    Uuid::from_slice(content).map_err(no_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    fn cluster(n: u128) -> ClusterId {
        ClusterId(Uuid::from_u128(n))
    }

    #[test]
    fn a_store_keeps_its_node_and_counts_its_openings() {
        let memory = Arc::new(Memory::new());
        let first = Store::open(memory.clone()).unwrap().identity();
        let second = Store::open(memory.clone()).unwrap().identity();
        assert_eq!((first.node, first.incarnation, first.cluster), (second.node, Incarnation(1), None));
        assert_eq!(second.incarnation, Incarnation(2));
    }

    #[test]
    fn a_store_belongs_to_one_cluster_for_good() {
        let memory = Arc::new(Memory::new());
        Store::open(memory.clone()).unwrap().set_cluster(cluster(1)).unwrap();
        let again = Store::open(memory).unwrap();
        assert_eq!(again.identity().cluster, Some(cluster(1)));
        again.set_cluster(cluster(1)).unwrap();
        let refused = again.set_cluster(cluster(2)).unwrap_err();
        assert!(matches!(refused, StoreError::Open(_)), "{refused}");
        assert_eq!(again.identity().cluster, Some(cluster(1)));
    }

    #[test]
    fn the_highest_term_survives_a_restart_and_never_falls() {
        let memory = Arc::new(Memory::new());
        let store = Store::open(memory.clone()).unwrap();
        assert_eq!(store.term(), Term::ZERO);
        for (raised, known) in [(3, 3), (2, 3), (5, 5)] {
            assert_eq!(store.raise_term(Term(raised)).unwrap(), raised == known, "lower ones are refused");
            assert_eq!(store.term(), Term(known));
            assert_eq!(Store::open(memory.clone()).unwrap().term(), Term(known));
        }
    }

    #[test]
    fn chains_keep_their_tables() {
        let memory = Arc::new(Memory::new());
        let name = |n: u32| format!("c{n}").parse::<ChainId>().unwrap();
        let store = Store::open(memory.clone()).unwrap();
        // More than ten, and not in the order of their names: numbers are not names.
        let logs: Vec<_> = (0..12).rev().map(|n| store.chain(&name(n)).unwrap().log).collect();
        assert_eq!(logs, (0..12).map(|n| Table(4 * n + 1)).collect::<Vec<_>>());
        let again = Store::open(memory).unwrap();
        assert_eq!(again.chains().len(), 12);
        let kept: Vec<_> = (0..12).rev().map(|n| again.chain(&name(n)).unwrap().log).collect();
        assert_eq!(kept, logs);
        assert_eq!(again.chain(&name(99)).unwrap().log, Table(4 * 12 + 1));
    }

    #[test]
    fn a_newer_format_is_refused_in_clear_words() {
        let memory = Arc::new(Memory::new());
        Store::open(memory.clone()).unwrap();
        memory.apply(vec![put(FORMAT_KEY, &2_u64.to_be_bytes())]).unwrap();
        let text = Store::open(memory).unwrap_err().to_string();
        assert_eq!(
            text,
            "cannot open the store: it has format 2; this version of craq reads formats up to 1"
        );
    }

    #[test]
    fn what_no_program_writes_is_refused_although_its_checksum_matches() {
        let cases: [(&[u8], &[u8]); 3] = [
            (INCARNATION_KEY, &u64::MAX.to_be_bytes()),
            (b"chain/\xff\xff\xff\xff", b"other"),
            (b"chain/\0\0\0\x01", b"default"),
        ];
        for (key, content) in cases {
            let memory = Arc::new(Memory::new());
            Store::open(memory.clone()).unwrap().chain(&ChainId::default_chain()).unwrap();
            memory.apply(vec![put(key, content)]).unwrap();
            let refused = Store::open(memory).unwrap_err();
            assert!(matches!(refused, StoreError::Corrupt(_)), "{}: {refused}", key.escape_ascii());
        }
    }

    #[test]
    fn a_directory_with_a_changed_bit_is_refused() {
        for key in [FORMAT_KEY, NODE_KEY, INCARNATION_KEY, b"chain/\0\0\0\0"] {
            let memory = Arc::new(Memory::new());
            Store::open(memory.clone()).unwrap().chain(&ChainId::default_chain()).unwrap();
            let mut record = memory.get(DIRECTORY, key).unwrap().unwrap().to_vec();
            *record.last_mut().unwrap() ^= 1;
            memory.apply(vec![Change::Put(DIRECTORY, Bytes::copy_from_slice(key), record.into())]).unwrap();
            let refused = Store::open(memory).unwrap_err();
            assert!(matches!(refused, StoreError::Corrupt(_)), "{}: {refused}", key.escape_ascii());
        }
    }
}
