//! What an operator sees: the whole state of the room as one JSON document (`GET /api/v1/status`).
//!
//! Owns the shape of that document, schema `mlx-serving.status/1`. Refuses secrets: no key, no token, no prompt.

use consensus::Consensus;
use proto::v1::{ModelState, ModelStatus};
use registry::NodeId;
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::fleet::{Fleet, Node};
use crate::leader::QueueView;
use crate::looking::Looking;
use crate::versions::Versions;

#[derive(Serialize)]
pub(crate) struct Status {
    schema: &'static str,
    version: &'static str,
    cluster: String,
    /// What all its coordinators understand; it rises by itself when all of them speak more.
    cluster_version: u32,
    coordinator: CoordinatorView,
    coordinators: Vec<SpokenView>,
    models: Vec<ModelView>,
    nodes: Vec<NodeView>,
}

#[derive(Serialize)]
struct CoordinatorView {
    leader: bool,
    /// The number of the coordinator that leads; `null` while nobody does.
    led_by: Option<u64>,
    term: u64,
    applied_index: Option<u64>,
    trouble: Option<String>,
}

/// One member of the group.
#[derive(Serialize)]
struct SpokenView {
    coordinator: u64,
    /// The newest version of the cluster that it speaks; `null` while it does not answer.
    speaks: Option<u32>,
}

#[derive(Serialize)]
struct ModelView {
    model: String,
    nodes_ready: usize,
    status: String,
    context_length: u64,
    parameters: u64,
    dtype: String,
    weights_bytes: u64,
    waiting: usize,
    running: usize,
}

#[derive(Default, Serialize)]
struct NodeView {
    node: u64,
    name: String,
    version: String,
    connected: bool,
    /// It is to be emptied: nothing is sent there that another node could do.
    draining: bool,
    /// Since its last report; `null` if it has not reported here since this coordinator's start.
    last_seen_s: Option<f64>,
    chip: String,
    os: String,
    memory_bytes: u64,
    gpu_budget_bytes: u64,
    memory_used_bytes: u64,
    /// Promised to models, loaded or not; never above what the GPU may hold.
    reserved_bytes: u64,
    running: usize,
    models: Vec<RuntimeView>,
}

#[derive(Serialize)]
struct RuntimeView {
    model: String,
    state: &'static str,
    reason: String,
    progress: f64,
    slots: u32,
    pid: u32,
    restarts: u32,
    /// What it takes, to be reserved before it is loaded; 0 while nobody knows.
    footprint_bytes: u64,
    /// Sequences on the runtime's own list.
    running: u32,
    prefill_tokens_per_s: f32,
    step_ms: f32,
    batch_slope: f32,
}

const STORAGE_FULL: &str = "storage_full: the disk is almost full, so no new node, key or model is taken in until there is room; \
                            what is running goes on";

/// Everything the document is made of.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) cluster: String,
    pub(crate) consensus: Consensus,
    pub(crate) catalogue: Catalogue,
    pub(crate) fleet: Fleet,
    pub(crate) looking: Looking,
    pub(crate) versions: Versions,
}

impl Sources {
    pub(crate) async fn status(&self) -> Status {
        let queue = self.looking.queue().await;
        let health = self.consensus.health();
        Status {
            schema: "mlx-serving.status/1",
            version: env!("CARGO_PKG_VERSION"),
            cluster: self.cluster.clone(),
            cluster_version: self.consensus.local().cluster_version().0,
            coordinator: CoordinatorView {
                leader: health.leader,
                led_by: health.known_leader.map(|replica| replica.0),
                term: health.term,
                applied_index: health.applied_index,
                trouble: health.fatal.or_else(|| self.trouble(health.storage_full)),
            },
            coordinators: self.coordinators(),
            models: self.models(&queue),
            nodes: self.nodes(&queue).await,
        }
    }

    fn trouble(&self, storage_full: bool) -> Option<String> {
        let trouble = if storage_full { Some(STORAGE_FULL) } else { self.looking.sealing.trouble() };
        trouble.map(str::to_owned)
    }

    fn coordinators(&self) -> Vec<SpokenView> {
        let spoken = self.versions.spoken();
        let members = self.consensus.members().into_iter().map(|member| member.replica);
        let speaks = |replica| spoken.get(&replica).map(|version| version.0);
        members.map(|replica| SpokenView { coordinator: replica.0, speaks: speaks(replica) }).collect()
    }

    fn models(&self, queue: &QueueView) -> Vec<ModelView> {
        let all = self.catalogue.all();
        let view = |model: &std::sync::Arc<crate::catalogue::Model>| {
            let facts = model.facts.clone().unwrap_or_default();
            ModelView {
                model: model.name.clone(),
                nodes_ready: model.nodes_ready,
                status: if model.nodes_ready > 0 { "ready".to_owned() } else { model.status.clone() },
                context_length: facts.context_length,
                parameters: facts.parameters,
                dtype: facts.dtype,
                weights_bytes: facts.weights_bytes,
                waiting: queue.waiting.get(&model.name).copied().unwrap_or(0),
                running: queue.running.get(&model.name).copied().unwrap_or(0),
            }
        };
        all.iter().map(view).collect()
    }

    /// The members that the registry knows, there or not: a Mac that is away is never forgotten.
    async fn nodes(&self, queue: &QueueView) -> Vec<NodeView> {
        let seen = self.fleet.nodes().await;
        let registry = self.consensus.local();
        let members =
            registry.nodes().filter(|(_, member)| member.role == registry::Role::Agent && !member.revoked);
        let view = |(id, member): (NodeId, &registry::Node)| NodeView {
            node: id.0,
            running: queue.running_on.get(&id.0).copied().unwrap_or(0),
            reserved_bytes: registry.reserved_bytes(id),
            draining: registry.is_draining(id),
            gpu_budget_bytes: registry.budget(id).unwrap_or_default(),
            ..seen.get(&id.0).map_or_else(|| absent(member), |(node, connected)| node_view(node, *connected))
        };
        members.map(view).collect()
    }
}

fn absent(member: &registry::Node) -> NodeView {
    NodeView { name: member.name.clone(), ..NodeView::default() }
}

fn node_view(node: &Node, connected: bool) -> NodeView {
    let hardware = node.hello.hardware.clone().unwrap_or_default();
    NodeView {
        name: node.hello.name.clone(),
        version: node.hello.version.clone(),
        connected,
        last_seen_s: Some(node.last_seen.elapsed().as_secs_f64()),
        chip: hardware.chip,
        os: hardware.os,
        memory_bytes: hardware.memory_bytes,
        memory_used_bytes: node.report.memory_used_bytes,
        models: node.report.models.iter().map(runtime_view).collect(),
        ..NodeView::default()
    }
}

fn runtime_view(status: &ModelStatus) -> RuntimeView {
    let rates = status.rates.unwrap_or_default();
    RuntimeView {
        model: status.model.clone(),
        state: match status.state() {
            ModelState::Unspecified => "unknown",
            ModelState::Waiting => "waiting",
            ModelState::Starting => "starting",
            ModelState::Loading => "loading",
            ModelState::Ready => "ready",
            ModelState::Stopping => "stopping",
            ModelState::Failed => "failed",
            ModelState::Offered => "offered",
        },
        reason: status.reason.clone(),
        progress: f64::from(status.progress_permille) / 1_000.0,
        slots: status.slots,
        pid: status.pid,
        restarts: status.restarts,
        footprint_bytes: status.footprint_bytes,
        running: status.running,
        prefill_tokens_per_s: rates.prefill_tokens_per_s,
        step_ms: rates.step_ms,
        batch_slope: rates.batch_slope,
    }
}
