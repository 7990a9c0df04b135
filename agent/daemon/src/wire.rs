//! Where the wire's words become the agent's, and back.
//!
//! Owns the translation between `proto` and this crate's own types: wishes, reports, the request of an attempt, its frames.
//! Refuses wishes without a source. The only module that builds or takes apart messages of `proto::v1`, but for the transports
//! that carry them.

use std::sync::PoisonError;

use proto::v1::model_source::Source;
use proto::v1::{
    AgentReport, AttemptFrame, AttemptStart, AttemptUsage, Finish, Hardware, LogitBias, ModelFacts,
    ModelSource, ModelState, ModelStatus, Rates, TokenLogprobs, TopLogprob, WantedModel,
};

use crate::board::{Board, Entry};
use crate::config::{Offer, OfferSource};
use crate::notice::ModelWord;
use crate::probes::Memory;
use crate::runtimes::{Generate, Logprobs, RowExtra, Sampling};

pub(crate) fn offered(offer: &Offer) -> WantedModel {
    let source = match &offer.source {
        OfferSource::Path(path) => Source::Path(path.clone()),
        OfferSource::Hub(id) => Source::Hub(id.clone()),
        OfferSource::Demo => Source::Demo(true),
    };
    WantedModel { model: offer.model.clone(), source: Some(ModelSource { source: Some(source) }) }
}

pub(crate) fn hardware(hardware: &crate::probes::Hardware) -> Hardware {
    Hardware {
        chip: hardware.chip.clone(),
        os: hardware.os.clone(),
        cores: hardware.cores,
        memory_bytes: hardware.memory_bytes,
        gpu_budget_bytes: hardware.gpu_budget_bytes,
        gpu_cores: hardware.gpu_cores,
    }
}

/// `None`: a wish of a later version, whose source this agent does not know.
pub(crate) fn wanted(model: WantedModel) -> Option<Offer> {
    let source = match model.source?.source? {
        Source::Path(path) => OfferSource::Path(path),
        Source::Hub(id) => OfferSource::Hub(id),
        Source::Demo(_) => OfferSource::Demo,
    };
    Some(Offer { model: model.model, source })
}

/// What the agent knows of itself at this moment. While draining, nothing is offered for new work.
pub(crate) fn report(sequence: u64, board: &Board, memory: Memory, draining: bool) -> AgentReport {
    AgentReport {
        sequence,
        models: board.models.iter().map(|(name, entry)| status(name, entry, draining)).collect(),
        attempts_running: board.running(),
        memory_used_bytes: memory.used_bytes,
        memory_free_bytes: memory.free_bytes,
    }
}

fn status(name: &str, entry: &Entry, draining: bool) -> ModelStatus {
    let leaving = draining && entry.state == ModelWord::Ready;
    let reason = if leaving { "this Mac is draining".to_owned() } else { entry.reason.clone() };
    let state = match entry.state {
        ModelWord::Waiting => ModelState::Waiting,
        ModelWord::Starting => ModelState::Starting,
        ModelWord::Loading => ModelState::Loading,
        ModelWord::Ready if leaving => ModelState::Stopping,
        ModelWord::Ready => ModelState::Ready,
        ModelWord::Stopping => ModelState::Stopping,
        ModelWord::Failed => ModelState::Failed,
    };
    let rates = entry.rates.lock().unwrap_or_else(PoisonError::into_inner);
    ModelStatus {
        model: name.to_owned(),
        state: state.into(),
        reason,
        progress_permille: entry.permille.into(),
        facts: entry.facts.as_ref().map(facts),
        slots: entry.slots,
        rates: Some(Rates {
            prefill_tokens_per_s: rates.prefill_tokens_per_s(),
            step_ms: rates.step_ms(),
            batch_slope: rates.batch_slope(),
        }),
        card_digest: entry.card.as_ref().map(|card| card.digest.clone()).unwrap_or_default(),
        pid: entry.pid,
        restarts: entry.restarts,
        running: entry.running(),
    }
}

fn facts(facts: &crate::preparing::ModelFacts) -> ModelFacts {
    ModelFacts {
        model_type: facts.model_type.clone(),
        context_length: facts.context_length,
        parameters: facts.parameters,
        dtype: facts.dtype.clone(),
        weights_bytes: facts.weights_bytes,
        kv_bytes_per_token: facts.kv_bytes_per_token,
        eos_ids: facts.eos_ids.clone(),
        vocab_size: facts.vocab_size,
    }
}

/// The request in a runtime's words. Their ranges are the runtime's to check: it refuses the row, not the connection.
pub(crate) fn generate(start: AttemptStart) -> Generate {
    let sampling = start.sampling.unwrap_or(proto::v1::Sampling {
        top_p: 1.0,
        repetition_penalty: 1.0,
        ..Default::default()
    });
    let bias = |bias: &LogitBias| (bias.token, bias.bias);
    Generate {
        ids: start.prompt,
        max_tokens: start.max_tokens,
        sampling: Sampling {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            logit_bias: sampling.logit_bias.iter().map(bias).collect(),
            seed: sampling.seed,
        },
        stop_ids: start.stop_ids,
        top_logprobs: start.top_logprobs,
    }
}

