//! What a record says, and how it is written: JSON, for people to read too.
//!
//! Format 1, of the time when any coordinator could write, has views alone, without term and holder.

use std::collections::BTreeMap;

use craq_proto::{ChainId, ClusterId, HolderId, NUMBER_MAX, Term, View};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::LogError;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 2;

/// Who wrote a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process; another one has another id, on the same machine too.
    pub id: HolderId,
    /// host:port at which it is reached.
    pub address: String,
}

/// The record in which a view stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Its number.
    pub(crate) seq: u64,
    /// Its nonce.
    pub(crate) nonce: Uuid,
}

/// The object `cluster`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ClusterRecord {
    pub(crate) format: u32,
    pub(crate) cluster_id: ClusterId,
    /// For people only.
    pub(crate) created: String,
}

/// One numbered record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) seq: u64,
    /// Tells whose record it is when creating it ended without a clear answer.
    pub(crate) nonce: Uuid,
    /// The nonce of the record before; none in the first.
    pub(crate) previous: Option<Uuid>,
    /// In which it was written; zero: before there were terms.
    #[serde(default)]
    pub(crate) term: Term,
    /// Who wrote it; none: nobody knows (format 1).
    #[serde(default)]
    pub(crate) holder: Option<Holder>,
    #[serde(flatten)]
    pub(crate) body: Body,
    /// For people, and for how long history is kept.
    pub(crate) wall_time: String,
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Body {
    /// The holder leads from now on, in the next term.
    Claim {
        /// For so long nobody else claims after the last record that the holder has written.
        lease_ms: u64,
        /// Where the newest view of each chain stands: records between may be gone when somebody reads this.
        views: BTreeMap<ChainId, Place>,
    },
    /// The holder leads still.
    Renew,
    /// A chain's next view.
    View {
        /// The view.
        view: View,
        /// Where the chain's view before it stands; none: it is the first, or of format 1.
        #[serde(default)]
        follows: Option<Place>,
    },
    /// The holder leads no longer.
    Resign,
}

impl Record {
    pub(crate) fn place(&self) -> Place {
        Place { seq: self.seq, nonce: self.nonce }
    }

    /// Why no coordinator can have written this, if so.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        let is_claim = matches!(self.body, Body::Claim { .. });
        match &self.body {
            Body::View { view, .. } if view.check().is_err() => view.check().err(),
            _ if self.term.0 > NUMBER_MAX => Some("its term is past the end of all terms"),
            _ if (self.term == Term::ZERO) != self.holder.is_none() => {
                Some("it has a term or a holder alone")
            }
            Body::Renew | Body::Resign if self.term == Term::ZERO => Some("it has no term"),
            _ if is_claim && self.term == Term::ZERO => Some("it has no term"),
            _ => None,
        }
    }
}

/// Now, for people.
pub(crate) fn wall_time() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}

/// The object's text.
pub(crate) fn encode<T: Serialize>(path: &str, record: &T) -> Result<Vec<u8>, LogError> {
    serde_json::to_vec_pretty(record).map_err(|error| LogError::corrupt(path, error.to_string()))
}

/// What the object says.
pub(crate) fn decode<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, LogError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let corrupt = |error: serde_json::Error| LogError::corrupt(path, error.to_string());
    let Format { format } = serde_json::from_slice(bytes).map_err(corrupt)?;
    if format > FORMAT {
        return Err(LogError::NewerFormat { path: path.to_owned(), found: format });
    }
    serde_json::from_slice(bytes).map_err(corrupt)
}
