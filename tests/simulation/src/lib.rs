//! A room full of Macs on a virtual clock: the real scheduler beside the policies it must beat.

mod limits;
pub mod random;
pub mod hardware;
pub mod fleet;
pub mod request;
mod cache;
mod node;
pub mod bounds;
pub mod workload;
pub mod faults;
pub mod policy;
pub mod world;
pub mod mind;
pub mod metrics;
pub mod report;
pub mod experiment;
pub mod presets;
mod command;

pub use command::{Options, simulate};
