//! Laws about what a client of the score may rely on, seen from outside: one question asked twice, with one thing changed.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use scheduler::{
    At, Candidate, Class, Command, Fingerprint, Limits, Measured, ModelId, ModelReport, ModelState, NodeId,
    NodeReport, Rates, RequestId, Scheduler, Span, Submission, TenantId, Terms,
};

const MODEL: ModelId = ModelId(1);

fn rates() -> impl Strategy<Value = Rates> {
    (20.0_f32..5_000.0, 2.0_f32..300.0, 0.01_f32..1.0).prop_map(|(prefill, step, slope)| Rates {
        prefill_tokens_per_s: prefill,
        step_ms: step,
        batch_slope: slope,
    })
}

fn submission(request: u64, prompt_tokens: u32, max_tokens: u32) -> Submission {
    Submission {
        request: RequestId(request),
        model: MODEL,
        tenant: TenantId(1),
        class: Class::Interactive,
        prompt_tokens,
        max_tokens,
        output_tokens: None,
        blocks: [].into(),
        session: None,
        fingerprint: Fingerprint(request),
        arrived: At(0),
        deadline: At(u64::MAX),
    }
}

fn room(nodes: &[Rates], slots: u32) -> Scheduler {
    // As wide as their slots, and nobody holds back: these laws are about the score.
    let mut limits = Limits {
        bind_ahead: Span::from_s(3_600),
        hold_max: Span::ZERO,
        fresh_width: 256,
        inter_token_target: Span::from_s(3_600),
        inter_token_most: Span::from_s(3_600),
        ..Limits::default()
    };
    limits.rates_learning.gain_min = 0.0;
    limits.rates_learning.gain_min_in_line = 0.0;
    limits.overload.full = Span::from_s(1_000_000);
    let mut scheduler = Scheduler::new(limits);
    for (node, rates) in (1..).zip(nodes) {
        let model = ModelReport {
            model: MODEL,
            state: ModelState::Ready,
            slots,
            kv_tokens: 0,
            prefix_tokens: 0,
            bytes: 0,
            rates: *rates,
            measured: Measured::default(),
        };
        let report = NodeReport { models: vec![model], ..NodeReport::default() };
        scheduler.apply(At(0), Command::NodeReported { node: NodeId(node), report }, &mut Vec::new());
    }
    scheduler
}

/// Submits and returns how the nodes looked to the request, the chosen one first.
fn ask(scheduler: &mut Scheduler, submission: Submission) -> Result<Vec<Candidate>, TestCaseError> {
    let request = submission.request;
    scheduler.apply(At(0), Command::Submit(submission), &mut Vec::new());
    let verdict = scheduler.explain(request);
    verdict.map(|verdict| verdict.candidates).ok_or_else(|| TestCaseError::fail("no verdict"))
}

fn alone(rates: Rates, prompt_tokens: u32, max_tokens: u32) -> Result<Terms, TestCaseError> {
    let candidates = ask(&mut room(&[rates], 1), submission(1, prompt_tokens, max_tokens))?;
    candidates.first().map(|candidate| candidate.terms).ok_or_else(|| TestCaseError::fail("no candidate"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_chosen_node_has_the_lowest_score_of_all_open_ones(
        nodes in proptest::collection::vec(rates(), 1..8),
        prompts in proptest::collection::vec(0_u32..20_000, 1..12),
    ) {
        let mut scheduler = room(&nodes, 2);
        for (request, prompt) in (1..).zip(prompts) {
            let candidates = ask(&mut scheduler, submission(request, prompt, 200))?;
            let open = candidates.iter().filter(|candidate| candidate.gate.is_none());
            let best = open.map(|candidate| (candidate.terms.total(), candidate.node)).min();
            let chosen = candidates.first().filter(|first| first.gate.is_none());
            prop_assert_eq!(chosen.map(|chosen| (chosen.terms.total(), chosen.node)), best);
        }
    }

    #[test]
    fn a_longer_prompt_or_a_longer_answer_is_never_cheaper(
        rates in rates(), prompt in 0_u32..50_000, answer in 1_u32..250, more in 1_u32..10_000,
    ) {
        let base = alone(rates, prompt, answer)?;
        prop_assert!(alone(rates, prompt + more, answer)?.prefill >= base.prefill);
        prop_assert!(alone(rates, prompt, answer + more)?.decode >= base.decode);
    }

    #[test]
    fn a_faster_node_is_never_dearer(rates in rates(), factor in 1.0_f32..10.0, prompt in 0_u32..50_000) {
        let faster = Rates {
            prefill_tokens_per_s: rates.prefill_tokens_per_s * factor,
            step_ms: rates.step_ms / factor,
            ..rates
        };
        prop_assert!(alone(faster, prompt, 200)?.total() <= alone(rates, prompt, 200)?.total());
    }

    #[test]
    fn each_neighbour_makes_a_node_dearer(rates in rates(), prompt in 1_u32..5_000, neighbours in 1_u64..8) {
        let mut scheduler = room(&[rates], 9);
        let mut last = Span::ZERO;
        for request in 1..=neighbours {
            let candidates = ask(&mut scheduler, submission(request, prompt, 200))?;
            let total = candidates.first().map_or(Span::ZERO, |candidate| candidate.terms.total());
            prop_assert!(total > last, "{:?} is not above {:?}", total, last);
            last = total;
        }
    }

    #[test]
    fn the_further_back_the_later_the_start(rates in rates(), waiting in 2_u64..20) {
        let mut scheduler = room(&[rates], 1);
        for request in 0..=waiting {
            scheduler.apply(At(0), Command::Submit(submission(request, 500, 100)), &mut Vec::new());
        }
        let etas: Vec<_> = (1..=waiting).map(|request| scheduler.position(RequestId(request)).and_then(|place| place.eta)).collect();
        prop_assert!(etas.iter().all(Option::is_some));
        prop_assert!(etas.is_sorted_by(|earlier, later| earlier < later), "{:?}", etas);
    }

    #[test]
    fn equal_nodes_share_the_work_evenly(rates in rates(), nodes in 1_usize..6, rounds in 1_u64..4) {
        let mut scheduler = room(&vec![rates; nodes], 4);
        for request in 0..rounds * nodes as u64 {
            scheduler.apply(At(0), Command::Submit(submission(request, 300, 100)), &mut Vec::new());
        }
        let rounds = usize::try_from(rounds).expect("few");
        prop_assert!(scheduler.load().nodes.values().all(|running| *running == rounds), "{:?}", scheduler.load().nodes);
    }
}
