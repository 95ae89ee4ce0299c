//! Judges what clients did and saw: is there an order of all calls, each within its own time, that explains every answer?
//!
//! - [`history`]: the model of a history, and the recorder of real clients; [`valid`]: what is no history at all.
//! - [`linearizability`]: the search for such an order.
//! - [`versions`]: the same by the versions that the store tells, for histories too long to be searched; [`moments`]: the
//!   same for all keys at once, by the log; [`atomicity`]: writes of several keys.
//! - [`verdict`]: all of them together; [`saved`]: a history in a file; [`picture`]: a violation for people.
//! - [`text`]: calls in words; [`random`]: numbers that come again with their seed.
//!
//! Never talks to a cluster, and shares no code with the store that it judges.

pub mod atomicity;
pub mod history;
pub mod linearizability;
pub mod moments;
pub mod picture;
pub mod random;
pub mod saved;
pub mod text;
pub mod valid;
pub mod verdict;
pub mod versions;

#[cfg(test)]
mod tests;
