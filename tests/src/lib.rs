//! What the whole-system tests are made of. Nothing here is shipped.
//!
//! - [`process`]: clusters of the real binaries: spawn, kill, pause, restart, ask.
//! - [`load`]: clients that read and write at once; [`history`]: all that they saw, on one clock.
//! - [`versions`]: judges a history by the versions in it; says what a strongly consistent store can't have answered.
//! - [`sim`]: whole clusters on one thread in virtual time, from a seed; [`invariants`]: what always holds in them.
//! - [`hostile`]: every decoder of bytes from outside, as a function of any bytes.
//! - [`proxy`], [`netns`]: networks that can be cut.
//!
//! The tests themselves are in `tests/tests/`.

pub mod history;
pub mod hostile;
pub mod invariants;
pub mod load;
pub mod netns;
pub mod process;
pub mod proxy;
pub mod sim;
pub mod versions;
