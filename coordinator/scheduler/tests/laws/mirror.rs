//! What a bystander can know of requests and nodes from commands and effects alone: the second opinion for the laws.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::{
    Adopted, At, Attempt, Command, Effect, Limits, ModelId, ModelReport, ModelState, NodeId, NodeReport,
    Outcome, Refusal, RequestId, Submission,
};

/// How many run of each model on each node.
pub(crate) type Lanes = BTreeMap<(NodeId, ModelId), usize>;

#[derive(Default)]
pub(crate) struct Mirror {
    seen: BTreeMap<RequestId, Submission>,
    alive: BTreeMap<RequestId, Life>,
    /// Failed attempts, of those that are over too, and whether each had begun.
    failures: BTreeMap<RequestId, Vec<(NodeId, bool)>>,
    /// Where nobody was there for a request.
    absent: BTreeSet<(RequestId, NodeId)>,
    nodes: BTreeMap<NodeId, NodeReport>,
    draining: BTreeSet<NodeId>,
    settles_at: At,
    /// A breaker may have opened, or a model may be on its way out: then a holder is not all that it seems.
    troubled: bool,
}

#[derive(Default)]
struct Life {
    /// Under earlier leaders too.
    dispatches: u32,
    run: Option<(Attempt, NodeId)>,
    began: bool,
}

