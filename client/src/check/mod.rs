//! Judges what clients did and saw: is there an order of all calls, each within its own time, that explains every answer?
//!
//! - [`history`]: the model of a history, and the recorder of real clients; [`valid`]: what is no history at all.
//! - [`linearizability`]: the search for such an order.
//! - [`text`]: calls in words; [`random`]: numbers that come again with their seed.
//!
//! Never talks to a cluster, and shares no code with the store that it judges.

pub mod history;
pub mod linearizability;
pub mod random;
pub mod text;
pub mod valid;

#[cfg(test)]
mod tests;
