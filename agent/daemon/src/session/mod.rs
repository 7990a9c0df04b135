//! The session: one gRPC call to the coordinator, for the life of the agent.
//!
//! Owns opening it again and again, saying hello, reporting on every change and at least each second, and handing on what the
//! coordinator orders. Refuses to stop anything because the coordinator is gone: runtimes and running answers do not depend on
//! the session.

mod channel;
mod cards;
mod reports;

use std::sync::Arc;

use anyhow::Context as _;
use proto::tls::Credentials;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{AgentHello, AgentMessage, CoordinatorMessage, Welcome, agent_message, coordinator_message};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::agent::Input;
use crate::backoff::{Backoff, roll};
use crate::board::Board;
use crate::limits;
use crate::notice::{Notice, Notices};
use crate::streams::Target;
use crate::wire;

use cards::Cards;
pub(crate) use channel::{Address, joining_channel};

pub(crate) struct Session {
    pub(crate) address: Address,
    pub(crate) credentials: Credentials,
    pub(crate) hello: AgentHello,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) draining: CancellationToken,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) targets: watch::Sender<Option<Target>>,
    pub(crate) notices: Notices,
}

impl Session {
    /// Opens a session whenever there is none, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&self) {
        let mut backoff = Backoff::new(limits::BACKOFF_FIRST, limits::BACKOFF_MOST);
        let mut telling = Telling { notices: self.notices.clone(), joined: false, lost: false };
        loop {
            let Err(error) = self.converse(&mut backoff, &mut telling).await;
            tracing::info!("session lost: {error:#}");
            telling.lost(&error);
            sleep(backoff.delay(roll())).await;
        }
    }

    /// One session, which ends only by breaking.
    async fn converse(
        &self,
        backoff: &mut Backoff,
        telling: &mut Telling,
    ) -> Result<std::convert::Infallible, anyhow::Error> {
        let channel = channel::mutual(&self.address, &self.credentials)?.connect().await;
        let channel = channel.with_context(|| format!("connecting to {}", self.address))?;
        let mut client = ClusterClient::new(channel.clone());
        let (outbox, outgoing) = mpsc::channel(limits::SESSION_OUTBOX);
        let hello = AgentMessage { message: Some(agent_message::Message::Hello(self.hello.clone())) };
        outbox.send(hello).await.context("saying hello")?;
        let opened = timeout(limits::SESSION_OPEN, client.session(ReceiverStream::new(outgoing))).await;
        let mut orders =
            opened.context("the coordinator does not answer the hello")?.map_err(refused)?.into_inner();
        let welcome = welcome(&mut orders).await?;
        backoff.reset();
        telling.welcome(&welcome);
        self.retarget(&welcome)?;
        tokio::select! {
            ended = self.obey(&mut orders, channel) => ended,
            ended = reports::send(self.board.clone(), self.draining.clone(), outbox) => ended,
        }
    }

    async fn obey(
        &self,
        orders: &mut Streaming<CoordinatorMessage>,
        channel: Channel,
    ) -> Result<std::convert::Infallible, anyhow::Error> {
        let mut cards = Cards::new(channel);
        loop {
            let order =
                orders.message().await.map_err(refused)?.context("the coordinator ended the session")?;
            match order.message {
                Some(coordinator_message::Message::Wanted(wanted)) => {
                    let wishes = wanted.models.into_iter().filter_map(wire::wanted).collect();
                    self.inputs.send(Input::Wanted(wishes)).await.context("the agent stops")?;
                }
                Some(coordinator_message::Message::CardWanted(wanted)) => {
                    let board = self.board.borrow().clone();
                    let card = board.models.get(&wanted.model).and_then(|entry| entry.card.clone());
                    cards.put(card.filter(|card| card.digest == wanted.card_digest));
                }
                Some(coordinator_message::Message::Welcome(welcome)) => self.retarget(&welcome)?,
                // An order of a later version; what matters comes again in words we know.
                Some(coordinator_message::Message::Coordinators(_)) | None => {}
            }
        }
    }

    fn retarget(&self, welcome: &Welcome) -> anyhow::Result<()> {
        let port = u16::try_from(welcome.stream_port).context("the coordinator's stream port is no port")?;
        self.targets.send_modify(|target| {
            let session = target.as_ref().map_or(0, |target| target.session) + 1;
            *target = Some(Target { host: self.address.host.clone(), port, session });
        });
        Ok(())
    }
}

async fn welcome(orders: &mut Streaming<CoordinatorMessage>) -> anyhow::Result<Welcome> {
    let first = timeout(limits::SESSION_TIMEOUT, orders.message()).await;
    let first = first.context("no welcome arrived")?.map_err(refused)?;
    match first.and_then(|order| order.message) {
        Some(coordinator_message::Message::Welcome(welcome)) => Ok(welcome),
        Some(
            coordinator_message::Message::Wanted(_)
            | coordinator_message::Message::CardWanted(_)
            | coordinator_message::Message::Coordinators(_),
        )
        | None => {
            anyhow::bail!("the coordinator's first message is no welcome")
        }
    }
}

/// The coordinator's own words, without the rest of a status.
fn refused(status: Status) -> anyhow::Error {
    let words = format!("{:?}: {}", status.code(), status.message());
    anyhow::Error::new(status).context(words)
}

/// What the terminal was told last, so that it hears of changes only.
struct Telling {
    notices: Notices,
    joined: bool,
    lost: bool,
}

impl Telling {
    fn welcome(&mut self, welcome: &Welcome) {
        tracing::info!(node = welcome.node, cluster = %welcome.cluster, version = %welcome.version, "session opened");
        if !self.joined {
            self.joined = true;
            self.notices.tell(Notice::Joined { node: welcome.node, cluster: welcome.cluster.clone() });
        } else if self.lost {
            self.notices.tell(Notice::CoordinatorBack);
        }
        self.lost = false;
    }

    fn lost(&mut self, error: &anyhow::Error) {
        if !self.lost {
            self.lost = true;
            self.notices.tell(Notice::CoordinatorLost { words: format!("{error:#}{}", advice(error)) });
        }
    }
}

/// What a person can do about it; nothing about a network that comes and goes.
fn advice(error: &anyhow::Error) -> &'static str {
    let revoked = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<Status>().is_some_and(|status| status.code() == Code::PermissionDenied)
    };
    if error.chain().any(revoked) {
        ". To join anew, remove the folder `identity` of this agent and start it with a new --token"
    } else if error
        .chain()
        .filter_map(tls_error)
        .any(|error| matches!(error, rustls::Error::InvalidCertificate(_)))
    {
        ". It is not the cluster this Mac joined: start the agent with --token of the new one"
    } else {
        ""
    }
}

/// TLS hides its errors inside those of the transport.
fn tls_error(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref()).or(error.downcast_ref()).cloned()
}
