//! The canary: a fixed short prompt with a known answer, run where a runtime is in doubt.
//!
//! Owns the prompt, the run and the comparison with what the registry knows as the model's answer; the first answer to pass
//! becomes it. Refuses to judge: the scheduler orders it and hears how it went. The prompt is ours, so nothing of a client is
//! sent, kept or logged.

use std::sync::Arc;

use consensus::Consensus;
use proto::v1::{AttemptStart, Finish, Sampling};
use registry::{Command, ModelName};
use scheduler::{ProbeNumber, ProbeResult};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Leader;
use crate::catalogue::{Catalogue, Model};
use crate::limits;
use crate::streams::{StreamError, Streams};

/// Run the canary there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) probe: ProbeNumber,
    pub(crate) node: u64,
    pub(crate) model: String,
}

/// Whoever changes what the canary asks changes this: answers to another one prove nothing.
const VERSION: &str = "canary 1";
/// Ids that every vocabulary has; a smaller one has those below its size.
const PROMPT: [u32; 8] = [11, 7, 5, 13, 3, 17, 2, 19];
const TOKENS: u32 = 8;

/// What it takes to run them.
#[derive(Clone)]
pub(crate) struct Canaries {
    pub(crate) consensus: Consensus,
    pub(crate) streams: Streams,
    pub(crate) catalogue: Catalogue,
    pub(crate) leader: Leader,
}

impl Canaries {
    /// Runs each as it is ordered, until `stop`. The scheduler has one at a time.
    pub(crate) async fn run(self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        while let Some(Some(order)) = stop.run_until_cancelled(orders.recv()).await {
            let result = self.probe(&order).await;
            tracing::info!(node = order.node, model = order.model, ?result, "a canary has run");
            self.leader.probed(order.probe, result).await;
        }
    }

    async fn probe(&self, order: &Order) -> ProbeResult {
        let Some(model) = self.catalogue.get(&order.model) else { return ProbeResult::Failed };
        let answer = tokio::time::timeout(limits::CANARY, self.answer(order, &model)).await;
        let Ok(Ok(Some(ids))) = answer else { return ProbeResult::Failed };
        match (ModelName::new(&order.model), digest(&model)) {
            (Ok(name), Some(digest)) => self.judge(name, digest, ids).await,
            (Err(_), _) | (_, None) => ProbeResult::Failed,
        }
    }

    /// `None`: the runtime says that it failed.
    async fn answer(&self, order: &Order, model: &Arc<Model>) -> Result<Option<Vec<u32>>, StreamError> {
        let mut stream = self.streams.open(order.node, &start(order, model)).await?;
        let mut ids = Vec::new();
        loop {
            let frame = stream.next().await?;
            ids.extend(frame.ids);
            match Finish::try_from(frame.finish) {
                Ok(Finish::Unspecified) => {}
                Ok(Finish::Stop | Finish::Length) => return Ok(Some(ids)),
                Ok(Finish::Failed) | Err(_) => return Ok(None),
            }
        }
    }

    async fn judge(&self, model: ModelName, card_digest: String, ids: Vec<u32>) -> ProbeResult {
        let known = self.consensus.local().golden(&model, &card_digest).map(<[u32]>::to_vec);
        match known {
            Some(known) if known == ids => ProbeResult::Passed,
            Some(_) => ProbeResult::Mismatch,
            None => {
                // An answer that could not be kept is no worse an answer; the next one is kept in its place.
                if let Err(error) =
                    self.consensus.propose(Command::SetGolden { model, card_digest, ids }).await
                {
                    tracing::warn!(%error, "a canary's answer could not be kept");
                }
                ProbeResult::Passed
            }
        }
    }
}

fn start(order: &Order, model: &Model) -> AttemptStart {
    let vocabulary = model.facts.as_ref().map_or(0, |facts| facts.vocab_size).max(1);
    AttemptStart {
        // Requests count up from one; probes, which are far fewer, down from the end.
        request: u64::MAX - order.probe.0,
        attempt: 1,
        model: order.model.clone(),
        prompt: PROMPT.iter().map(|id| id % vocabulary).collect(),
        max_tokens: TOKENS,
        sampling: Some(Sampling { top_p: 1.0, repetition_penalty: 1.0, ..Sampling::default() }),
        stop_ids: Vec::new(),
        top_logprobs: None,
        cache_salt: String::new(),
        prefill_chunk: 0,
        generated: 0,
    }
}

/// Of all that decides the answer.
fn digest(model: &Model) -> Option<String> {
    let card = model.card_digest.as_ref()?;
    Some(blake3::hash(format!("{VERSION} {card}").as_bytes()).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(vocab_size: u32) -> Model {
        let facts = Some(proto::v1::ModelFacts { vocab_size, ..proto::v1::ModelFacts::default() });
        Model { facts, card_digest: Some("ab".repeat(32)), ..Model::unseen("m") }
    }

    #[test]
    fn the_prompt_fits_every_vocabulary_and_asks_for_the_likeliest_tokens() {
        let order = Order { probe: ProbeNumber(3), node: 7, model: "m".to_owned() };
        for vocabulary in [1, 2, 10, 150_000] {
            let start = start(&order, &model(vocabulary));
            assert!(start.prompt.len() == 8 && start.prompt.iter().all(|id| *id < vocabulary));
            assert_eq!((start.request, start.cache_salt.as_str()), (u64::MAX - 3, ""));
            assert_eq!(start.sampling.map(|sampling| sampling.temperature), Some(0.0));
        }
    }

    #[test]
    fn another_card_has_another_answer() {
        let [one, two] = ["a", "b"]
            .map(|card| digest(&Model { card_digest: Some(card.to_owned()), ..model(9) }).expect("a digest"));
        assert_ne!(one, two);
        assert_eq!(digest(&Model::unseen("m")), None);
    }
}
