//! A request's way past what its key may ask for, and what it took in the end.
//!
//! Owns asking the leader before anything is started, the refusal with its headers, the headers on an answer, and the meter that
//! tells once what was taken. Refuses to decide, and to ask where a key has no bounds.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use axum::response::IntoResponse;
use registry::{KeyId, Used, rest_of_month_ms};
use scheduler::Span;
use scheduler::allowance::{Excess, Standing, Standings};
use tokio::sync::oneshot;

use super::access::Who;
use super::error::ApiError;
use super::openai::preparing::Prepared;
use super::{Gateway, limits};
use crate::claims::{Asking, Decided, Verdict};
use crate::clock::unix_ms;
use crate::generation::Failure;
use crate::tally::Tally;

/// A request that may be started.
pub(crate) struct Pass {
    /// `None`: nobody counts.
    pub(crate) meter: Option<Meter>,
    pub(crate) standing: Told,
}

/// A request that may not.
pub(crate) struct Refused {
    error: ApiError,
    standing: Told,
}

/// How the key stands, as a response says it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told(Standings);

/// Tells what a request took, once.
pub(crate) struct Meter {
    key: KeyId,
    tally: Tally,
    /// Where the key has bounds.
    settle: Option<oneshot::Sender<u64>>,
}

impl Pass {
    /// Asks, and waits for a leader as long as the client does.
    pub(crate) async fn of(gateway: &Gateway, who: &Who, prepared: &Prepared) -> Result<Self, Refused> {
        let free = |meter| Self { meter, standing: Told::default() };
        let Who::Key(holder) = who else { return Ok(free(None)) };
        let mut meter = Meter { key: holder.id.clone(), tally: gateway.tally.clone(), settle: None };
        let registry = gateway.registry.borrow().clone();
        let bounded = |key: &registry::ApiKey| !key.grant.allowance.is_unlimited();
        let Some(asking) =
            asking(&holder.id, prepared).filter(|_| registry.key(&holder.id).is_some_and(bounded))
        else {
            return Ok(free(Some(meter)));
        };
        let decided = match prepared.wishes.first() {
            Some(wish) => tokio::time::timeout_at(wish.deadline, gateway.claims.decide(asking)).await,
            None => return Ok(free(Some(meter))),
        };
        let Decided { verdict: Verdict { granted, standings }, settle } = match decided {
            Ok(Some(decided)) => decided,
            Ok(None) => return Err(Failure::ShuttingDown.into()),
            Err(_) => return Err(Failure::DeadlineExceeded.into()),
        };
        let standing = Told(standings);
        match granted {
            Ok(_) => {
                meter.settle = Some(settle);
                Ok(Self { meter: Some(meter), standing })
            }
            Err(excess) => Err(Refused { error: error(excess, &standings), standing }),
        }
    }
}

/// What all its wishes take together; a prompt with several answers counts once.
fn asking(key: &KeyId, prepared: &Prepared) -> Option<Asking> {
    let wishes = &prepared.wishes;
    let first = wishes.first()?;
    let per_prompt = usize::try_from(prepared.options.n).unwrap_or(1).max(1);
    let prompts = wishes.iter().step_by(per_prompt);
    Some(Asking {
        key: key.clone(),
        model: first.model.clone(),
        tenant: first.traits.tenant,
        prompt_tokens: prompts.map(|wish| u64::try_from(wish.prompt.len()).unwrap_or(u64::MAX)).sum(),
        answers: u32::try_from(wishes.len()).unwrap_or(u32::MAX),
        max_tokens: wishes.iter().map(|wish| wish.max_tokens).max().unwrap_or_default(),
        asked: prepared.options.max_tokens.is_some(),
    })
}

impl Meter {
    pub(crate) fn tell(self, used: Used) {
        self.tally.add(&self.key, used);
        if let Some(settle) = self.settle {
            let _ = settle.send(used.tokens());
        }
    }
}

impl Refused {
    pub(crate) fn error(&self) -> &ApiError {
        &self.error
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { error: failure.into(), standing: Told::default() }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        let mut response = self.error.into_response();
        self.standing.tell(response.headers_mut());
        response
    }
}

fn error(excess: Excess, standings: &Standings) -> ApiError {
    let limit = |standing: Option<Standing>| standing.map_or(0, |standing| standing.limit);
    let (requests, tokens) = (limit(standings.requests), limit(standings.tokens));
    match excess {
        Excess::Requests { after } => ApiError::too_many(
            format!(
                "This key may send {requests} requests a minute. Retry-After says when it may send the next one."
            ),
            duration(after),
        ),
        Excess::Tokens { after } => ApiError::too_many(
            format!(
                "This key may use {tokens} tokens a minute, those of its prompts and those that its answers may take. \
                 Retry-After says when there will be enough for this request; a smaller 'max_tokens' needs fewer."
            ),
            duration(after),
        ),
        Excess::Never => ApiError::never_fits(format!(
            "This key may use {tokens} tokens a minute, and the prompt alone has more. Send a shorter one, or ask an \
             administrator for more."
        )),
        Excess::Concurrent => ApiError::too_many(
            "This key has as many requests under way as it may. Send the next one when one of them has ended.",
            limits::RETRY_WHILE_BUSY,
        ),
        Excess::Month => ApiError::quota_exceeded(
            "The tokens of this key for this month are used up. Ask an administrator for more, or wait until the next month \
             begins (UTC).",
            Duration::from_millis(rest_of_month_ms(unix_ms())),
        ),
    }
}

impl Told {
    /// OpenAI's names and forms.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        let Standings { requests, tokens } = self.0;
        for (standing, [limit, remaining, reset]) in [(requests, REQUESTS), (tokens, TOKENS)] {
            let Some(standing) = standing else { continue };
            headers.insert(limit, HeaderValue::from(standing.limit));
            headers.insert(remaining, HeaderValue::from(standing.remaining));
            if let Ok(value) = HeaderValue::from_str(&spoken(duration(standing.reset))) {
                headers.insert(reset, value);
            }
        }
    }
}

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

fn duration(span: Span) -> Duration {
    Duration::from_micros(span.0)
}

/// `120ms`, `1.5s`, `6m0s`: as OpenAI writes a time, which is Go's way. Rounded up to milliseconds.
fn spoken(span: Duration) -> String {
    let ms = span.as_micros().div_ceil(1_000);
    if ms < 1_000 {
        return if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") };
    }
    let mut out = String::new();
    let (minutes, rest) = (ms / 60_000, ms % 60_000);
    if minutes > 0 {
        let _ = write!(out, "{minutes}m");
    }
    let _ = match rest % 1_000 {
        0 => write!(out, "{}s", rest / 1_000),
        part => write!(out, "{}.{}s", rest / 1_000, format!("{part:03}").trim_end_matches('0')),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_openai_writes_it() {
        for (micros, expected) in [
            (0, "0s"),
            (1, "1ms"),
            (17_000, "17ms"),
            (999_001, "1s"),
            (1_500_000, "1.5s"),
            (8_640_000, "8.64s"),
            (12_000_000, "12s"),
            (59_999_500, "1m0s"),
            (60_007_000, "1m0.007s"),
            (360_000_000, "6m0s"),
            (90_500_000, "1m30.5s"),
        ] {
            assert_eq!(spoken(Duration::from_micros(micros)), expected, "{micros}");
        }
    }
}
