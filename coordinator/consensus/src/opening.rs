//! From a folder to a running replica.
//!
//! A group of one is ready when it leads and has applied its log; nobody can keep it from that but its own disk. A member of a
//! larger group is ready when its log is recovered: it waits a moment to hear who leads, and comes up without, because a
//! process that hangs until a majority is there cannot even say what is missing.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use openraft::metrics::WaitError;
use openraft::{Raft, RaftMetrics, ServerState};
use registry::Registry;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::timeout;

use crate::error::OpenError;
use crate::options::{Options, ReplicaId, Start};
use crate::raft::config;
use crate::raft::door::Door;
use crate::raft::link::Links;
use crate::raft::log_store;
use crate::raft::network::{self, Network};
use crate::raft::types::{Member, Types};
use crate::replica::Replica;
use crate::room::{self, Room};
use crate::speech::{self, Speech};
use crate::wal::ballast::Ballasted;
use crate::wal::erasure::Erasure;
use crate::wal::folder::Folder;
use crate::wal::hands::Hands;
use crate::{erasing, leadership, limits};

/// Opens the replica; where that fails, the folder is free again when the caller reads the error.
pub(crate) async fn open(
    folder: Folder,
    released: watch::Receiver<bool>,
    options: Options,
    start: Start,
) -> Result<Arc<Replica>, OpenError> {
    let mut on_release = released.clone();
    let opened = match run(folder, released, options).await {
        Ok(Running { replica, disk, hands, room, found, erasure }) => match ready(&replica, start).await {
            Ok(()) => {
                let replica = Arc::new(replica);
                speech::keep_sealed(&replica, found.cluster_version());
                erasing::keep(&replica, &found, erasure);
                room::follow(&replica, (disk, hands), room);
                return Ok(replica);
            }
            Err(error) => {
                replica.raft.shutdown().await.ok();
                Err(error)
            }
        },
        Err(error) => Err(error),
    };
    timeout(limits::RELEASE_WAIT, on_release.wait_for(|released| *released)).await.ok();
    opened
}

struct Running {
    replica: Replica,
    disk: Ballasted,
    hands: Hands,
    room: watch::Sender<Room>,
    /// The facts of the snapshot on the disk.
    found: Arc<Registry>,
    erasure: Erasure,
}

async fn run(
    folder: Folder,
    released: watch::Receiver<bool>,
    options: Options,
) -> Result<Running, OpenError> {
    let hands = folder.hands();
    let (folder, disk) = folder.ballasted(limits::BALLAST_BYTES);
    let speech = Arc::new(Speech::up_to(options.speaks));
    let stores = log_store::open(folder, options.replica, Arc::clone(&speech)).await?;
    let found = stores.published.borrow().clone();
    let erasure = stores.erasure;
    let links = Arc::new(Links::new(Arc::clone(&options.dial)));
    let door = Arc::new(Door {
        replica: options.replica,
        heard: Arc::default(),
        published: stores.published.clone(),
        applied_index: stores.applied_index.clone(),
        speech: Arc::clone(&speech),
    });
    let network = Network { links: Arc::clone(&links), door: Arc::clone(&door) };
    let raft = Raft::new(options.replica, config::of(&options), network, stores.log, stores.state_machine)
        .await
        .map_err(|fatal| stopped(&fatal))?;
    let gone_after = options.leader_silence.saturating_mul(limits::LEADER_GONE_HALVES) / 2;
    network::follow_addresses(&raft, Arc::clone(&links));
    let (to_room, room) = watch::channel(Room::UNKNOWN);
    let replica = Replica {
        leadership: leadership::follow(&raft, Arc::clone(&door.heard), gone_after),
        raft,
        id: options.replica,
        address: options.address,
        published: stores.published,
        applied_index: stores.applied_index,
        released,
        links,
        door,
        in_flight: Semaphore::new(options.proposals_in_flight_max),
        in_flight_max: options.proposals_in_flight_max,
        changing: Mutex::default(),
        room,
        speech,
    };
    Ok(Running { replica, disk, hands, room: to_room, found, erasure })
}

/// Founds what is to be founded, and waits for as much as can be waited for.
async fn ready(replica: &Replica, start: Start) -> Result<(), OpenError> {
    let raft = &replica.raft;
    if !raft.is_initialized().await.map_err(|fatal| stopped(&fatal))? {
        if start == Start::Join {
            return Ok(());
        }
        let member = Member { address: replica.address.clone() };
        let members = BTreeMap::from([(replica.id, member)]);
        raft.initialize(members).await.map_err(|error| stopped(&error))?;
        return lead_alone(replica).await;
    }
    let voters = raft.with_raft_state(|state| -> Vec<ReplicaId> {
        state.membership_state.effective().voter_ids().collect()
    });
    let voters = voters.await.map_err(|fatal| stopped(&fatal))?;
    // A newcomer has a vote from the first word of a leader on, and learns of the group with what it is sent after that.
    if voters.is_empty() && start == Start::Join {
        return Ok(());
    }
    let id = replica.id;
    if voters.iter().all(|voter| *voter == id) {
        // There is nobody to wait for.
        raft.trigger().elect(false).await.map_err(|fatal| stopped(&fatal))?;
        return lead_alone(replica).await;
    }
    let mut leadership = replica.leadership.clone();
    let known = leadership.wait_for(|leadership| leadership.leader.is_some());
    if timeout(limits::OPEN_LEADER_WAIT, known).await.is_err() {
        tracing::warn!(replica = id.0, "no majority of the coordinators is there yet; nobody leads");
    }
    Ok(())
}

/// Waiting for leadership alone is not enough: right after founding, openraft shows a leader of term 0 that still steps down.
async fn lead_alone(replica: &Replica) -> Result<(), OpenError> {
    let leads = |metrics: &RaftMetrics<Types>| {
        let applied = metrics.last_applied.map(|id| id.index);
        metrics.state == ServerState::Leader && applied >= Some(1) && applied == metrics.last_log_index
    };
    let waited =
        replica.raft.wait(Some(limits::OPEN_WAIT)).metrics(leads, "leading, with the log applied").await;
    waited.map_err(|error| match error {
        WaitError::Timeout(after, why) => OpenError::NotReady { waited_s: after.as_secs(), why },
        WaitError::ShuttingDown => OpenError::Stopped(replica.stop_reason()),
    })?;
    // The leader is in the channel as well when the caller looks.
    let mut leadership = replica.leadership.clone();
    timeout(limits::OPEN_WAIT, leadership.wait_for(|leadership| leadership.is_self)).await.ok();
    Ok(())
}

fn stopped(error: &dyn Display) -> OpenError {
    OpenError::Stopped(error.to_string())
}
