//! Drawn workloads have the statistics of the traces they are modelled on.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};

use simulation::fleet::{Fleet, FleetPlan, eight_macs};
use simulation::request::{BLOCK_TOKENS, Workload};
use simulation::workload::{Source, WorkloadPlan};

fn fleet() -> Fleet {
    FleetPlan::of(eight_macs(), &["8b"; 6]).build().expect("a fleet")
}

fn drawn(source: Source, hours: f64) -> Workload {
    let plan = WorkloadPlan { source, hours, length_scale: 1.0, ..WorkloadPlan::default() };
    plan.build(&fleet(), 1).expect("a workload")
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

fn quantile(work: &Workload, share: f64) -> f64 {
    let mut prompts: Vec<u32> = work.requests.iter().map(|request| request.prompt_tokens).collect();
    prompts.sort_unstable();
    f64::from(prompts[(prompts.len() as f64 * share) as usize])
}

/// Coefficient of variation of the time between arrivals.
fn variation(work: &Workload) -> f64 {
    let gaps: Vec<f64> =
        work.requests.windows(2).map(|pair| (pair[1].arrived.0 - pair[0].arrived.0) as f64).collect();
    let mean_gap = mean(gaps.iter().copied());
    mean(gaps.iter().map(|gap| (gap - mean_gap).powi(2))).sqrt() / mean_gap
}

fn assert_near(what: &str, value: f64, wanted: f64, share: f64) {
    assert!((value / wanted - 1.0).abs() <= share, "{what}: {value} is not {wanted}");
}

#[test]
fn chat_has_azure_s_lengths_and_pace() {
    let work = drawn(Source::AzureChat, 12.0);
    assert_near("prompt median", quantile(&work, 0.5), 1_020.0, 0.05);
    assert_near("prompt p99", quantile(&work, 0.99), 4_142.0, 0.05);
    assert_near("prompt mean", mean(work.requests.iter().map(|r| f64::from(r.prompt_tokens))), 1_155.0, 0.05);
    assert_near("answer mean", mean(work.requests.iter().map(|r| f64::from(r.output_tokens()))), 211.0, 0.05);
    assert_near("variation", variation(&work), 1.09, 0.05);
}

#[test]
fn code_has_azure_s_lengths_and_bursts() {
    let work = drawn(Source::AzureCode, 24.0);
    assert_near("prompt mean", mean(work.requests.iter().map(|r| f64::from(r.prompt_tokens))), 2_048.0, 0.05);
    assert_near("answer mean", mean(work.requests.iter().map(|r| f64::from(r.output_tokens()))), 28.0, 0.08);
    assert_near("variation", variation(&work), 13.2, 0.1);
}

#[test]
fn conversations_have_mooncake_s_lengths_turns_and_reuse() {
    let work = drawn(Source::Conversation, 96.0);
    assert_near("prompt median", quantile(&work, 0.5), 6_909.0, 0.08);
    assert_near(
        "prompt mean",
        mean(work.requests.iter().map(|r| f64::from(r.prompt_tokens))),
        12_035.0,
        0.08,
    );
    assert_near("answer mean", mean(work.requests.iter().map(|r| f64::from(r.output_tokens()))), 343.0, 0.05);
    let mut turns: BTreeMap<u64, u32> = BTreeMap::new();
    work.requests.iter().for_each(|request| *turns.entry(request.session.0).or_default() += 1);
    assert_near("turns", mean(turns.values().map(|turns| f64::from(*turns))), 1.63, 0.05);
    let single = turns.values().filter(|turns| **turns == 1).count() as f64 / turns.len() as f64;
    assert_near("single turns", single, 0.61, 0.05);
    assert_near("reuse", reuse(&work), 0.366, 0.1);
}

/// The share of prompt blocks that somebody has sent before.
fn reuse(work: &Workload) -> f64 {
    let (mut seen, mut again, mut all) = (HashSet::new(), 0, 0);
    for request in &work.requests {
        let prompt = work.prompt(request.chain);
        again += prompt.iter().filter(|block| seen.contains(&block.0)).count();
        all += prompt.len();
        seen.extend(work.whole(request.chain).iter().map(|block| block.0));
    }
    again as f64 / all as f64
}

#[test]
fn half_of_the_pauses_between_turns_are_shorter_than_123_seconds() {
    let work = drawn(Source::Conversation, 96.0);
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut pauses = Vec::new();
    for request in &work.requests {
        let before = last.insert(request.session.0, request.arrived.0);
        pauses.extend(before.map(|before| (request.arrived.0 - before) as f64 / 1e6));
    }
    pauses.sort_by(f64::total_cmp);
    assert_near("pause", pauses[pauses.len() / 2], 123.0, 0.15);
}

#[test]
fn a_few_tenants_ask_for_most_and_models_are_asked_for_by_zipf() {
    let work = drawn(Source::AzureChat, 12.0);
    let mut tenants: BTreeMap<u32, usize> = BTreeMap::new();
    work.requests.iter().for_each(|request| *tenants.entry(request.tenant.0).or_default() += 1);
    let mut counts: Vec<usize> = tenants.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let top: usize = counts.iter().take(10).sum();
    let share = top as f64 / work.requests.len() as f64;
    assert!((0.6..0.9).contains(&share), "the ten largest tenants ask for {share}");
    let of_model =
        |model: u32| work.requests.iter().filter(|request| request.model.0 == model).count() as f64;
    assert_near("first to third model", of_model(0) / of_model(2), 3.0, 0.1);
}

#[test]
fn each_turn_begins_with_all_that_was_said_before_and_no_tenant_has_another_s_blocks() {
    let work = drawn(Source::Conversation, 24.0);
    let mut said: BTreeMap<u64, Vec<scheduler::Block>> = BTreeMap::new();
    let mut owner: BTreeMap<u64, u32> = BTreeMap::new();
    for request in &work.requests {
        assert_eq!(request.chain.prompt, request.prompt_tokens / BLOCK_TOKENS);
        let whole = work.whole(request.chain).to_vec();
        let before = said.insert(request.session.0, whole.clone()).unwrap_or_default();
        assert!(work.prompt(request.chain).starts_with(&before));
        for block in whole {
            assert_eq!(*owner.entry(block.0).or_insert(request.tenant.0), request.tenant.0);
        }
    }
}

#[test]
fn the_flooding_tenant_comes_in_the_middle_and_the_others_as_without_it() {
    let calm = WorkloadPlan { load: Some(0.4), tenants: 10, hours: 3.0, ..WorkloadPlan::default() };
    let flood = WorkloadPlan { flood: 2.0, ..calm.clone() };
    let fleet = fleet();
    let flood = flood.build(&fleet, 1).expect("a workload");
    let flooding = || flood.requests.iter().filter(|request| request.tenant.0 == 10);
    assert!(flooding().count() > flood.requests.len() / 3);
    let third = 3_600_000_000;
    assert!(flooding().all(|request| (third..2 * third).contains(&request.arrived.0)));
    let calm = calm.build(&fleet, 1).expect("a workload");
    let others = flood.requests.iter().filter(|request| request.tenant.0 != 10);
    let lengths = |prompt_tokens| prompt_tokens;
    assert!(
        others.map(|r| lengths(r.prompt_tokens)).eq(calm.requests.iter().map(|r| lengths(r.prompt_tokens)))
    );
}

#[test]
fn a_trace_is_read_scaled_and_dressed() {
    let line = |at: u32, hashes: &str| {
        format!(
            "{{\"timestamp\": {at}, \"input_length\": 2048, \"output_length\": 40, \"hash_ids\": [{hashes}]}}\n"
        )
    };
    let work = traced(&[line(0, "1, 2, 3, 4"), line(3_000, "1, 2, 8, 9")].concat()).expect("a workload");
    let [first, second] = &work.requests[..] else { panic!("two requests") };
    assert_eq!((second.arrived.0, second.prompt_tokens, second.output_tokens()), (3_000_000, 1_024, 20));
    assert_eq!(work.prompt(first.chain)[..2], work.prompt(second.chain)[..2]);
    assert_ne!(work.prompt(first.chain)[2], work.prompt(second.chain)[2]);
}

#[test]
fn a_trace_may_say_which_model_is_asked_for_and_how_long_an_answer_may_be() {
    let line = |more: &str| {
        format!("{{\"timestamp\": 0, \"input_length\": 20, \"output_length\": 40, \"hash_ids\": []{more}}}\n")
    };
    let text =
        [line(", \"model\": 5, \"max_length\": 90"), line(", \"model\": 0, \"max_length\": 5")].concat();
    let work = traced(&text).expect("a workload");
    let asked: Vec<_> = work.requests.iter().map(|request| (request.model.0, request.max_tokens)).collect();
    assert_eq!(asked, [(5, 90), (0, 20)], "nobody says more than it may");
    assert_eq!(traced(&line(", \"model\": 7")), Err("line 1 asks for model 7 of 6".to_string()));
}

/// The workload of a trace of Mooncake's at half the lengths.
fn traced(text: &str) -> Result<Workload, String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("simulation-{}-{number}.jsonl", std::process::id()));
    std::fs::write(&path, text).expect("a file");
    let source = Source::Trace(path.to_string_lossy().into_owned());
    let plan = WorkloadPlan { source, load: None, length_scale: 0.5, ..WorkloadPlan::default() };
    let work = plan.build(&fleet(), 1);
    std::fs::remove_file(&path).expect("removed");
    work
}