/// A frame with new tokens, perhaps the last one.
pub(crate) fn tokens(ids: Vec<u32>, logprobs: Vec<Logprobs>) -> AttemptFrame {
    AttemptFrame {
        ids,
        logprobs: logprobs.into_iter().map(token_logprobs).collect(),
        ..AttemptFrame::default()
    }
}

/// Adds an end that the runtime called good.
pub(crate) fn finished(mut frame: AttemptFrame, finish: Finish, extra: &RowExtra) -> AttemptFrame {
    frame.finish = finish.into();
    // A float cast saturates, and no prefill takes weeks.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let prefill_ms = (extra.prefill_s * 1e3) as u32;
    frame.usage = Some(AttemptUsage {
        prompt_tokens: extra.prompt_tokens,
        cached_tokens: extra.cached_tokens,
        generated_tokens: extra.generated,
        prefill_ms,
    });
    frame
}

/// Adds a failure.
pub(crate) fn failed(mut frame: AttemptFrame, code: &str, text: &str) -> AttemptFrame {
    frame.finish = Finish::Failed.into();
    (frame.code, frame.text) = (code.to_owned(), text.to_owned());
    frame
}

fn token_logprobs((logprob, top): Logprobs) -> TokenLogprobs {
    let top = top.into_iter().map(|(token, logprob)| TopLogprob { token, logprob });
    TokenLogprobs { logprob, top: top.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::SharedRates;

    #[test]
    fn an_offer_comes_back_as_the_wish_it_was() {
        for source in
            [OfferSource::Demo, OfferSource::Path("/m".to_owned()), OfferSource::Hub("a/b".to_owned())]
        {
            let offer = Offer { model: "m".to_owned(), source };
            assert_eq!(wanted(offered(&offer)), Some(offer));
        }
    }

    #[test]
    fn a_wish_without_a_source_is_none_we_know() {
        let bare = WantedModel { model: "m".to_owned(), source: Some(ModelSource { source: None }) };
        assert_eq!(wanted(bare), None);
    }

    fn board(state: ModelWord) -> Board {
        let entry = Entry {
            state,
            reason: "why".to_owned(),
            permille: 7,
            facts: None,
            card: None,
            slots: 3,
            rates: SharedRates::default(),
            pid: 9,
            restarts: 2,
            runtime: None,
        };
        Board { models: [("m".to_owned(), entry)].into() }
    }

    #[test]
    fn a_report_says_everything_the_board_does() {
        let memory = Memory { used_bytes: 5, free_bytes: 6 };
        let report = report(4, &board(ModelWord::Failed), memory, false);
        assert_eq!((report.sequence, report.memory_used_bytes, report.memory_free_bytes), (4, 5, 6));
        let status = &report.models[0];
        assert_eq!(
            (status.model.as_str(), status.state(), status.reason.as_str()),
            ("m", ModelState::Failed, "why")
        );
        assert_eq!((status.progress_permille, status.slots, status.pid, status.restarts), (7, 3, 9, 2));
    }

    #[test]
    fn a_draining_mac_offers_nothing_for_new_work_but_tells_failures_as_they_are() {
        for (state, told) in
            [(ModelWord::Ready, ModelState::Stopping), (ModelWord::Failed, ModelState::Failed)]
        {
            let report = report(1, &board(state), Memory::default(), true);
            assert_eq!(report.models[0].state(), told);
        }
    }

    #[test]
    fn a_request_without_sampling_samples_plainly() {
        let plain = generate(AttemptStart { prompt: vec![1], max_tokens: 2, ..AttemptStart::default() });
        let Sampling { temperature, top_p, repetition_penalty, top_k, .. } = plain.sampling;
        assert_eq!((temperature, top_p, repetition_penalty, top_k), (0.0, 1.0, 1.0, 0));
    }

    #[test]
    fn a_frame_carries_tokens_logprobs_usage_and_end_together() {
        let extra = RowExtra {
            generated: 2,
            prompt_tokens: 3,
            cached_tokens: 1,
            prefill_s: 0.5,
            ..RowExtra::default()
        };
        let frame =
            finished(tokens(vec![8], vec![(-1.0, vec![(8, -1.0), (9, -2.0)])]), Finish::Length, &extra);
        assert_eq!((frame.ids.as_slice(), frame.finish()), ([8].as_slice(), Finish::Length));
        assert_eq!(frame.logprobs[0].top[1], TopLogprob { token: 9, logprob: -2.0 });
        let usage = AttemptUsage { prompt_tokens: 3, cached_tokens: 1, generated_tokens: 2, prefill_ms: 500 };
        assert_eq!(frame.usage, Some(usage));
    }
}
