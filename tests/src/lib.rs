//! What the whole-system tests are made of. Nothing here is shipped.
//!
//! - [`process`]: clusters of the real binaries: spawn, kill, pause, restart, ask.
//! - [`load`]: clients that read and write at once. What they saw, on one clock, is a [`history`]; [`versions`] judges it by
//!   the versions in it. Both are those of the command line.
//! - [`sim`]: whole clusters on one thread in virtual time, from a seed; [`invariants`]: what always holds in them.
//! - [`model`]: the smallest chains, explored to the end: every order of all that can happen.
//! - [`hostile`]: every decoder of bytes from outside, as a function of any bytes.
//! - [`proxy`], [`netns`]: networks that can be cut; [`s3`]: an object store that goes wrong as it is told to.
//!
//! The tests themselves are in `tests/tests/`.

pub mod hostile;
pub mod invariants;
pub mod load;
pub mod model;
pub mod netns;
pub mod process;
pub mod proxy;
pub mod s3;
pub mod sim;

pub use craq_client::check::{history, versions};
