//! The agents as the coordinator sees them now: who is connected, what each holds, in which state.
//!
//! Owns the latest report of each node and turns it into two views: what the scheduler may use (a node with a live session, a
//! live stream connection and a ready model) and the catalogue the gateway answers from. Refuses to guess: a node that is
//! not fully connected offers nothing, and two nodes that hold different tokenizers under one name are not mixed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::v1::{
    AgentHello, AgentReport, CardWanted, CoordinatorMessage, ModelState, ModelStatus, coordinator_message,
};
use registry::{ModelName, Registry};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;

use crate::cards::Cards;
use crate::catalogue::{Catalogue, Model};
use crate::clock::unix_ms;
use crate::leader::{Leader, NodeNews};
use crate::limits;
use crate::news;
use crate::streams::{Link, Streams};

/// One agent.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) hello: AgentHello,
    pub(crate) report: AgentReport,
    pub(crate) last_seen: Instant,
    /// `None` while no session is open.
    orders: Option<mpsc::Sender<CoordinatorMessage>>,
    session: u64,
    /// It has reported in this session.
    reported: bool,
    /// What it was started with and is to be loaded if there is room.
    pub(crate) unplaced: BTreeSet<ModelName>,
    /// The process of each model whose load time the leader knows.
    pub(crate) loads_told: BTreeMap<String, u32>,
}

/// Shared by the sessions and the stream endpoint. One lock, held across the hand-over to the leader, keeps a node's
/// reports in order.
#[derive(Clone)]
pub(crate) struct Fleet {
    state: Arc<Mutex<State>>,
    streams: Streams,
    cards: Cards,
    catalogue: Catalogue,
}

#[derive(Default)]
struct State {
    /// The scheduler's loop, while this coordinator leads.
    leader: Option<Leader>,
    nodes: BTreeMap<u64, Node>,
    sessions: u64,
    /// Models wanted by the registry, present or not.
    wanted: Vec<String>,
    known_since_unix_s: BTreeMap<String, u64>,
}

impl Fleet {
    pub(crate) fn new(streams: Streams, cards: Cards, catalogue: Catalogue) -> Self {
        Self { state: Arc::default(), streams, cards, catalogue }
    }

    /// Until nobody tells of links any more.
    pub(crate) async fn follow_links(self, mut events: mpsc::Receiver<Link>) {
        while let Some(event) = events.recv().await {
            match event {
                Link::Up { node } => self.link_changed(node, true).await,
                Link::Down { node } => self.link_changed(node, false).await,
            }
        }
    }

