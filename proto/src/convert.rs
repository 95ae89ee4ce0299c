//! Wire to domain and back. The only place that refuses malformed messages.

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    ChainId, ClientId, ClusterId, Entry, Epoch, Expelled, Incarnation, Key, Learner, Member, Mutation,
    NodeId, Op, RequestId, Row, Seq, Value, Version, View,
    entry::Outcome,
    id::NUMBER_MAX,
    key::{SizeError, VALUE_BYTES_CEILING},
    wire,
};

/// A message that no correct process sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has a value that is none.
    #[error("{field} is no {expected}")]
    Bad {
        /// Which field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A view is none.
    #[error("{0}")]
    View(&'static str),
    /// A key or value is outside the limits.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A checksum does not match.
    #[error("the checksum of key {0} does not match its value")]
    Checksum(String),
}

/// A UUID of 16 bytes.
pub fn uuid(bytes: &[u8], field: &'static str) -> Result<Uuid, Malformed> {
    Uuid::from_slice(bytes).map_err(|_| Malformed::Bad { field, expected: "UUID of 16 bytes" })
}

/// The bytes of a UUID, as they travel.
#[must_use]
pub fn uuid_bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// A number that something counts on from: at most [`NUMBER_MAX`].
pub fn number(number: u64, field: &'static str) -> Result<u64, Malformed> {
    if number > NUMBER_MAX {
        return Err(Malformed::Bad { field, expected: "number below 2^63" });
    }
    Ok(number)
}

fn node_id(bytes: &[u8], field: &'static str) -> Result<NodeId, Malformed> {
    uuid(bytes, field).map(NodeId)
}

/// The header of a message, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// None: the sender doesn't know it yet.
    pub cluster: Option<ClusterId>,
    /// The chain that the message is about.
    pub chain: ChainId,
    /// Zero: the sender doesn't know it.
    pub epoch: Epoch,
    /// A node, a coordinator or a client.
    pub sender: Option<Uuid>,
    /// Zero unless the sender is a node.
    pub incarnation: Incarnation,
}

impl Header {
    /// The sender as a node, which it must be.
    pub fn node(&self) -> Result<NodeId, Malformed> {
        self.sender.map(NodeId).ok_or(Malformed::Missing("sender"))
    }

    /// The cluster, which must be named.
    pub fn cluster(&self) -> Result<ClusterId, Malformed> {
        self.cluster.ok_or(Malformed::Missing("cluster_id"))
    }
}

impl TryFrom<Option<wire::Header>> for Header {
    type Error = Malformed;

    fn try_from(header: Option<wire::Header>) -> Result<Self, Malformed> {
        let header = header.unwrap_or_default();
        let optional = |bytes: &[u8], field| {
            if bytes.is_empty() { Ok(None) } else { uuid(bytes, field).map(Some) }
        };
        Ok(Self {
            cluster: optional(&header.cluster_id, "cluster_id")?.map(ClusterId),
            chain: chain_id(header.chain)?,
            epoch: Epoch(number(header.epoch, "epoch")?),
            sender: optional(&header.sender, "sender")?,
            incarnation: Incarnation(number(header.incarnation, "incarnation")?),
        })
    }
}

impl From<&Header> for wire::Header {
    fn from(header: &Header) -> Self {
        Self {
            cluster_id: header.cluster.map(|id| uuid_bytes(id.0)).unwrap_or_default(),
            chain: header.chain.to_string(),
            epoch: header.epoch.0,
            sender: header.sender.map(uuid_bytes).unwrap_or_default(),
            incarnation: header.incarnation.0,
        }
    }
}

/// A chain's name; the empty one stands for `default`.
pub fn chain_id(name: String) -> Result<ChainId, Malformed> {
    if name.is_empty() {
        return Ok(ChainId::default_chain());
    }
    name.try_into()
        .map_err(|_| Malformed::Bad { field: "chain", expected: "name of 1 to 64 of a-z, 0-9, _ and -" })
}

impl TryFrom<wire::RequestId> for RequestId {
    type Error = Malformed;

