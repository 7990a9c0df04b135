//! Everything that speaks openraft: its types, its storage traits over our write-ahead log, its state machine
//! over the registry, its network. Nothing here touches a file; `wal/` does.

pub(crate) mod types;
pub(crate) mod config;
pub(crate) mod log_store;
pub(crate) mod log_memory;
pub(crate) mod state_machine;
pub(crate) mod wire;
pub(crate) mod door;
pub(crate) mod link;
pub(crate) mod append;
pub(crate) mod snapshot_pieces;
pub(crate) mod network;
pub(crate) mod service;
