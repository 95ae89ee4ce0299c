//! Judges what clients did and saw: is there an order of all calls, each within its own time, that explains every answer?
//!
//! - [`history`]: the model of a history, and the recorder of real clients.
//!
//! Never talks to a cluster, and shares no code with the store that it judges.

pub mod history;
