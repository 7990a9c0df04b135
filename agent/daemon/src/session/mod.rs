//! The session: one gRPC call to one coordinator, for as long as it is one.
//!
//! Owns opening it again and again, saying hello, reporting on every change and at least each second, and handing on what the
//! coordinator orders. Refuses to stop anything because the coordinator is gone: runtimes and running answers do not depend on
//! the session.

mod word;
mod tries;
mod channel;
mod cards;
mod gauge;
mod reports;

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context as _;
use proto::papers::Papers;
use proto::standing;
use proto::tls::{self, Mistrust};
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{AgentHello, AgentMessage, CoordinatorMessage, Welcome, agent_message, coordinator_message};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::address::Address;
use crate::agent::Input;
use crate::backoff::roll;
use crate::board::Board;
use crate::identity::{Tie, Ties};
use crate::limits;
use crate::runtimes::Told;
use crate::streams::Target;
use crate::wire;

use cards::Cards;
pub(crate) use channel::{anonymous, mutual};
pub(crate) use gauge::Gauge;
use tries::Tries;
pub(crate) use word::{Keeper, PairId, Word};

/// What all sessions have in common.
pub(crate) struct Common {
    pub(crate) papers: Papers,
    pub(crate) ties: Ties,
    pub(crate) hello: AgentHello,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) draining: CancellationToken,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) memory: Gauge,
}

pub(crate) struct Session {
    pub(crate) common: Arc<Common>,
    /// Of one and the same coordinator.
    pub(crate) addresses: watch::Receiver<Vec<Address>>,
    /// The coordinator took another session for this agent's latest.
    pub(crate) displaced: Arc<Notify>,
    pub(crate) targets: watch::Sender<Option<Target>>,
    pub(crate) keeper: Keeper,
}

impl Session {
    /// Opens a session whenever there is none, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.keep()).await;
    }

    /// Returns only when nobody keeps the coordinators any more.
    async fn keep(&self) -> anyhow::Result<Infallible> {
        let (mut tries, mut told) = (Tries::new(), Told::default());
        let mut addresses = self.addresses.clone();
        loop {
            let address = tries.address(&addresses.borrow_and_update()).cloned();
            let Some(address) = address else {
                addresses.changed().await?;
                continue;
            };
            let Err(error) = self.converse(&address, &mut tries, &mut told).await;
            tracing::info!(%address, "session lost: {error:#}");
            if error.chain().any(says_revoked) {
                self.keeper.tell(Word::Revoked).await?;
            } else if !error.is::<Displaced>() {
                self.keeper.tell(Word::Lost { words: format!("{error:#}{}", advice(&error)) }).await?;
            }
            // Another address is a reason to try at once.
            if let Ok(changed) = timeout(tries.lost(roll()), addresses.changed()).await {
                changed?;
            }
        }
    }

    /// One session, which ends only by breaking. When another authority signs, it goes on in another connection, under the new
    /// certificate: the former one ends when that is open, so that the coordinator never misses this Mac.
    async fn converse(
        &self,
        address: &Address,
        tries: &mut Tries,
        told: &mut Told,
    ) -> anyhow::Result<Infallible> {
        let mut turns = self.common.papers.turns();
        let mut opened = self.open(address, tries).await?;
        loop {
            tokio::select! {
                ended = self.hold(address, &mut opened, told) => return ended,
                Ok(()) = turns.changed() => opened = self.open(address, tries).await?,
            }
        }
    }

    async fn open(&self, address: &Address, tries: &mut Tries) -> anyhow::Result<Opened> {
        let common = &self.common;
        let tie = common.ties.tie(common.papers.authority());
        let channel = mutual(address, &common.papers).await;
        let channel = channel.with_context(|| format!("connecting to {address}"))?;
        let mut client = ClusterClient::new(channel.clone());
        let (outbox, outgoing) = mpsc::channel(limits::SESSION_OUTBOX);
        let hello = AgentMessage { message: Some(agent_message::Message::Hello(common.hello.clone())) };
        outbox.send(hello).await.context("saying hello")?;
        let opened = timeout(limits::SESSION_OPEN, client.session(ReceiverStream::new(outgoing))).await;
        let mut orders =
            opened.context("the coordinator does not answer the hello")?.map_err(refused)?.into_inner();
        let welcome = welcome(&mut orders).await?;
        tries.opened(address);
        let may = self.keeper.welcomed(address.clone(), welcome.clone()).await?;
        anyhow::ensure!(may, "{address} is another coordinator's, or one that has a session already");
        self.retarget(address, &welcome)?;
        Ok(Opened { orders, channel, outbox, _tie: tie })
    }

    async fn hold(
        &self,
        address: &Address,
        opened: &mut Opened,
        told: &mut Told,
    ) -> anyhow::Result<Infallible> {
        let Opened { orders, channel, outbox, .. } = opened;
        tokio::select! {
            ended = self.obey(address, orders, channel.clone()) => ended,
            ended = reports::send(&self.common, told, outbox.clone()) => ended,
            () = self.displaced.notified() => Err(Displaced.into()),
        }
    }

    async fn obey(
        &self,
        address: &Address,
        orders: &mut Streaming<CoordinatorMessage>,
        channel: Channel,
    ) -> anyhow::Result<Infallible> {
        let mut cards = Cards::new(channel);
        loop {
            let order =
                orders.message().await.map_err(refused)?.context("the coordinator ended the session")?;
            match order.message {
                Some(coordinator_message::Message::Wanted(wanted)) => {
                    let version = wire::version(wanted.version);
                    let wishes = wanted.models.into_iter().filter_map(wire::wanted).collect();
                    let input = Input::Wanted { version, wishes };
                    self.common.inputs.send(input).await.context("the agent stops")?;
                }
                Some(coordinator_message::Message::CardWanted(wanted)) => {
                    let board = self.common.board.borrow().clone();
                    let card = board.models.get(&wanted.model).and_then(|entry| entry.card.clone());
                    cards.put(card.filter(|card| card.digest == wanted.card_digest));
                }
                Some(coordinator_message::Message::Welcome(welcome)) => self.retarget(address, &welcome)?,
                Some(coordinator_message::Message::Coordinators(list)) => {
                    self.keeper.tell(Word::Coordinators(list)).await?;
                }
                Some(coordinator_message::Message::Authorities(word)) => {
                    self.keeper.tell(Word::Authorities(word)).await?;
                }
                // An order of a later version; what matters comes again in words we know.
                None => {}
            }
        }
    }

    fn retarget(&self, address: &Address, welcome: &Welcome) -> anyhow::Result<()> {
        let port = u16::try_from(welcome.stream_port).context("the coordinator's stream port is no port")?;
        self.targets.send_modify(|target| {
            let session = target.as_ref().map_or(0, |target| target.session) + 1;
            *target = Some(Target { host: address.host.clone(), port, session });
        });
        Ok(())
    }
}

