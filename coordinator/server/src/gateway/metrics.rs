//! The gateway's metrics, under vLLM's names so that existing boards work.
//!
//! Owns the recorder behind `/metrics` and the timeline of each answer. Refuses labels without a bound: `model_name` comes from
//! the catalogue, never from a client. No text, no key, no client address is recorded.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::limits;
use super::openai::choice::Stage;
use crate::generation::FinishReason;

const SUCCESS: &str = "vllm:request_success_total";
const PROMPT_TOKENS: &str = "vllm:prompt_tokens_total";
const GENERATION_TOKENS: &str = "vllm:generation_tokens_total";
const PREFIX_QUERIES: &str = "vllm:prefix_cache_queries_total";
const PREFIX_HITS: &str = "vllm:prefix_cache_hits_total";
const TIME_TO_FIRST_TOKEN: &str = "vllm:time_to_first_token_seconds";
const INTER_TOKEN: &str = "vllm:inter_token_latency_seconds";
const END_TO_END: &str = "vllm:e2e_request_latency_seconds";
const QUEUE_TIME: &str = "vllm:request_queue_time_seconds";
const PREFILL_TIME: &str = "vllm:request_prefill_time_seconds";
const DECODE_TIME: &str = "vllm:request_decode_time_seconds";

/// Bounds of vLLM's own histograms.
const REQUEST_SECONDS: [f64; 18] =
    [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0];
const FIRST_TOKEN_SECONDS: [f64; 18] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0];
const TOKEN_SECONDS: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Puts the recorder in place, once in a process. Without it everything here records nothing.
pub(crate) fn install() {
    RECORDER.get_or_init(|| {
        let installed = with_buckets(PrometheusBuilder::new()).and_then(PrometheusBuilder::install_recorder);
        let handle = installed
            .inspect_err(|error| tracing::warn!(%error, "no metrics: another recorder is in place"))
            .ok()?;
        describe();
        Some(handle)
    });
}

/// The page that Prometheus reads.
pub(crate) fn render() -> String {
    match RECORDER.get() {
        Some(Some(handle)) => {
            handle.run_upkeep();
            handle.render()
        }
        Some(None) | None => String::new(),
    }
}

fn with_buckets(
    builder: PrometheusBuilder,
) -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    let requests = [END_TO_END, QUEUE_TIME, PREFILL_TIME, DECODE_TIME];
    let builder = builder
        .set_buckets_for_metric(Matcher::Full(TIME_TO_FIRST_TOKEN.to_owned()), &FIRST_TOKEN_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(INTER_TOKEN.to_owned()), &TOKEN_SECONDS)?;
    requests.into_iter().try_fold(builder, |builder, name| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &REQUEST_SECONDS)
    })
}

fn describe() {
    describe_counter!(SUCCESS, "Answers by how they ended.");
    describe_counter!(PROMPT_TOKENS, "Prompt tokens of finished answers.");
    describe_counter!(GENERATION_TOKENS, "Generated tokens.");
    describe_counter!(PREFIX_QUERIES, "Prompt tokens looked up in a prefix cache.");
    describe_counter!(PREFIX_HITS, "Prompt tokens found in a prefix cache.");
    describe_histogram!(TIME_TO_FIRST_TOKEN, Unit::Seconds, "From the request to the first token.");
    describe_histogram!(INTER_TOKEN, Unit::Seconds, "Between two tokens of an answer.");
    describe_histogram!(END_TO_END, Unit::Seconds, "From the request to the end of the answer.");
    describe_histogram!(QUEUE_TIME, Unit::Seconds, "From the request until a node has it.");
    describe_histogram!(PREFILL_TIME, Unit::Seconds, "From the node to the first token.");
    describe_histogram!(DECODE_TIME, Unit::Seconds, "From the first token to the last.");
    describe_gauge!(
        "mlx_queue_seconds",
        Unit::Seconds,
        "How long a model's nodes need for all that wait for it."
    );
    describe_gauge!(
        "mlx_breaker_state",
        "0 closed, 1 degraded, 2 slow start, 3 probing, 4 open; without a model: of the node."
    );
    describe_counter!("mlx_route_decisions_total", "Dispatches by what drew them to their node.");
}

/// Handles of one model's metrics: looked up once for a request, not for each token.
#[derive(Clone)]
pub(crate) struct ModelMetrics {
    model: String,
    inter_token: Histogram,
    generated: Counter,
}

impl ModelMetrics {
    pub(crate) fn of(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            inter_token: histogram!(INTER_TOKEN, "model_name" => model.to_owned()),
            generated: counter!(GENERATION_TOKENS, "model_name" => model.to_owned()),
        }
    }
}

/// When an answer passed its stations.
pub(crate) struct Timeline {
    metrics: ModelMetrics,
    asked: Instant,
    /// Since when its model is being loaded for it, as long as it is.
    loading: Option<Instant>,
    loaded: Duration,
    dispatched: Option<Instant>,
    first: Option<Instant>,
    last: Instant,
    ended: bool,
}

/// Seconds spent at each station, as far as it was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    pub(crate) queue_s: f64,
    /// The part of the queue in which the model was being loaded.
    pub(crate) load_s: f64,
    pub(crate) prefill_s: f64,
    pub(crate) decode_s: f64,
}

impl Timeline {
    pub(crate) fn new(metrics: ModelMetrics, asked: Instant) -> Self {
        let (loaded, ended) = (Duration::ZERO, false);
        Self { metrics, asked, loading: None, loaded, dispatched: None, first: None, last: asked, ended }
    }

    pub(crate) fn queued(&mut self, loading: bool) {
        // After the first node, waiting belongs to what that node cost.
        if self.dispatched.is_some() || loading == self.loading.is_some() {
            return;
        }
        let now = Instant::now();
        let before = std::mem::replace(&mut self.loading, loading.then_some(now));
        self.loaded += before.map_or(Duration::ZERO, |since| now.duration_since(since));
    }

