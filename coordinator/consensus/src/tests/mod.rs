//! Tests of the whole crate: the real store on simulated disks that lose power, fail and flip bits, openraft's own
//! storage suite, and replicas on real folders.

mod generator;
pub(crate) mod dice;
pub(crate) mod clock;
pub(crate) mod sim_disk;
mod log_model;
mod commands;
mod log_crashes;
mod log_rules;
mod log_damage;
mod truncating;
mod store_damage;
mod faults;
mod memory;
mod state_machine;
mod storage_suite;
mod replica;
mod restarts;
mod kill;
mod net;
mod group;
mod growth;
mod versions;
mod erasing;
mod formats;
mod doors;
mod wires;
mod changes;
mod snapshots;
mod epochs;
mod history;
mod campaign;
mod nights;
mod partings;
mod losses;