    /// Until the registry has stopped.
    pub(crate) async fn follow_registry(self, mut changes: watch::Receiver<Arc<Registry>>) {
        loop {
            let registry = changes.borrow_and_update().clone();
            self.registry_changed(&registry).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// This coordinator leads, or leads no more. A new leader hears at once of all that is connected.
    pub(crate) async fn lead(&self, leader: Option<Leader>, registry: &Arc<Registry>) {
        let mut state = self.state.lock().await;
        state.leader = leader;
        for node in state.nodes.values_mut() {
            node.loads_told.clear();
        }
        let Some(leader) = &state.leader else { return };
        leader.registry(registry.clone()).await;
        let nodes: Vec<u64> = state.nodes.keys().copied().collect();
        for node in nodes {
            self.publish(&mut state, node).await;
        }
    }

    /// An agent said hello; returns the number of this session.
    pub(crate) async fn opened(
        &self,
        node: u64,
        hello: AgentHello,
        orders: mpsc::Sender<CoordinatorMessage>,
        unplaced: BTreeSet<ModelName>,
    ) -> u64 {
        let mut state = self.state.lock().await;
        state.sessions += 1;
        let session = state.sessions;
        let entry = Node {
            hello,
            report: AgentReport::default(),
            last_seen: Instant::now(),
            orders: Some(orders),
            session,
            reported: false,
            unplaced,
            loads_told: BTreeMap::new(),
        };
        state.nodes.insert(node, entry);
        session
    }

    /// The latest truth of a node. A report of a session that was replaced is dropped.
    pub(crate) async fn reported(&self, node: u64, session: u64, report: AgentReport) {
        let mut state = self.state.lock().await;
        let Some(entry) = state.nodes.get_mut(&node).filter(|entry| entry.session == session) else { return };
        entry.report = report;
        entry.reported = true;
        entry.last_seen = Instant::now();
        self.publish(&mut state, node).await;
    }

    pub(crate) async fn closed(&self, node: u64, session: u64) {
        let mut state = self.state.lock().await;
        let Some(entry) = state.nodes.get_mut(&node).filter(|entry| entry.session == session) else { return };
        entry.orders = None;
        self.publish(&mut state, node).await;
    }

    /// The stream connection of a node came or went.
    pub(crate) async fn link_changed(&self, node: u64, up: bool) {
        let mut state = self.state.lock().await;
        if up {
            self.publish(&mut state, node).await;
        } else {
            if let Some(leader) = &state.leader {
                leader.node_lost(node).await;
            }
            self.rebuild_catalogue(&mut state);
        }
    }

    /// The registry changed: other models may be wanted, and a revoked node loses its streams at once.
    pub(crate) async fn registry_changed(&self, registry: &Arc<Registry>) {
        let revoked = registry.nodes().filter(|(_, node)| node.revoked).map(|(id, _)| id.0);
        revoked.for_each(|node| self.streams.disconnect(node));
        let mut state = self.state.lock().await;
        state.wanted = registry.wanted_models().map(ToString::to_string).collect();
        self.rebuild_catalogue(&mut state);
        if let Some(leader) = &state.leader {
            leader.registry(registry.clone()).await;
        }
    }

    /// A card arrived: nodes that waited for it become usable.
    pub(crate) async fn card_arrived(&self) {
        let mut state = self.state.lock().await;
        let nodes: Vec<u64> = state.nodes.keys().copied().collect();
        for node in nodes {
            self.publish(&mut state, node).await;
        }
    }

    pub(crate) async fn nodes(&self) -> BTreeMap<u64, (Node, bool)> {
        let state = self.state.lock().await;
        state.nodes.iter().map(|(id, node)| (*id, (node.clone(), self.usable(*id, node)))).collect()
    }

    /// How many agents this coordinator can use and has heard of late: sooner than a broken connection shows.
    pub(crate) async fn reached(&self) -> usize {
        let state = self.state.lock().await;
        let heard = |node: &Node| node.last_seen.elapsed() <= limits::HEARD_OF_LATE;
        state.nodes.iter().filter(|(id, node)| self.usable(**id, node) && heard(node)).count()
    }

    async fn publish(&self, state: &mut State, node: u64) {
        self.rebuild_catalogue(state);
        let leader = state.leader.clone();
        let Some(entry) = state.nodes.get_mut(&node) else { return };
        self.ask_for_cards(entry);
        let Some(leader) = leader else { return };
        if self.usable(node, entry) {
            leader.reported(node, news::of(entry, &self.catalogue)).await;
        } else if entry.orders.is_none() && self.streams.connected(node) {
            // Nothing new is sent to a node that says nothing more; what runs there may end.
            let (name, life) = (entry.hello.name.clone(), entry.hello.life);
            leader.reported(node, NodeNews { name, life, ..NodeNews::default() }).await;
        }
    }

    fn usable(&self, id: u64, node: &Node) -> bool {
        node.reported && node.orders.is_some() && self.streams.connected(id)
    }

    fn ask_for_cards(&self, node: &Node) {
        let Some(orders) = &node.orders else { return };
        for model in node.report.models.iter().filter(|model| !model.card_digest.is_empty()) {
            if self.cards.get(&model.card_digest).is_none() {
                let wanted =
                    CardWanted { model: model.model.clone(), card_digest: model.card_digest.clone() };
                let message = Some(coordinator_message::Message::CardWanted(wanted));
                // A full line is asked again with the next report.
                let _ = orders.try_send(CoordinatorMessage { message });
            }
        }
    }

    fn rebuild_catalogue(&self, state: &mut State) {
        let mut models: BTreeMap<String, Model> = BTreeMap::new();
        for name in &state.wanted {
            models.insert(name.clone(), Model::unseen(name));
        }
        for (id, node) in &state.nodes {
            for status in &node.report.models {
                let model =
                    models.entry(status.model.clone()).or_insert_with(|| Model::unseen(&status.model));
                self.merge(model, status, self.usable(*id, node));
            }
        }
        let now_s = unix_ms() / 1_000;
        for (name, model) in &mut models {
            model.created_unix_s = *state.known_since_unix_s.entry(name.clone()).or_insert(now_s);
        }
        self.catalogue.replace(models.into_iter().map(|(name, model)| (name, Arc::new(model))).collect());
    }

    fn merge(&self, model: &mut Model, status: &ModelStatus, usable: bool) {
        if model.card.is_none() && !status.card_digest.is_empty() {
            model.card = self.cards.get(&status.card_digest);
            model.card_digest = model.card.is_some().then(|| status.card_digest.clone());
            model.facts = status.facts.clone();
        }
        let same_card = model.card_digest.as_deref() == Some(status.card_digest.as_str());
        if usable && status.state() == ModelState::Ready && same_card {
            model.nodes_ready += 1;
            model.status = String::new();
        } else if model.nodes_ready == 0 {
            model.status = status_words(status, usable, model.card.is_some() && !same_card);
        }
    }
}

fn status_words(status: &ModelStatus, usable: bool, other_card: bool) -> String {
    if !usable {
        return "the node that holds it is not connected".to_owned();
    }
    if other_card {
        return "another node holds a different model under this name".to_owned();
    }
    let state = match status.state() {
        ModelState::Unspecified => "unknown",
        ModelState::Waiting => "waiting",
        ModelState::Starting => "starting",
        ModelState::Loading => "loading",
        ModelState::Ready => "waiting for its tokenizer",
        ModelState::Stopping => "stopping",
        ModelState::Failed => "failed",
        ModelState::Offered => "loaded when it is asked for",
    };
    if status.reason.is_empty() { state.to_owned() } else { format!("{state}: {}", status.reason) }
}