/// One that was welcomed.
struct Opened {
    orders: Streaming<CoordinatorMessage>,
    channel: Channel,
    outbox: mpsc::Sender<AgentMessage>,
    _tie: Tie,
}

/// Opened anew at once: nobody is lost.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator took another session for the latest")]
struct Displaced;

async fn welcome(orders: &mut Streaming<CoordinatorMessage>) -> anyhow::Result<Welcome> {
    let first = timeout(limits::SESSION_TIMEOUT, orders.message()).await;
    let first = first.context("no welcome arrived")?.map_err(refused)?;
    match first.and_then(|order| order.message) {
        Some(coordinator_message::Message::Welcome(welcome)) => Ok(welcome),
        Some(
            coordinator_message::Message::Wanted(_)
            | coordinator_message::Message::CardWanted(_)
            | coordinator_message::Message::Coordinators(_)
            | coordinator_message::Message::Authorities(_),
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

/// The last word of any coordinator: the registry says so, and it never takes it back.
fn says_revoked(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<Status>().is_some_and(standing::is_revoked)
}

/// What a person can do about it; nothing about a network that comes and goes.
fn advice(error: &anyhow::Error) -> &'static str {
    let unknown = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<Status>().is_some_and(|status| status.code() == Code::PermissionDenied)
    };
    if error.chain().any(unknown) {
        ". To join anew, remove the folder `identity` of this agent and start it with a new --token"
    } else {
        match error.chain().find_map(tls::mistrust) {
            Some(Mistrust::Theirs) => {
                ". It is not the cluster this Mac joined, or its authority was rotated while this Mac was away: start the agent \
                 with --token of the new one, which `mlx-serving token create` prints there"
            }
            Some(Mistrust::Ours) => {
                ". This Mac's certificate is not taken any more, because the cluster's authority was rotated: start the agent with \
                 --token of a new one, which `mlx-serving token create` prints there"
            }
            None => "",
        }
    }
}
