//! openraft's own conformance suite for storage, on real folders.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::options::ReplicaId;
use crate::raft::log_store::{self, LogStore};
use crate::raft::state_machine::StateMachine;
use crate::raft::types::Types;
use crate::wal::folder::Folder;
use crate::wal::log::Rotation;

struct FreshFolders;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for FreshFolders {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let temporary = tempfile::tempdir().unwrap();
        let (folder, _released) = Folder::lock(temporary.path()).unwrap();
        let stores = log_store::read(folder, ReplicaId(0), Rotation::default()).unwrap();
        Ok((temporary, stores.log, stores.state_machine))
    }
}

#[test]
fn the_store_passes_the_conformance_suite_of_openraft() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(FreshFolders)).unwrap();
}