    fn try_from(id: wire::RequestId) -> Result<Self, Malformed> {
        if id.number == 0 {
            return Err(Malformed::Bad { field: "request_id.number", expected: "number from 1" });
        }
        if id.floor > id.number {
            return Err(Malformed::Bad {
                field: "request_id.floor",
                expected: "number up to request_id.number",
            });
        }
        Ok(Self {
            client: ClientId(uuid(&id.client, "request_id.client")?),
            number: number(id.number, "request_id.number")?,
            floor: id.floor,
            born: Seq(number(id.born, "request_id.born")?),
            retry: id.retry,
        })
    }
}

impl From<&RequestId> for wire::RequestId {
    fn from(id: &RequestId) -> Self {
        Self {
            client: uuid_bytes(id.client.0),
            number: id.number,
            floor: id.floor,
            born: id.born.0,
            retry: id.retry,
        }
    }
}

impl TryFrom<wire::View> for View {
    type Error = Malformed;

    fn try_from(view: wire::View) -> Result<Self, Malformed> {
        let members = view.members.into_iter().map(|member| {
            Ok(Member {
                node: node_id(&member.node, "member.node")?,
                incarnation: Incarnation(member.incarnation),
                in_sync: member.in_sync,
                address: member.address,
            })
        });
        let learners = view.learners.into_iter().map(|learner| {
            Ok(Learner {
                node: node_id(&learner.node, "learner.node")?,
                incarnation: Incarnation(learner.incarnation),
                source: node_id(&learner.source, "learner.source")?,
                address: learner.address,
            })
        });
        let expelled = view.expelled.into_iter().map(|expelled| {
            Ok(Expelled {
                node: node_id(&expelled.node, "expelled.node")?,
                incarnation: Incarnation(expelled.incarnation),
            })
        });
        let view = Self {
            chain: chain_id(view.chain)?,
            epoch: Epoch(view.epoch),
            members: members.collect::<Result<_, Malformed>>()?,
            learners: learners.collect::<Result<_, Malformed>>()?,
            reason: view.reason,
            rebuilt_in: Epoch(view.rebuilt_in),
            expelled: expelled.collect::<Result<_, Malformed>>()?,
        };
        view.check().map_err(Malformed::View)?;
        Ok(view)
    }
}

impl From<&View> for wire::View {
    fn from(view: &View) -> Self {
        let member = |member: &Member| wire::Member {
            node: uuid_bytes(member.node.0),
            incarnation: member.incarnation.0,
            in_sync: member.in_sync,
            address: member.address.clone(),
        };
        let learner = |learner: &Learner| wire::Learner {
            node: uuid_bytes(learner.node.0),
            incarnation: learner.incarnation.0,
            source: uuid_bytes(learner.source.0),
            address: learner.address.clone(),
        };
        let expelled = |expelled: &Expelled| wire::Expelled {
            node: uuid_bytes(expelled.node.0),
            incarnation: expelled.incarnation.0,
        };
        Self {
            chain: view.chain.to_string(),
            epoch: view.epoch.0,
            members: view.members.iter().map(member).collect(),
            learners: view.learners.iter().map(learner).collect(),
            reason: view.reason.clone(),
            rebuilt_in: view.rebuilt_in.0,
            expelled: view.expelled.iter().map(expelled).collect(),
        }
    }
}

impl TryFrom<wire::Mutation> for Mutation {
    type Error = Malformed;

    /// Checks the checksum too: what arrives damaged is refused.
    fn try_from(mutation: wire::Mutation) -> Result<Self, Malformed> {
        if mutation.version == 0 {
            return Err(Malformed::Bad { field: "mutation.version", expected: "number from 1" });
        }
        if mutation.delete && !mutation.value.is_empty() {
            return Err(Malformed::Bad { field: "mutation.value", expected: "empty value of a deletion" });
        }
        let op = if mutation.delete {
            Op::Delete
        } else {
            Op::Put(Value::new(mutation.value, VALUE_BYTES_CEILING)?)
        };
        let mutation = Self {
            key: Key::new(mutation.key)?,
            version: Version(number(mutation.version, "mutation.version")?),
            op,
            checksum: mutation.checksum,
        };
        if !mutation.is_intact() {
            return Err(Malformed::Checksum(format!("{:?}", mutation.key)));
        }
        Ok(mutation)
    }
}

