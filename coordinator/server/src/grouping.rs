//! The group of coordinators as administrators see and change it.
//!
//! Owns both ends of `ChangeGroup`: only the leader knows how far the others follow, and only it changes the group, so one that
//! does not lead passes the wish on, once. Refuses to decide what may be changed: that is the consensus's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use consensus::{ChangeError, Consensus, Even, MemberState, ReplicaId, Role};
use futures_util::future::BoxFuture;
use proto::v1::change_group_request::Change;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{ChangeGroupReply, ChangeGroupRequest, GroupMember};
use tokio::sync::Mutex;
use tonic::{Code, Status};

use crate::gateway::{Group, GroupError};
use crate::limits;
use crate::peers::Peers;

/// The way to whoever changes the group.
#[derive(Clone)]
pub(crate) struct Grouping {
    consensus: Consensus,
    peers: Peers,
    data_folder: PathBuf,
    backups: Arc<Mutex<()>>,
}

impl Group for Grouping {
    fn change(&self, wish: ChangeGroupRequest) -> BoxFuture<'_, Result<Vec<GroupMember>, GroupError>> {
        Box::pin(async move {
            let changed = if self.leads() { self.answer(wish).await } else { self.pass_on(wish).await };
            changed.map(|reply| reply.members).map_err(|status| {
                let why = status.message().to_owned();
                let refused = status.code() == Code::FailedPrecondition;
                if refused { GroupError::Refused(why) } else { GroupError::Unavailable(why) }
            })
        })
    }

    fn backup(&self) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async {
            let _one_at_a_time = self.backups.lock().await;
            // It holds the cluster's secrets: nowhere but beside them.
            let file = self.data_folder.join("backup.part");
            self.consensus.backup(&file).await.map_err(|error| error.to_string())?;
            let bytes = tokio::fs::read(&file).await.map_err(|error| error.to_string());
            let _ = tokio::fs::remove_file(&file).await;
            bytes
        })
    }
}

impl Grouping {
    /// Backups are made in the data folder.
    pub(crate) fn new(consensus: &Consensus, peers: &Peers, data_folder: &Path) -> Self {
        let (consensus, peers, data_folder) = (consensus.clone(), peers.clone(), data_folder.to_owned());
        Self { consensus, peers, data_folder, backups: Arc::default() }
    }

    /// Of the leader; any other one says that it is none.
    pub(crate) async fn answer(&self, wish: ChangeGroupRequest) -> Result<ChangeGroupReply, Status> {
        if !self.leads() {
            return Err(Status::unavailable("the coordinator that was asked does not lead any more"));
        }
        let even = if wish.even { Even::Allow } else { Even::Refuse };
        let changed = match wish.change {
            None => Ok(()),
            Some(Change::Promote(replica)) => self.consensus.promote(&[ReplicaId(replica)], even).await,
            Some(Change::Remove(replica)) => self.consensus.remove(&[ReplicaId(replica)], even).await,
            Some(Change::Replace(both)) => {
                self.consensus.replace(ReplicaId(both.old), ReplicaId(both.new)).await
            }
            Some(Change::Lead(replica)) => self.consensus.transfer(ReplicaId(replica)).await,
        };
        changed.map_err(|error| refused(&error))?;
        Ok(ChangeGroupReply { members: self.consensus.members().into_iter().map(member).collect() })
    }

    fn leads(&self) -> bool {
        self.consensus.leadership().borrow().is_self
    }

    async fn pass_on(&self, wish: ChangeGroupRequest) -> Result<ChangeGroupReply, Status> {
        let leadership = self.consensus.leadership().borrow().clone();
        let (Some(leader), Some(address)) = (leadership.leader, leadership.address) else {
            return Err(Status::unavailable("no coordinator leads at present"));
        };
        let asking = async {
            let channel = self.peers.connect(leader, &address).await.map_err(Status::unavailable)?;
            ClusterClient::new(channel).change_group(wish).await.map(tonic::Response::into_inner)
        };
        let asked = tokio::time::timeout(limits::CHANGE_GROUP, asking).await;
        asked.map_err(|_| Status::unavailable("the coordinator that leads does not answer"))?
    }
}

fn refused(error: &ChangeError) -> Status {
    match error {
        ChangeError::NotLeader { .. }
        | ChangeError::Slow
        | ChangeError::OutcomeUnknown(_)
        | ChangeError::Stopped(_) => Status::unavailable(error.to_string()),
        ChangeError::Refused(_)
        | ChangeError::NotAMember { .. }
        | ChangeError::AddressDiffers { .. }
        | ChangeError::Even { .. }
        | ChangeError::TooMany { .. }
        | ChangeError::NoneLeft
        | ChangeError::Behind { .. }
        | ChangeError::Silent { .. }
        | ChangeError::NoMajority { .. } => Status::failed_precondition(error.to_string()),
    }
}

fn member(state: MemberState) -> GroupMember {
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    GroupMember {
        replica: state.replica.0,
        address: state.address,
        voter: state.role == Role::Voter,
        leader: state.leader,
        lag: state.lag,
        silent_ms: state.last_contact.map(millis),
    }
}
