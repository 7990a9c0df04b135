//! API keys as administrators send and see them.
//!
//! Owns the bodies of a creation and of a change, and the view of a key. A change says only what shall be other than it is;
//! `null` takes a bound away. Refuses to show a secret or its hash.

use std::collections::BTreeSet;
use std::time::Duration;

use registry::{Allowance, ApiKey, Grant, KeyId, KeyUsage, ModelName, Scope, Used};
use serde::{Deserialize, Serialize};

use super::change::said;

/// A key that is to be made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    name: String,
    #[serde(default = "inference")]
    scopes: BTreeSet<Scope>,
    #[serde(default)]
    models: Option<BTreeSet<ModelName>>,
    #[serde(default)]
    expires_in_s: Option<u64>,
    #[serde(default)]
    limits: Limits,
}

/// Bounds of what a key may ask for; what is not said stays, `null` is none.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    #[serde(default, deserialize_with = "said")]
    rpm: Option<Option<u64>>,
    #[serde(default, deserialize_with = "said")]
    tpm: Option<Option<u64>>,
    #[serde(default, deserialize_with = "said")]
    concurrency: Option<Option<u64>>,
    #[serde(default, deserialize_with = "said")]
    tokens_per_month: Option<Option<u64>>,
}

/// What shall be other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyChange {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    scopes: Option<BTreeSet<Scope>>,
    #[serde(default, deserialize_with = "said")]
    models: Option<Option<BTreeSet<ModelName>>>,
    #[serde(default, deserialize_with = "said")]
    expires_in_s: Option<Option<u64>>,
    #[serde(default)]
    limits: Limits,
}

/// A key that can ask models and nothing else.
fn inference() -> BTreeSet<Scope> {
    [Scope::Inference].into()
}

impl NewKey {
    pub(crate) fn grant(self, now_unix_ms: u64) -> Grant {
        let Self { name, scopes, models, expires_in_s, limits } = self;
        Grant {
            name,
            scopes,
            models,
            expires_at_unix_ms: expires_in_s.map(|after_s| later(now_unix_ms, after_s)),
            allowance: limits.of(Allowance::default()),
        }
    }
}

impl KeyChange {
    pub(crate) fn of(self, before: &Grant, now_unix_ms: u64) -> Grant {
        let expires = |after_s: Option<u64>| after_s.map(|after_s| later(now_unix_ms, after_s));
        Grant {
            name: self.name.unwrap_or_else(|| before.name.clone()),
            scopes: self.scopes.unwrap_or_else(|| before.scopes.clone()),
            models: self.models.unwrap_or_else(|| before.models.clone()),
            expires_at_unix_ms: self.expires_in_s.map_or(before.expires_at_unix_ms, expires),
            allowance: self.limits.of(before.allowance),
        }
    }
}

impl Limits {
    fn of(self, before: Allowance) -> Allowance {
        Allowance {
            requests_per_minute: self.rpm.unwrap_or(before.requests_per_minute),
            tokens_per_minute: self.tpm.unwrap_or(before.tokens_per_minute),
            concurrent_requests: self.concurrency.unwrap_or(before.concurrent_requests),
            tokens_per_month: self.tokens_per_month.unwrap_or(before.tokens_per_month),
        }
    }
}

fn later(now_unix_ms: u64, after_s: u64) -> u64 {
    let after_ms = u64::try_from(Duration::from_secs(after_s).as_millis()).unwrap_or(u64::MAX);
    now_unix_ms.saturating_add(after_ms)
}

/// A key as it is shown.
#[derive(Serialize)]
pub(crate) struct KeyView {
    id: String,
    #[serde(flatten)]
    grant: GrantView,
    /// `live`, `expired` or `revoked`.
    state: &'static str,
    revision: u64,
    made_at_unix_ms: u64,
    revoked_at_unix_ms: Option<u64>,
    secrets: Vec<SecretView>,
    usage: UsageView,
}

#[derive(Serialize)]
struct GrantView {
    name: String,
    scopes: Vec<&'static str>,
    /// `null`: every one.
    models: Option<Vec<String>>,
    expires_at_unix_ms: Option<u64>,
    limits: LimitsView,
}

/// `null`: there is no such bound.
#[derive(Serialize)]
struct LimitsView {
    rpm: Option<u64>,
    tpm: Option<u64>,
    concurrency: Option<u64>,
    tokens_per_month: Option<u64>,
}

/// By the calendar of UTC.
#[derive(Serialize)]
struct UsageView {
    today: Used,
    this_month: Used,
}

#[derive(Serialize)]
struct SecretView {
    number: u32,
    made_at_unix_ms: u64,
}

impl KeyView {
    pub(crate) fn new(id: &KeyId, key: &ApiKey, usage: Option<&KeyUsage>, now_unix_ms: u64) -> Self {
        let grant = &key.grant;
        let Allowance { requests_per_minute, tokens_per_minute, concurrent_requests, tokens_per_month } =
            grant.allowance;
        let names = |models: &BTreeSet<ModelName>| models.iter().map(ToString::to_string).collect();
        Self {
            id: id.to_string(),
            grant: GrantView {
                name: grant.name.clone(),
                scopes: grant.scopes.iter().map(|scope| scope.name()).collect(),
                models: grant.models.as_ref().map(names),
                expires_at_unix_ms: grant.expires_at_unix_ms,
                limits: LimitsView {
                    rpm: requests_per_minute,
                    tpm: tokens_per_minute,
                    concurrency: concurrent_requests,
                    tokens_per_month,
                },
            },
            state: match (key.is_revoked(), grant.has_expired(now_unix_ms)) {
                (true, _) => "revoked",
                (false, true) => "expired",
                (false, false) => "live",
            },
            revision: key.revision,
            made_at_unix_ms: key.made_at_unix_ms,
            revoked_at_unix_ms: key.revoked_at_unix_ms,
            secrets: key
                .secrets()
                .map(|(number, secret)| SecretView { number, made_at_unix_ms: secret.made_at_unix_ms })
                .collect(),
            usage: UsageView {
                today: usage.map(|usage| usage.day(now_unix_ms)).unwrap_or_default(),
                this_month: usage.map(|usage| usage.month(now_unix_ms)).unwrap_or_default(),
            },
        }
    }
}
