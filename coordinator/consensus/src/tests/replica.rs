//! A replica on a real folder, through its public handle.

use std::os::unix::fs::PermissionsExt;

use openraft::{Entry, EntryPayload};
use registry::{ClusterId, Command, Registry};

use super::commands::{founding, get, set};
use crate::error::{OpenError, ProposeError, ReadError};
use crate::handle::Consensus;
use crate::limits;
use crate::options::{Options, ReplicaId, Start};
use crate::raft::types::{LogId, Proposal, Types};

async fn open(folder: &std::path::Path) -> Consensus {
    Consensus::open(folder, Options::default(), Start::Found).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_folder_founds_a_group_that_leads_itself_and_answers() {
    let temporary = tempfile::tempdir().unwrap();
    let replica = open(&temporary.path().join("new/folder")).await;
    let health = replica.health();
    assert!(health.leader && health.term > 0 && health.fatal.is_none(), "{health:?}");
    assert_eq!(health.applied_index, health.last_log_index);
    assert_eq!(health.snapshot_index, None);
    assert_eq!(replica.read(Registry::clone).await.unwrap(), Registry::default());
    replica.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_been_answered_is_in_the_local_registry_and_in_the_channel_of_changes() {
    let temporary = tempfile::tempdir().unwrap();
    let replica = open(temporary.path()).await;
    let mut changes = replica.changes();
    let mut model = Registry::default();
    for command in founding().into_iter().chain((0..50).map(|value| set(value % 5, value))) {
        let reply = replica.propose(command.clone()).await.unwrap();
        assert_eq!(reply, model.apply(&command));
        assert_eq!(*replica.local(), model);
        assert!(changes.has_changed().unwrap());
        assert_eq!(**changes.borrow_and_update(), model);
    }
    assert_eq!(replica.read(|registry| get(registry, 4)).await.unwrap(), Some(49));
    replica.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_proposed_at_once_by_many_all_take_effect() {
    let temporary = tempfile::tempdir().unwrap();
    let replica = open(temporary.path()).await;
    for command in founding() {
        replica.propose(command).await.unwrap();
    }
    let proposing = (0..64).map(|register| {
        let replica = replica.clone();
        tokio::spawn(async move { replica.propose(set(register, register)).await })
    });
    for proposed in proposing.collect::<Vec<_>>() {
        proposed.await.unwrap().unwrap();
    }
    let registry = replica.local();
    assert!((0..64).all(|register| get(&registry, register) == Some(register)));
    replica.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_is_refused_with_the_holder_and_is_free_after_shutdown() {
    let temporary = tempfile::tempdir().unwrap();
    let replica = open(temporary.path()).await;
    let error = Consensus::open(temporary.path(), Options::default(), Start::Found).await.err().unwrap();
    let text = error.to_string();
    assert!(
        matches!(error, OpenError::Locked { holder: Some(pid), .. } if pid == std::process::id()),
        "{text}"
    );
    assert!(text.contains("stop that process first"), "{text}");
    let other = replica.clone();
    replica.shutdown().await.unwrap();
    assert!(matches!(other.propose(set(0, 0)).await, Err(ProposeError::Stopped(_))));
    assert!(matches!(other.read(|_| ()).await, Err(ReadError::Stopped(_))));
    assert!(other.health().fatal.is_some());
    open(temporary.path()).await.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_and_everything_in_it_is_private() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let replica = open(&folder).await;
    replica.propose(founding().remove(0)).await.unwrap();
    replica.snapshot().await.unwrap();
    replica.shutdown().await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut names = Vec::new();
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["lock", "log-000000000001", "mark", "snapshot", "vote"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_larger_than_a_record_is_refused_and_nothing_else_happens() {
    let temporary = tempfile::tempdir().unwrap();
    let replica = open(temporary.path()).await;
    let log = replica.health().last_log_index;
    let command = Command::FoundCluster {
        cluster: ClusterId("large".to_owned()),
        ca_certificate_pem: "x".repeat(limits::COMMAND_BYTES_MAX),
        ca_key_pem: String::new(),
        at_unix_ms: 0,
    };
    let error = replica.propose(command).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooLarge { .. }), "{error}");
    assert_eq!(replica.health().last_log_index, log);
    replica.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_opened_under_another_id_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    open(temporary.path()).await.shutdown().await.unwrap();
    let options = Options { replica: ReplicaId(2), ..Options::default() };
    let error = Consensus::open(temporary.path(), options, Start::Found).await.err().unwrap();
    assert!(matches!(error, OpenError::OtherReplica { found: 1, wanted: 2 }), "{error}");
}

#[test]
fn an_entry_as_openraft_prints_it_shows_no_key() {
    let log_id = LogId { leader_id: openraft::vote::leader_id_std::CommittedLeaderId::new(1), index: 3 };
    let entry: openraft::type_config::alias::EntryOf<Types> =
        Entry { log_id, payload: EntryPayload::Normal(Proposal(founding().remove(0))) };
    let shown = format!("{entry} {entry:?}");
    assert!(shown.contains('3') && !shown.contains("canary-key-material"), "{shown}");
}