impl From<&Mutation> for wire::Mutation {
    fn from(mutation: &Mutation) -> Self {
        let (value, delete) = match &mutation.op {
            Op::Put(value) => (value.as_bytes().clone(), false),
            Op::Delete => (Bytes::new(), true),
        };
        Self {
            key: mutation.key.as_bytes().clone(),
            version: mutation.version.0,
            value,
            delete,
            checksum: mutation.checksum,
        }
    }
}

impl TryFrom<wire::Entry> for Entry {
    type Error = Malformed;

    fn try_from(entry: wire::Entry) -> Result<Self, Malformed> {
        let (seq, origin_epoch) = position(entry.seq, entry.origin_epoch)?;
        Ok(Self {
            seq,
            origin_epoch,
            request: entry.request_id.map(TryInto::try_into).transpose()?,
            mutations: entry.mutations.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            forget_through: Seq(number(entry.forget_through, "entry.forget_through")?),
        })
    }
}

impl From<&Entry> for wire::Entry {
    fn from(entry: &Entry) -> Self {
        Self {
            seq: entry.seq.0,
            origin_epoch: entry.origin_epoch.0,
            request_id: entry.request.as_ref().map(Into::into),
            mutations: entry.mutations.iter().map(Into::into).collect(),
            forget_through: entry.forget_through.0,
        }
    }
}

impl TryFrom<wire::Row> for Row {
    type Error = Malformed;

    fn try_from(row: wire::Row) -> Result<Self, Malformed> {
        let (seq, origin_epoch) = position(row.seq, row.origin_epoch)?;
        if row.index >= row.count {
            return Err(Malformed::Bad { field: "row.index", expected: "position below row.count" });
        }
        Ok(Self {
            seq,
            index: row.index,
            count: row.count,
            origin_epoch,
            request: row.request_id.map(TryInto::try_into).transpose()?,
            mutation: row.mutation.map(TryInto::try_into).transpose()?,
            forget_through: Seq(number(row.forget_through, "row.forget_through")?),
        })
    }
}

impl From<&Row> for wire::Row {
    fn from(row: &Row) -> Self {
        Self {
            seq: row.seq.0,
            index: row.index,
            count: row.count,
            origin_epoch: row.origin_epoch.0,
            request_id: row.request.as_ref().map(Into::into),
            mutation: row.mutation.as_ref().map(Into::into),
            forget_through: row.forget_through.0,
        }
    }
}

fn position(seq: u64, epoch: u64) -> Result<(Seq, Epoch), Malformed> {
    match (seq, epoch) {
        (0, _) => Err(Malformed::Bad { field: "seq", expected: "number from 1" }),
        (_, 0) => Err(Malformed::Bad { field: "origin_epoch", expected: "number from 1" }),
        _ => Ok((Seq(number(seq, "seq")?), Epoch(number(epoch, "origin_epoch")?))),
    }
}

impl From<&Outcome> for wire::Outcome {
    fn from(outcome: &Outcome) -> Self {
        Self {
            client: uuid_bytes(outcome.client.0),
            number: outcome.number,
            floor: outcome.floor,
            seq: outcome.seq.0,
            versions: outcome.versions.iter().map(|version| version.0).collect(),
        }
    }
}

impl TryFrom<wire::Outcome> for Outcome {
    type Error = Malformed;