impl Mirror {
    pub(crate) fn observe(&mut self, now: At, command: &Command, effects: &[Effect]) {
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Busy | Outcome::Failed(_));
        let moved = |effect: &Effect| matches!(effect, Effect::Record(_) | Effect::Evict { .. });
        self.troubled |= matches!(command, Command::Recall(_))
            || matches!(command, Command::Finished { outcome, .. } if failed(outcome))
            || effects.iter().any(moved);
        match command {
            Command::Submit(submission) => self.began_to_live(now, submission, Life::default()),
            Command::Adopt { submission, attempt, running } => {
                let life = Life {
                    dispatches: attempt.0,
                    run: running.map(|Adopted { node, .. }| (*attempt, node)),
                    began: running.is_some_and(|adopted| adopted.began),
                };
                self.began_to_live(now, submission, life);
            }
            Command::Cancel { request } => {
                self.alive.remove(request);
            }
            Command::Began { request, attempt } => {
                if let Some(life) = self.alive.get_mut(request).filter(|life| life.runs(*attempt)) {
                    life.began = true;
                }
            }
            Command::Finished { request, attempt, outcome, .. } => {
                self.finished(*request, *attempt, *outcome)
            }
            Command::NodeReported { node, report } => self.reported(*node, report),
            Command::NodeLost { node } => {
                self.nodes.remove(node);
                self.give_back(|_, on, _| on == *node);
            }
            Command::NodeDraining { node, draining: true } => {
                self.draining.insert(*node);
            }
            Command::NodeDraining { node, draining: false } => {
                self.draining.remove(node);
            }
            Command::Lead { settles_at } => {
                self.settles_at = (*settles_at).min(now + Limits::default().settling);
            }
            Command::Reserved { .. }
            | Command::Probed { .. }
            | Command::Policy { .. }
            | Command::Weight { .. }
            | Command::Recall(_)
            | Command::Wake => {}
        }
        effects.iter().for_each(|effect| self.effect(effect));
    }

    pub(crate) fn submission(&self, request: RequestId) -> Option<&Submission> {
        self.seen.get(&request)
    }

    pub(crate) fn newcomers_waiting(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.alive.iter().filter(|(_, life)| life.dispatches == 0).map(|(request, _)| *request)
    }

    pub(crate) fn holds(&self, node: NodeId, model: ModelId) -> bool {
        self.nodes.get(&node).is_some_and(|report| {
            report.models.iter().any(|held| held.model == model && held.state == ModelState::Ready)
        })
    }

    pub(crate) fn drains(&self, node: NodeId) -> bool {
        self.draining.contains(&node)
    }

    /// Whether another node, which does not drain, serves the model for sure.
    pub(crate) fn another_serves(&self, node: NodeId, model: ModelId) -> bool {
        let serves = |report: &NodeReport| {
            let holds =
                |held: &ModelReport| held.model == model && held.state == ModelState::Ready && held.slots > 0;
            report.models.iter().any(holds)
        };
        let mut others = self.nodes.iter().filter(|(other, _)| **other != node && !self.drains(**other));
        !self.troubled && others.any(|(_, report)| serves(report))
    }

    /// Whether a new leader may not have been told yet what runs.
    pub(crate) fn settles(&self, now: At) -> bool {
        now < self.settles_at
    }

    pub(crate) fn failed(&self, request: RequestId, node: NodeId) -> bool {
        let failed =
            self.failures.get(&request).is_some_and(|failed| failed.iter().any(|(on, _)| *on == node));
        failed || self.absent.contains(&(request, node))
    }

    /// Whether any node failed it or was not there.
    pub(crate) fn has_been_let_down(&self, request: RequestId) -> bool {
        self.failures(request) != (0, 0) || self.absent.iter().any(|(absent, _)| *absent == request)
    }

    /// Attempts that failed before their first token, and those that failed after it.
    pub(crate) fn failures(&self, request: RequestId) -> (usize, usize) {
        let failed = self.failures.get(&request).into_iter().flatten();
        let (after, before): (Vec<bool>, Vec<bool>) =
            failed.map(|(_, began)| *began).partition(|began| *began);
        (before.len(), after.len())
    }

    /// Nodes that hold the model of the request, do not drain and have not failed it.
    pub(crate) fn could_serve(&self, request: RequestId) -> Vec<NodeId> {
        let Some(submission) = self.seen.get(&request) else { return Vec::new() };
        let nodes = self.nodes.keys().copied();
        nodes
            .filter(|node| {
                self.holds(*node, submission.model) && !self.drains(*node) && !self.failed(request, *node)
            })
            .collect()
    }

    /// Every live request as its gateway would tell it to a new leader.
    pub(crate) fn adoptions(&self) -> Vec<Command> {
        let lives = self.alive.iter().filter_map(|(request, life)| Some((self.seen.get(request)?, life)));
        let told = lives.map(|(submission, life)| Command::Adopt {
            submission: submission.clone(),
            attempt: Attempt(life.dispatches),
            running: life.run.map(|(_, node)| Adopted { node, began: life.began }),
        });
        told.collect()
    }

    /// Whether the request that is taken over is alive already.
    pub(crate) fn is_alive(&self, adoption: &Command) -> bool {
        matches!(adoption, Command::Adopt { submission, .. } if self.alive.contains_key(&submission.request))
    }

    pub(crate) fn lanes(&self) -> Lanes {
        let mut lanes = BTreeMap::new();
        for (request, life) in &self.alive {
            if let (Some((_, node)), Some(submission)) = (life.run, self.seen.get(request)) {
                *lanes.entry((node, submission.model)).or_default() += 1;
            }
        }
        lanes
    }

    /// Every live request, with what it runs.
    pub(crate) fn outstanding(&self) -> Vec<(RequestId, Option<(Attempt, NodeId)>)> {
        self.alive.iter().map(|(request, life)| (*request, life.run)).collect()
    }

    pub(crate) fn reports(&self) -> impl Iterator<Item = (NodeId, NodeReport)> + '_ {
        self.nodes.iter().map(|(node, report)| (*node, report.clone()))
    }

    pub(crate) fn pick_alive(&self, pick: usize) -> Option<RequestId> {
        self.alive.keys().nth(pick.checked_rem(self.alive.len())?).copied()
    }

    pub(crate) fn pick_running(&self, pick: usize) -> Option<(RequestId, Attempt)> {
        let running: Vec<_> = self
            .alive
            .iter()
            .filter_map(|(request, life)| life.run.map(|(attempt, _)| (*request, attempt)))
            .collect();
        running.get(pick.checked_rem(running.len())?).copied()
    }

    fn began_to_live(&mut self, now: At, submission: &Submission, life: Life) {
        if !self.alive.contains_key(&submission.request) {
            let request = submission.request;
            let submission = Submission { arrived: submission.arrived.min(now), ..submission.clone() };
            self.seen.insert(request, submission);
            self.failures.remove(&request);
            self.absent.retain(|(absent, _)| *absent != request);
            self.alive.insert(request, life);
        }
    }

    fn finished(&mut self, request: RequestId, attempt: Attempt, outcome: Outcome) {
        let Some(life) = self.alive.get_mut(&request) else { return };
        if !life.runs(attempt) {
            // It is over for its gateway, whichever of its attempts that was.
            if outcome.ends_the_request() && attempt.0 <= life.dispatches {
                self.alive.remove(&request);
            }
            return;
        }
        match outcome {
            Outcome::NotThere if !life.began => {
                self.absent.extend(life.run.take().map(|(_, node)| (request, node)));
            }
            Outcome::NotThere | Outcome::Failed(_) => {
                let run = life.run.take().map(|(_, node)| (node, life.began));
                self.failures.entry(request).or_default().extend(run);
            }
            Outcome::Busy if !life.began => life.run = None,
            Outcome::Busy
            | Outcome::Completed
            | Outcome::Enough
            | Outcome::ClientGone
            | Outcome::Rejected => {
                self.alive.remove(&request);
            }
        }
    }

    /// Wild reports may name a model twice or come from more nodes than are admitted; the laws that read the nodes draw none.
    fn reported(&mut self, node: NodeId, report: &NodeReport) {
        let before = self.nodes.insert(node, report.clone()).map(|report| ready(&report));
        let (before, held) = (before.unwrap_or_default(), ready(report));
        // An attempt that was taken over from an earlier leader may run where nobody has said yet that the model is.
        let gone: BTreeSet<ModelId> = before.difference(&held).copied().collect();
        self.give_back(|model, on, began| on == node && !began && gone.contains(&model));
    }

    /// What runs in the places meant fails.
    fn give_back(&mut self, meant: impl Fn(ModelId, NodeId, bool) -> bool) {
        for (request, life) in &mut self.alive {
            let Some((_, node)) = life.run else { continue };
            if self.seen.get(request).is_some_and(|submission| meant(submission.model, node, life.began)) {
                life.run = None;
                self.failures.entry(*request).or_default().push((node, life.began));
            }
        }
    }

    fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Dispatch { request, attempt, node, .. } => {
                if let Some(life) = self.alive.get_mut(request) {
                    life.dispatches += 1;
                    (life.run, life.began) = (Some((*attempt, *node)), false);
                }
            }
            Effect::Queued { .. } | Effect::Refuse { refusal: Refusal::Duplicate, .. } => {}
            Effect::Refuse { request, .. } | Effect::Abort { request, .. } => {
                self.alive.remove(request);
            }
            Effect::Reserve { .. } | Effect::Evict { .. } | Effect::Probe { .. } | Effect::Record(_) => {}
        }
    }
}

fn ready(report: &NodeReport) -> BTreeSet<ModelId> {
    let ready = report.models.iter().filter(|model| model.state == ModelState::Ready);
    ready.map(|model| model.model).collect()
}

impl Life {
    fn runs(&self, attempt: Attempt) -> bool {
        self.run.is_some_and(|(current, _)| current == attempt)
    }
}