    pub(crate) fn dispatched(&mut self) {
        self.queued(false);
        self.dispatched.get_or_insert_with(Instant::now);
    }

    pub(crate) fn tokens(&mut self, count: usize) {
        let now = Instant::now();
        let count_u32 = u32::try_from(count).unwrap_or(u32::MAX);
        self.metrics.generated.increment(u64::from(count_u32));
        match self.first {
            None => self.first = Some(now),
            // Tokens that came in one frame share the time since the one before.
            Some(_) => {
                let each = now.duration_since(self.last).as_secs_f64() / f64::from(count_u32.max(1));
                self.metrics.inter_token.record_many(each, count);
            }
        }
        self.last = now;
    }

    pub(crate) fn ended(
        &mut self,
        stage: &Stage,
        prompt_tokens: u32,
        cached_tokens: u32,
        completion_tokens: u32,
    ) {
        let reason = match stage {
            Stage::Finished(FinishReason::Stop) => "stop",
            Stage::Finished(FinishReason::Length) => "length",
            Stage::Failed(_) => "error",
            Stage::Unheard | Stage::Queued(_) | Stage::Dispatched | Stage::Answering => "abort",
        };
        self.record_end(reason);
        if reason == "abort" || reason == "error" {
            return;
        }
        let name = || self.metrics.model.clone();
        counter!(PROMPT_TOKENS, "model_name" => name()).increment(u64::from(prompt_tokens));
        counter!(PREFIX_QUERIES, "model_name" => name()).increment(u64::from(prompt_tokens));
        counter!(PREFIX_HITS, "model_name" => name()).increment(u64::from(cached_tokens));
        let spent = self.spent();
        histogram!(END_TO_END, "model_name" => name()).record(self.asked.elapsed().as_secs_f64());
        histogram!(QUEUE_TIME, "model_name" => name()).record(spent.queue_s);
        if let Some(first) = self.first.filter(|_| completion_tokens > 0) {
            let to_first = first.duration_since(self.asked).as_secs_f64();
            histogram!(TIME_TO_FIRST_TOKEN, "model_name" => name()).record(to_first);
            histogram!(PREFILL_TIME, "model_name" => name()).record(spent.prefill_s);
            histogram!(DECODE_TIME, "model_name" => name()).record(spent.decode_s);
        }
    }

    pub(crate) fn spent(&self) -> Spent {
        let dispatched = self.dispatched.unwrap_or(self.last);
        let first = self.first.unwrap_or(self.last);
        Spent {
            queue_s: dispatched.duration_since(self.asked).as_secs_f64(),
            load_s: self.loaded.as_secs_f64(),
            prefill_s: first.duration_since(dispatched).as_secs_f64(),
            decode_s: self.last.duration_since(first).as_secs_f64(),
        }
    }

    fn record_end(&mut self, reason: &'static str) {
        static ANSWERS: AtomicU64 = AtomicU64::new(0);
        self.ended = true;
        counter!(SUCCESS, "model_name" => self.metrics.model.clone(), "finished_reason" => reason)
            .increment(1);
        // Raw samples of histograms pile up until somebody folds them in.
        let folds = ANSWERS.fetch_add(1, Ordering::Relaxed).is_multiple_of(limits::ANSWERS_PER_UPKEEP);
        if folds && let Some(Some(handle)) = RECORDER.get() {
            handle.run_upkeep();
        }
    }
}

impl Drop for Timeline {
    /// The client hung up before the end.
    fn drop(&mut self) {
        if !self.ended {
            self.record_end("abort");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A timeline that began, was dispatched, and had its first and last token so many milliseconds ago.
    fn timeline(asked: u64, dispatched: Option<u64>, first: Option<u64>, last: u64) -> Timeline {
        let now = Instant::now();
        let ago = |ms| now.checked_sub(Duration::from_millis(ms)).expect("the clock is older than a test");
        let mut timeline = Timeline::new(ModelMetrics::of("timeline"), ago(asked));
        timeline.dispatched = dispatched.map(ago);
        timeline.first = first.map(ago);
        timeline.last = ago(last);
        timeline
    }

    #[test]
    fn the_stations_add_up_to_the_whole() {
        let spent = timeline(1_000, Some(900), Some(600), 100).spent();
        let close = |left: f64, right: f64| (left - right).abs() < 1e-6;
        assert!(
            close(spent.queue_s, 0.1) && close(spent.prefill_s, 0.3) && close(spent.decode_s, 0.5),
            "{spent:?}"
        );
    }

    #[test]
    fn a_station_that_was_never_reached_took_no_time() {
        assert_eq!(timeline(500, None, None, 500).spent(), Spent::default());
        let queued_only = timeline(500, Some(400), None, 500).spent();
        assert!(queued_only.queue_s > 0.0);
        assert_eq!((queued_only.prefill_s, queued_only.decode_s), (0.0, 0.0));
    }

    #[test]
    fn an_attempt_on_a_second_node_does_not_lengthen_the_queue() {
        let mut timeline = timeline(1_000, Some(900), Some(600), 100);
        let before = timeline.spent();
        timeline.dispatched();
        assert_eq!(timeline.spent(), before);
    }

    #[test]
    fn every_histogram_has_buckets_in_order() {
        for bounds in [REQUEST_SECONDS.as_slice(), &FIRST_TOKEN_SECONDS, &TOKEN_SECONDS] {
            assert!(bounds.is_sorted() && bounds.first().is_some_and(|first| *first > 0.0));
        }
        assert!(with_buckets(PrometheusBuilder::new()).is_ok());
    }
}
