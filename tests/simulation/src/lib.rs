//! A room full of Macs on a virtual clock: the real scheduler beside the policies it must beat.
//!
//! Owns a deterministic simulation of discrete events. Requests arrive (`workload`), nodes work (`node`), things break
//! (`faults`), a policy decides (`policy`, `mind`), and `world` carries it all out on a clock of microseconds. Between two
//! changes a node is advanced in closed form, so hours cost what their requests cost and idle ones nothing. An
//! [`experiment::Experiment`] says everything that decides the outcome; the same one twice gives the same bytes. Refuses the
//! wall's clock, the system's entropy and any policy of its own.
//!
//! The rooms, from facts to conclusions: `hardware` and `fleet` (how fast what runs where), `request` and `workload` (who asks
//! for what), `bounds` (what nobody can beat), `node`, `faults`, `world` (what happens), `policy` and `mind` (who decides),
//! `metrics` and `report` (what it came to), `experiment`, `presets` and `command` (how to ask).

#![warn(missing_docs)]

mod limits;
pub mod random;
pub mod hardware;
pub mod fleet;
pub mod request;
pub mod workload;
pub mod bounds;
mod cache;
mod node;
pub mod faults;
pub mod world;
pub mod policy;
pub mod mind;
pub mod metrics;
pub mod report;
pub mod experiment;
pub mod presets;
mod command;

pub use command::{Options, simulate};
