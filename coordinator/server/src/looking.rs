//! What the leader shows, on every coordinator.
//!
//! Owns both ends of `Look`: one that does not lead asks the one that does, and shows what it says. Refuses to guess: where nobody
//! answers in time there is no picture.

use consensus::Consensus;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::look_request::Subject as Wanted;
use proto::v1::{LookReply, LookRequest};
use tokio::sync::watch;
use tonic::Status;

use crate::doors::Door;
use crate::fleet::Fleet;
use crate::leader::{QueueView, Subject};
use crate::leading::Leading;
use crate::limits;
use crate::peers::Peers;
use crate::seal::Sealing;

/// The way to the leader, here or elsewhere.
#[derive(Clone)]
pub(crate) struct Looking {
    pub(crate) consensus: Consensus,
    /// The scheduler's loop, while this coordinator leads.
    pub(crate) leading: watch::Receiver<Option<Leading>>,
    pub(crate) peers: Peers,
    pub(crate) fleet: Fleet,
    pub(crate) sealing: Sealing,
    pub(crate) door: Door,
}

impl Looking {
    /// Empty while nobody leads.
    pub(crate) async fn queue(&self) -> QueueView {
        let leading = self.leading.borrow().clone();
        if let Some(leading) = leading {
            return leading.leader.view().await;
        }
        let told = self.ask(Wanted::Queue(true)).await;
        told.ok().and_then(|told| serde_json::from_slice(&told.queue).ok()).unwrap_or_default()
    }

    /// In the scheduler's words; `None` where it knows nothing.
    pub(crate) async fn explain(&self, subject: Subject) -> Option<String> {
        let leading = self.leading.borrow().clone();
        if let Some(leading) = leading {
            return leading.leader.explain(subject).await;
        }
        let wanted = match subject {
            Subject::Request(request) => Wanted::Request(request),
            Subject::Model(model) => Wanted::Model(model),
            Subject::Node(node) => Wanted::Node(node),
        };
        match self.ask(wanted).await {
            Ok(told) => told.words,
            Err(why) => {
                Some(format!("The coordinator that leads cannot be asked: {why}. Ask again in a moment."))
            }
        }
    }

    /// Another coordinator asks. What only a leader knows, one that does not lead refuses.
    pub(crate) async fn answer(&self, asked: LookRequest) -> Result<LookReply, Status> {
        if let Some(Wanted::Reached(_)) = asked.subject {
            let reached = u32::try_from(self.fleet.reached().await).unwrap_or(u32::MAX);
            let speaks = Some(self.consensus.speaks().0);
            let seal_key_id = self.sealing.id();
            let api = self.door.open().map(|api| api.to_string());
            return Ok(LookReply {
                reached: Some(reached),
                speaks,
                seal_key_id,
                api,
                ..LookReply::default()
            });
        }
        let leading = self.leading.borrow().clone();
        let leader =
            leading.ok_or_else(|| Status::failed_precondition("this coordinator does not lead"))?.leader;
        let subject = match asked.subject {
            Some(Wanted::Queue(_)) => {
                let queue = serde_json::to_vec(&leader.view().await);
                let queue = queue.map_err(|error| Status::internal(error.to_string()))?;
                return Ok(LookReply { queue, ..LookReply::default() });
            }
            Some(Wanted::Request(request)) => Subject::Request(request),
            Some(Wanted::Model(model)) => Subject::Model(model),
            Some(Wanted::Node(node)) => Subject::Node(node),
            Some(Wanted::Reached(_)) | None => {
                return Err(Status::invalid_argument("nothing that this release can show"));
            }
        };
        Ok(LookReply { words: leader.explain(subject).await, ..LookReply::default() })
    }

    async fn ask(&self, subject: Wanted) -> Result<LookReply, String> {
        let leadership = self.consensus.leadership().borrow().clone();
        let (Some(leader), Some(address)) = (leadership.leader, leadership.address) else {
            return Err("nobody leads at present".to_owned());
        };
        let asking = async {
            let channel = self.peers.connect(leader, &address).await?;
            let reply = ClusterClient::new(channel).look(LookRequest { subject: Some(subject) }).await;
            reply.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
        };
        tokio::time::timeout(limits::PEER_CONNECT, asking).await.map_err(|_| "no answer".to_owned())?
    }
}
