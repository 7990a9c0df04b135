//! Where the wire's words become the agent's, and back.
//!
//! Owns the translation between `proto` and this crate's own types: wishes, reports, the request of an attempt, its frames.
//! Refuses wishes without a source. The only module that builds or takes apart messages of `proto::v1`, but for the transports
//! that carry them.

use std::sync::PoisonError;

use proto::v1::model_source::Source;
use proto::v1::{
    AgentReport, AttemptFrame, AttemptStart, AttemptUsage, CoordinatorAddress, Coordinators, Finish,
    Hardware, LogitBias, ModelFacts, ModelSource, ModelState, ModelStatus, Rates, RegistryVersion,
    StepSample, TokenLogprobs, TopLogprob, WantedModel,
};

use crate::address::Address;
use crate::board::{Board, Entry};
use crate::config::{Offer, OfferSource};
use crate::coordinators::Member;
use crate::models::{Desire, Wish};
use crate::notice::ModelWord;
use crate::probes::Memory;
use crate::runtimes::{Generate, Logprobs, RowExtra, Sampling, Told};
use crate::version::Version;

pub(crate) fn offered(offer: &Offer) -> WantedModel {
    let source = match &offer.source {
        OfferSource::Path(path) => Source::Path(path.clone()),
        OfferSource::Hub(id) => Source::Hub(id.clone()),
        OfferSource::Demo => Source::Demo(true),
    };
    let source = Some(ModelSource { source: Some(source) });
    WantedModel { model: offer.model.clone(), source, offered_only: false }
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
pub(crate) fn wanted(model: WantedModel) -> Option<Wish> {
    let source = match model.source?.source? {
        Source::Path(path) => OfferSource::Path(path),
        Source::Hub(id) => OfferSource::Hub(id),
        Source::Demo(_) => OfferSource::Demo,
    };
    let desire = if model.offered_only { Desire::Offered } else { Desire::Held };
    Some(Wish { offer: Offer { model: model.model, source }, desire })
}

/// What the agent knows of itself at this moment. While draining, nothing is offered for new work. Marks the samples as told: each
/// is in one report to each coordinator.
pub(crate) fn report(
    sequence: u64,
    board: &Board,
    memory: Memory,
    draining: bool,
    told: &mut Told,
) -> AgentReport {
    let shown = board.models.iter().filter(|(_, entry)| !(draining && entry.state == ModelWord::Offered));
    AgentReport {
        sequence,
        models: shown.map(|(name, entry)| status(name, entry, draining, told)).collect(),
        attempts_running: board.running(),
        memory_used_bytes: memory.used_bytes,
        memory_free_bytes: memory.free_bytes,
        authority: Vec::new(),
    }
}

fn status(name: &str, entry: &Entry, draining: bool, told: &mut Told) -> ModelStatus {
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
        ModelWord::Offered => ModelState::Offered,
    };
    let rates = entry.figures.lock().unwrap_or_else(PoisonError::into_inner).rates;
    let process = entry.process.as_ref();
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
        pid: process.map_or(0, |process| process.pid),
        restarts: entry.restarts,
        running: entry.running(),
        samples: told.news(&entry.figures).into_iter().map(sample).collect(),
        load_ms: process.map_or(0, |process| process.load_ms),
        footprint_bytes: entry.footprint.bytes,
        kv_tokens: narrow(entry.footprint.kv_tokens),
        prefix_tokens: narrow(entry.footprint.prefix_tokens),
        incarnation: process.map_or(0, |process| process.incarnation),
    }
}

/// Members without a usable address are left out, with a warning.
pub(crate) fn members(list: Coordinators) -> Vec<Member> {
    let member = |CoordinatorAddress { replica, address }: CoordinatorAddress| {
        let address = Address::parse(&address).inspect_err(|error| tracing::warn!(replica, "{error:#}"));
        Some(Member { replica, address: address.ok()? })
    };
    list.members.into_iter().filter_map(member).collect()
}

/// Absent in the words of an older coordinator, which is as old as can be.
pub(crate) fn version(version: Option<RegistryVersion>) -> Version {
    let RegistryVersion { epoch, index } = version.unwrap_or_default();
    Version { epoch, index }
}

fn sample(sample: crate::runtimes::StepSample) -> StepSample {
    let crate::runtimes::StepSample { steps, batch, kv_tokens, seconds } = sample;
    StepSample { steps, batch, kv_tokens, seconds }
}

