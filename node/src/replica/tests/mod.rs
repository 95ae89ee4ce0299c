//! What replicas do: golden scripts (`scripts/*`, run by `script`), and chains under random schedules (`random`).
//!
//! Both drive the shipped `step` in a `world` of replicas, disks and links without time or threads.

mod disk;
mod random;
mod script;
mod world;
