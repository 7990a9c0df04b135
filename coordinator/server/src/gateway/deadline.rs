//! How long a client waits, from its headers.
//!
//! Owns `x-request-timeout-ms` (the whole answer, in any delivery) and the SDKs' `x-stainless-read-timeout` and
//! `x-stainless-timeout` in seconds. An SDK's read time-out measures silence: it is the whole wait for an answer in one piece,
//! and says nothing about a stream, which is never silent for so long. Values that are no numbers are as good as absent: the
//! SDKs send words there for "none".

use std::time::Duration;

use axum::http::HeaderMap;
use tokio::time::Instant;

use super::limits;
use super::openai::options::Delivery;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Patience {
    whole_answer: Option<Duration>,
    silence: Option<Duration>,
}

impl Patience {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
        let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
        Self {
            whole_answer: number("x-request-timeout-ms").and_then(|ms| duration(ms / 1e3)),
            silence: number("x-stainless-read-timeout")
                .or_else(|| number("x-stainless-timeout"))
                .and_then(duration),
        }
    }

    /// The moment after which nobody waits any more.
    pub(crate) fn deadline(self, delivery: Delivery) -> Instant {
        let patience = match delivery {
            Delivery::Whole => self.whole_answer.or(self.silence).unwrap_or(limits::DEADLINE),
            Delivery::Stream { .. } => self.whole_answer.unwrap_or(limits::STREAM_DEADLINE),
        };
        Instant::now() + patience.min(limits::DEADLINE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(headers: &[(&'static str, &'static str)], delivery: Delivery) -> Duration {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Patience::of(&headers).deadline(delivery).duration_since(Instant::now())
    }

    const STREAM: Delivery = Delivery::Stream { include_usage: false };

    #[tokio::test(start_paused = true)]
    async fn a_whole_answer_is_waited_for_as_long_as_the_sdk_waits() {
        assert_eq!(patience(&[], Delivery::Whole), limits::DEADLINE);
        assert_eq!(
            patience(&[("x-stainless-read-timeout", "12.5")], Delivery::Whole),
            Duration::from_millis(12_500)
        );
        assert_eq!(patience(&[("x-stainless-timeout", "30")], Delivery::Whole), Duration::from_secs(30));
        assert_eq!(patience(&[("x-stainless-read-timeout", "NOT_GIVEN")], Delivery::Whole), limits::DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_timeout_does_not_end_a_stream_but_a_total_does() {
        assert_eq!(patience(&[("x-stainless-read-timeout", "600")], STREAM), limits::STREAM_DEADLINE);
        let both = [("x-stainless-read-timeout", "600"), ("x-request-timeout-ms", "1500")];
        assert_eq!(patience(&both, STREAM), Duration::from_millis(1_500));
        assert_eq!(patience(&both, Delivery::Whole), Duration::from_millis(1_500));
    }

    #[tokio::test(start_paused = true)]
    async fn absurd_waits_are_bounded() {
        for absurd in ["1e300", "-5", "inf", "nan"] {
            let waited = patience(&[("x-request-timeout-ms", absurd)], Delivery::Whole);
            assert!(waited <= limits::DEADLINE_MAX, "{absurd}");
        }
        assert_eq!(patience(&[("x-request-timeout-ms", "1e14")], STREAM), limits::DEADLINE_MAX);
    }
}