    fn try_from(outcome: wire::Outcome) -> Result<Self, Malformed> {
        Ok(Self {
            client: ClientId(uuid(&outcome.client, "outcome.client")?),
            number: number(outcome.number, "outcome.number")?,
            floor: number(outcome.floor, "outcome.floor")?,
            seq: Seq(number(outcome.seq, "outcome.seq")?),
            versions: outcome.versions.into_iter().map(Version).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{entry::checksum, view::EXPELLED_MAX};

    fn mutation() -> impl Strategy<Value = Mutation> {
        let bytes = |range| proptest::collection::vec(any::<u8>(), range);
        (bytes(1..20), proptest::option::of(bytes(0..20)), 1..=NUMBER_MAX).prop_map(
            |(key, value, version)| {
                let checksum = checksum(&key, value.as_deref().unwrap_or_default());
                let op = value.map_or(Op::Delete, |value| Op::Put(Value::new(value, 100).unwrap()));
                Mutation { key: Key::new(key).unwrap(), version: Version(version), op, checksum }
            },
        )
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let request = (any::<u128>(), 1..=NUMBER_MAX, any::<bool>(), 0..=NUMBER_MAX).prop_map(
            |(client, number, retry, born)| RequestId {
                client: ClientId(Uuid::from_u128(client)),
                number,
                floor: number / 2,
                born: Seq(born),
                retry,
            },
        );
        let mutations = proptest::collection::vec(mutation(), 0..4);
        (1..=NUMBER_MAX, 1..=NUMBER_MAX, proptest::option::of(request), mutations, 0..=NUMBER_MAX).prop_map(
            |(seq, epoch, request, mutations, forget)| Entry {
                seq: Seq(seq),
                origin_epoch: Epoch(epoch),
                request,
                mutations,
                forget_through: Seq(forget),
            },
        )
    }

    proptest! {
        #[test]
        fn entries_and_rows_survive_the_wire(entry in entry()) {
            prop_assert_eq!(&Entry::try_from(wire::Entry::from(&entry)).unwrap(), &entry);
            for row in entry.rows() {
                prop_assert_eq!(&Row::try_from(wire::Row::from(&row)).unwrap(), &row);
            }
        }

        #[test]
        fn a_flipped_bit_in_key_or_value_is_refused(mutation in mutation(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut sent = wire::Mutation::from(&mutation);
            let mut bytes = [&sent.key[..], &sent.value[..]].concat();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let value = bytes.split_off(sent.key.len());
            (sent.key, sent.value) = (bytes.into(), value.into());
            prop_assert!(Mutation::try_from(sent).is_err());
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        let member = wire::Member { node: uuid_bytes(Uuid::from_u128(1)), ..Default::default() };
        let view = wire::View { epoch: 1, members: vec![member], ..Default::default() };
        assert!(View::try_from(view.clone()).is_ok());
        assert!(View::try_from(wire::View { epoch: 0, ..view.clone() }).is_err());
        assert!(View::try_from(wire::View { members: vec![], ..view.clone() }).is_err());
        let twice = vec![view.members[0].clone(), view.members[0].clone()];
        assert!(View::try_from(wire::View { members: twice, ..view.clone() }).is_err());
        assert!(View::try_from(wire::View { rebuilt_in: 2, ..view.clone() }).is_err());
        let expelled =
            |node| vec![wire::Expelled { node: uuid_bytes(Uuid::from_u128(node)), incarnation: 1 }];
        assert_eq!(
            View::try_from(wire::View { expelled: expelled(2), ..view.clone() }).unwrap().expelled.len(),
            1
        );
        assert!(View::try_from(wire::View { expelled: expelled(1), ..view.clone() }).is_err());
        let many = vec![expelled(2)[0].clone(); EXPELLED_MAX + 1];
        assert!(View::try_from(wire::View { expelled: many, ..view.clone() }).is_err());
        assert!(View::try_from(wire::View { chain: "No Name".into(), ..view }).is_err());
        let id = wire::RequestId { client: uuid_bytes(Uuid::from_u128(1)), number: 2, ..Default::default() };
        assert!(RequestId::try_from(id.clone()).is_ok());
        assert!(RequestId::try_from(wire::RequestId { number: 0, ..id.clone() }).is_err());
        assert!(RequestId::try_from(wire::RequestId { floor: 3, ..id.clone() }).is_err());
        assert!(RequestId::try_from(wire::RequestId { client: Bytes::from_static(b"short"), ..id }).is_err());
        assert!(Entry::try_from(wire::Entry { seq: 0, origin_epoch: 1, ..Default::default() }).is_err());
        assert!(Entry::try_from(wire::Entry { seq: 1, origin_epoch: 0, ..Default::default() }).is_err());
        let mut entry = wire::Entry { seq: NUMBER_MAX, origin_epoch: 1, ..Default::default() };
        assert!(Entry::try_from(entry.clone()).is_ok());
        entry.forget_through = u64::MAX;
        assert!(Entry::try_from(entry).is_err(), "what is forgotten above it could not be counted");
        assert!(
            Entry::try_from(wire::Entry { seq: u64::MAX, origin_epoch: 1, ..Default::default() }).is_err()
        );
        assert!(
            Header::try_from(Some(wire::Header { sender: Bytes::from_static(b"x"), ..Default::default() }))
                .is_err()
        );
    }
}
