//! Who may do what on this API: one decision for every route.
//!
//! Owns authentication (a key of the registry, or the local key of this coordinator), the scopes that routes need, and the end
//! of what runs under a key that is revoked. Keys are looked up in the registry as this replica knows it, so a revocation holds
//! here as soon as it has arrived. Refuses to keep what a client showed, and to tell a wrong secret from an unknown key.

pub(crate) mod credential;
mod cutting;
mod guard;
pub(crate) mod local_key;
pub(crate) mod secret;

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use registry::{Grant, KeyId, ModelName, Registry, Scope};
use tokio::sync::watch;

pub(crate) use self::guard::{Guard, check};
use self::local_key::LocalKey;
use self::secret::ShownKey;
use super::error::ApiError;
use crate::clock::unix_ms;

/// The sender of a request, as far as his key tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Without a key, on an API that needs none.
    Anonymous,
    /// Whoever can read the folder of this coordinator.
    Local,
    Key(Holder),
}

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // The guard stands before every route; should one be without, nobody passes.
        let who = parts.extensions.get().cloned();
        who.ok_or_else(|| ApiError::internal("Nobody asked who sent this request."))
    }
}

/// Whoever holds a key of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) id: KeyId,
    models: Option<Arc<BTreeSet<ModelName>>>,
}

impl Who {
    /// Whether there is such a model for him.
    pub(crate) fn may_ask(&self, model: &str) -> bool {
        match self {
            Self::Anonymous | Self::Local => true,
            Self::Key(holder) => {
                let listed =
                    |models: &Arc<BTreeSet<ModelName>>| models.iter().any(|name| name.as_str() == model);
                holder.models.as_ref().is_none_or(listed)
            }
        }
    }
}

/// What a route asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// It tells a stranger nothing that he could use.
    Nothing,
    Scope(Scope),
}

/// What a request's headers show.
enum Shown {
    Nothing,
    Unknown,
    Local,
    Key(KeyId, Grant),
}

/// What opens this API.
#[derive(Clone)]
pub(crate) struct Access {
    registry: watch::Receiver<Arc<Registry>>,
    local: Arc<LocalKey>,
    /// Only programs on this machine can reach it.
    on_loopback: bool,
}

impl Access {
    pub(crate) fn new(
        registry: watch::Receiver<Arc<Registry>>,
        local: Arc<LocalKey>,
        api: SocketAddr,
    ) -> Self {
        Self { registry, local, on_loopback: api.ip().is_loopback() }
    }

    /// Decides in this order:
    /// 1. the local key of this coordinator opens everything;
    /// 2. a key of the registry opens what its scopes say, and nothing when its time is over;
    /// 3. on loopback, before the first key is made, everybody may ask and look, whatever else he shows;
    /// 4. everybody else needs a key.
    pub(crate) fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<Who, ApiError> {
        match self.look_at(headers) {
            Shown::Local => Ok(Who::Local),                                             // 1
            Shown::Key(id, grant) => holder(id, grant, scope, unix_ms()).map(Who::Key), // 2
            Shown::Nothing | Shown::Unknown if self.is_open() && scope != Scope::Admin => Ok(Who::Anonymous), // 3
            Shown::Nothing => Err(missing()), // 4
            Shown::Unknown => Err(wrong()),
        }
    }

    /// Whoever holds this key, if it opens `scope` at this moment: for what goes on without its holder.
    pub(crate) fn holder(&self, id: &KeyId, scope: Scope) -> Result<Who, ApiError> {
        let registry = self.registry.borrow().clone();
        let key = registry.key(id).filter(|key| !key.is_revoked()).ok_or_else(wrong)?;
        holder(id.clone(), key.grant.clone(), scope, unix_ms()).map(Who::Key)
    }

    /// Whether strangers are served at all.
    pub(crate) fn is_open(&self) -> bool {
        self.on_loopback && !self.registry.borrow().is_keyed()
    }

    /// A key came with it that is good at this moment, for whatever it may be used.
    pub(crate) fn knows(&self, headers: &HeaderMap) -> bool {
        match self.look_at(headers) {
            Shown::Local => true,
            Shown::Key(_, grant) => !grant.has_expired(unix_ms()),
            Shown::Nothing | Shown::Unknown => false,
        }
    }

    fn look_at(&self, headers: &HeaderMap) -> Shown {
        let Some(shown) = credential::of(headers) else { return Shown::Nothing };
        if self.local.is(shown) {
            return Shown::Local;
        }
        let Some(shown) = ShownKey::parse(shown) else { return Shown::Unknown };
        let registry = self.registry.borrow().clone();
        let key = registry.key(&shown.id).filter(|key| key.opens_with(&shown.hash()));
        key.map_or(Shown::Unknown, |key| Shown::Key(shown.id, key.grant.clone()))
    }

    /// Until he may do this no longer. A shorter list of models and an expiry hold from the next request on.
    pub(crate) async fn ended(mut self, who: Who, scope: Scope) -> ApiError {
        let Who::Key(holder) = who else { return std::future::pending().await };
        let lost = |registry: &Arc<Registry>| {
            let key = registry.key(&holder.id).filter(|key| !key.is_revoked());
            key.is_none_or(|key| !key.grant.scopes.contains(&scope))
        };
        let stopped = self.registry.wait_for(lost).await.is_err();
        // The registry goes away with the coordinator, and so does the answer.
        if stopped { std::future::pending().await } else { wrong() }
    }
}

fn holder(id: KeyId, grant: Grant, scope: Scope, now_unix_ms: u64) -> Result<Holder, ApiError> {
    if grant.has_expired(now_unix_ms) {
        return Err(expired());
    }
    if !grant.scopes.contains(&scope) {
        return Err(forbidden(scope));
    }
    Ok(Holder { id, models: grant.models.map(Arc::new) })
}

const HOW_TO_SEND: &str = "Send it as 'Authorization: Bearer mlx_…'";

fn missing() -> ApiError {
    unauthorised(format!(
        "This API needs a key. {HOW_TO_SEND}; an administrator makes one with `mlx-serving keys create`."
    ))
}

fn wrong() -> ApiError {
    unauthorised(
        "This API key is unknown, wrong or revoked. Ask an administrator for another one.".to_owned(),
    )
}

fn expired() -> ApiError {
    unauthorised(
        "The time of this API key is over. Ask an administrator for more, or for another key.".to_owned(),
    )
}

fn unauthorised(message: String) -> ApiError {
    ApiError::refused(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
}

fn forbidden(scope: Scope) -> ApiError {
    let message = format!("This path needs a key with the scope '{scope}', which yours does not have.");
    ApiError::refused(StatusCode::FORBIDDEN, "permission_denied", message)
}
