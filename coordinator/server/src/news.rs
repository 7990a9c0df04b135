//! What an agent's report means to the leader.
//!
//! Owns the translation of states and figures, and telling each measurement once. Refuses models that no card here speaks for, or
//! another card than the catalogue's: the same name on two Macs is the same model or is not used.

use proto::v1::{ModelState as WireState, ModelStatus};
use registry::ModelName;
use scheduler::{Measured, ModelState, Rates, Span, StepSample};

use crate::catalogue::Catalogue;
use crate::fleet::Node;
use crate::leader::{ModelNews, NodeNews};

/// All that the node has to say. Takes the measurements with it, and the wish to load what could be loaded now.
pub(crate) fn of(node: &mut Node, catalogue: &Catalogue) -> NodeNews {
    let mut news = NodeNews {
        name: node.hello.name.clone(),
        life: node.hello.life,
        budget_bytes: node.hello.hardware.as_ref().map_or(0, |hardware| hardware.gpu_budget_bytes),
        ..NodeNews::default()
    };
    for status in node.report.models.iter_mut().filter(|status| is_spoken_for(status, catalogue)) {
        let told = node.loads_told.insert(status.model.clone(), status.incarnation);
        news.models.push(model(status, told));
        news.preload.extend(preload(status, &mut node.unplaced));
    }
    news
}

/// Described by the card the catalogue speaks with.
fn is_spoken_for(status: &ModelStatus, catalogue: &Catalogue) -> bool {
    let known = catalogue.get(&status.model).and_then(|model| model.card_digest.clone());
    known.as_deref() == Some(status.card_digest.as_str())
}

/// A model is wished for once in a session, as soon as its size is known.
fn preload(
    status: &ModelStatus,
    unplaced: &mut std::collections::BTreeSet<ModelName>,
) -> Option<(ModelName, u64)> {
    let name = ModelName::new(&status.model).ok()?;
    let is_known = status.state() == WireState::Offered && status.footprint_bytes > 0;
    (is_known && unplaced.remove(&name)).then_some((name, status.footprint_bytes))
}

/// `told`: the process whose load time is known already.
fn model(status: &mut ModelStatus, told: Option<u32>) -> ModelNews {
    let is_news = status.load_ms > 0 && told != Some(status.incarnation);
    let steps = std::mem::take(&mut status.samples).into_iter().map(|sample| StepSample {
        steps: sample.steps,
        batch: sample.batch,
        kv_tokens: sample.kv_tokens,
        seconds: sample.seconds,
    });
    let measured =
        Measured { steps: steps.collect(), load: is_news.then(|| Span::from_ms(status.load_ms.into())) };
    let rates = status.rates.unwrap_or_default();
    ModelNews {
        model: status.model.clone(),
        state: state(status),
        slots: status.slots,
        kv_tokens: status.kv_tokens,
        prefix_tokens: status.prefix_tokens,
        bytes: status.footprint_bytes,
        rates: Rates {
            prefill_tokens_per_s: rates.prefill_tokens_per_s,
            step_ms: rates.step_ms,
            batch_slope: rates.batch_slope,
        },
        measured,
    }
}

fn state(status: &ModelStatus) -> ModelState {
    match status.state() {
        WireState::Unspecified | WireState::Offered => ModelState::Offered,
        // Its files are not read yet: nothing is in memory.
        WireState::Waiting if status.footprint_bytes == 0 => ModelState::Offered,
        WireState::Waiting | WireState::Starting | WireState::Loading => ModelState::Loading { left: None },
        WireState::Ready => ModelState::Ready,
        WireState::Stopping => ModelState::Unloading,
        // Its process is on the way out. It is started again, unless it has failed for good once that is gone.
        WireState::Failed if status.incarnation > 0 => ModelState::Loading { left: None },
        WireState::Failed => ModelState::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proto::v1::StepSample as WireSample;

    use super::*;

    fn status(state: WireState) -> ModelStatus {
        ModelStatus {
            model: "m".to_owned(),
            state: state.into(),
            footprint_bytes: 9,
            load_ms: 1_500,
            incarnation: 2,
            samples: vec![WireSample { steps: 3, batch: 2.0, kv_tokens: 10.0, seconds: 0.5 }],
            ..ModelStatus::default()
        }
    }

    #[test]
    fn a_measurement_is_told_once() {
        let mut status = status(WireState::Ready);
        let first = model(&mut status, None).measured;
        assert_eq!((first.steps.len(), first.load), (1, Some(Span::from_ms(1_500))));
        assert_eq!(model(&mut status, Some(2)).measured, Measured::default());
        status.incarnation = 3;
        assert_eq!(model(&mut status, Some(2)).measured.load, first.load, "another process");
    }

    #[test]
    fn a_model_waits_for_its_files_without_memory_and_for_its_process_with_it() {
        let waiting = |footprint_bytes| state(&ModelStatus { footprint_bytes, ..status(WireState::Waiting) });
        assert_eq!(waiting(0), ModelState::Offered);
        assert_eq!(waiting(9), ModelState::Loading { left: None });
        let rest = [WireState::Ready, WireState::Stopping, WireState::Offered];
        assert_eq!(
            rest.map(|wire| state(&status(wire))),
            [ModelState::Ready, ModelState::Unloading, ModelState::Offered]
        );
    }

    #[test]
    fn a_model_has_failed_once_no_process_of_it_is_left() {
        let failed = |incarnation| state(&ModelStatus { incarnation, ..status(WireState::Failed) });
        assert_eq!(failed(4), ModelState::Loading { left: None });
        assert_eq!(failed(0), ModelState::Failed);
    }

    #[test]
    fn what_an_agent_was_started_with_is_loaded_once_its_size_is_known() {
        let name = ModelName::new("m").expect("a name");
        let mut unplaced = BTreeSet::from([name.clone()]);
        let unread = ModelStatus { footprint_bytes: 0, ..status(WireState::Offered) };
        assert_eq!(preload(&unread, &mut unplaced), None);
        assert_eq!(preload(&status(WireState::Waiting), &mut unplaced), None);
        assert_eq!(preload(&status(WireState::Offered), &mut unplaced), Some((name, 9)));
        assert_eq!(preload(&status(WireState::Offered), &mut unplaced), None, "once");
    }
}
