//! What replicas do: golden scripts (`scripts/*`, run by `script`), and chains under random schedules (`random`);
//! and whether both find the bugs that are planted for them.
//!
//! Both drive the shipped `step` in a `world` of replicas, disks and links without time or threads.

mod disk;
#[cfg(feature = "planted")]
mod planted;
mod random;
mod script;
mod world;