fn narrow(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
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
        cache_salt: start.cache_salt,
        prefill_chunk: (start.prefill_chunk > 0).then_some(start.prefill_chunk),
        generated: start.generated,
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
    use crate::preparing::Footprint;
    use crate::runtimes::{SharedFigures, StepStats};

    #[test]
    fn an_offer_comes_back_as_the_wish_it_was() {
        for source in
            [OfferSource::Demo, OfferSource::Path("/m".to_owned()), OfferSource::Hub("a/b".to_owned())]
        {
            let offer = Offer { model: "m".to_owned(), source };
            assert_eq!(wanted(offered(&offer)), Some(Wish { offer, desire: Desire::Held }));
        }
    }

    #[test]
    fn a_wish_for_an_offer_only_is_no_wish_to_hold() {
        let offer = Offer { model: "m".to_owned(), source: OfferSource::Demo };
        let wish = wanted(WantedModel { offered_only: true, ..offered(&offer) });
        assert_eq!(wish, Some(Wish { offer, desire: Desire::Offered }));
    }

    #[test]
    fn a_wish_without_a_source_is_none_we_know() {
        let source = Some(ModelSource { source: None });
        let bare = WantedModel { model: "m".to_owned(), source, offered_only: false };
        assert_eq!(wanted(bare), None);
    }

    #[test]
    fn a_list_of_coordinators_is_taken_without_what_is_no_address() {
        let listed = |replica, address: &str| CoordinatorAddress { replica, address: address.to_owned() };
        let list = Coordinators {
            members: vec![listed(1, "a:1"), listed(2, "b"), listed(3, "[::1]:7443")],
            revoked: Vec::new(),
        };
        let member = |replica, address| Member { replica, address: Address::parse(address).expect("fine") };
        assert_eq!(members(list), [member(1, "a:1"), member(3, "[::1]:7443")]);
    }

    #[test]
    fn a_version_that_is_absent_is_the_oldest() {
        let told = RegistryVersion { epoch: 2, index: 9 };
        assert_eq!(version(Some(told)), Version { epoch: 2, index: 9 });
        assert_eq!(version(None), Version { epoch: 0, index: 0 });
    }

    fn board(state: ModelWord) -> Board {
        let entry = Entry {
            state,
            reason: "why".to_owned(),
            permille: 7,
            facts: None,
            card: None,
            footprint: Footprint { bytes: 1 << 40, kv_tokens: 9, prefix_bytes: 8, prefix_tokens: 1 << 40 },
            slots: 3,
            figures: SharedFigures::default(),
            restarts: 2,
            process: None,
        };
        Board { models: [("m".to_owned(), entry)].into() }
    }

    #[test]
    fn a_report_says_everything_the_board_does() {
        let memory = Memory { used_bytes: 5, free_bytes: 6 };
        let report = report(4, &board(ModelWord::Failed), memory, false, &mut Told::default());
        assert_eq!((report.sequence, report.memory_used_bytes, report.memory_free_bytes), (4, 5, 6));
        let status = &report.models[0];
        assert_eq!(
            (status.model.as_str(), status.state(), status.reason.as_str()),
            ("m", ModelState::Failed, "why")
        );
        assert_eq!((status.progress_permille, status.slots, status.restarts), (7, 3, 2));
        assert_eq!((status.pid, status.incarnation, status.load_ms), (0, 0, 0), "there is no process");
        assert_eq!(
            (status.footprint_bytes, status.kv_tokens, status.prefix_tokens),
            (1 << 40, 9, u32::MAX),
            "as large as the field can say"
        );
    }

    #[test]
    fn samples_go_into_one_report_to_each_coordinator_and_rates_into_all() {
        let board = board(ModelWord::Ready);
        let figures = &board.models["m"].figures;
        figures.lock().expect("not poisoned").learn(StepStats(0.0, 0, 0.5, 1, 40));
        let told =
            |board, marks: &mut Told| report(1, board, Memory::default(), false, marks).models.remove(0);
        let sample = StepSample { steps: 1, batch: 1.0, kv_tokens: 40.0, seconds: 0.5 };
        let (mut one, mut other) = (Told::default(), Told::default());
        for samples in [vec![sample], vec![]] {
            for marks in [&mut one, &mut other] {
                let status = told(&board, marks);
                assert_eq!(status.samples, samples);
                assert_eq!(status.rates.expect("rates").step_ms, 500.0);
            }
        }
    }

    #[test]
    fn a_draining_mac_offers_nothing_for_new_work_but_tells_failures_as_they_are() {
        for (state, told) in
            [(ModelWord::Ready, ModelState::Stopping), (ModelWord::Failed, ModelState::Failed)]
        {
            let report = report(1, &board(state), Memory::default(), true, &mut Told::default());
            assert_eq!(report.models[0].state(), told);
        }
    }

    #[test]
    fn a_draining_mac_does_not_say_what_it_could_load() {
        let told = |draining| {
            let board = board(ModelWord::Offered);
            report(1, &board, Memory::default(), draining, &mut Told::default()).models
        };
        assert_eq!(told(false)[0].state(), ModelState::Offered);
        assert_eq!(told(true), []);
    }

    #[test]
    fn a_salt_a_chunk_and_what_was_generated_are_handed_on_as_they_are_and_zero_is_no_chunk() {
        let start = AttemptStart {
            cache_salt: "tenant".to_owned(),
            prefill_chunk: 512,
            generated: 3,
            ..AttemptStart::default()
        };
        let asked = generate(start);
        assert_eq!(
            (asked.cache_salt.as_str(), asked.prefill_chunk, asked.generated),
            ("tenant", Some(512), 3)
        );
        let bare = generate(AttemptStart::default());
        assert_eq!((bare.cache_salt.as_str(), bare.prefill_chunk), ("", None));
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
