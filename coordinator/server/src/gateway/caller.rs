//! Who asks, and what the headers say about how: one reading of them for all endpoints.
//!
//! Owns the tenant (each key is one; without keys each bearer token is; its hash stays, the token does not), `x-mlx-class`, `x-mlx-no-cache`, and the
//! headers in which clients name a session. Refuses values it would have to guess at. A session's name that is too long is no
//! reason to refuse an answer: it is named as ignored.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use scheduler::Class;

use super::access::{Who, credential};
use super::error::ApiError;
use super::hash_keys::HashKeys;
use super::limits;

const CLASS: &str = "x-mlx-class";
const NO_CACHE: &str = "x-mlx-no-cache";

/// The first that a request has counts. Of opencode, Claude Code and Codex.
const SESSION_HEADERS: [&str; 5] =
    ["x-session-affinity", "x-session-id", "x-claude-code-session-id", "session-id", "thread-id"];

/// The sender of a request, as far as its headers tell.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) keys: Arc<HashKeys>,
    /// 0: nobody in particular.
    pub(crate) tenant: u64,
    /// `None`: the body decides.
    pub(crate) class: Option<Class>,
    pub(crate) session: Option<u64>,
    /// Whether prefixes may be taken from a cache and kept in it.
    pub(crate) cache: bool,
    pub(crate) ignored: Vec<String>,
}

impl Caller {
    pub(crate) fn of(headers: &HeaderMap, who: &Who, keys: &Arc<HashKeys>) -> Result<Self, ApiError> {
        // Two parts are never the number of one, so no token of a stranger makes him the holder of a key.
        let number = |parts: &[&[u8]]| keys.tenants.number(parts).max(1);
        let tenant = match who {
            Who::Anonymous => credential::of(headers).map_or(0, |token| number(&[token])),
            Who::Local => number(&[b"local", b""]),
            Who::Key(holder) => number(&[b"key", holder.id.0.as_bytes()]),
        };
        let anonymous = Self {
            keys: keys.clone(),
            tenant,
            class: class(headers)?,
            session: None,
            cache: !no_cache(headers)?,
            ignored: Vec::new(),
        };
        Ok(SESSION_HEADERS.into_iter().fold(anonymous, |caller, name| caller.with_session(headers, name)))
    }

    /// The number of a session of this tenant; `None` when the name is empty or too long to be one.
    pub(crate) fn session(&self, name: &[u8]) -> Option<u64> {
        let named = (1..=limits::SESSION_BYTES_MAX).contains(&name.len());
        named.then(|| self.keys.sessions.number(&[&self.tenant.to_le_bytes(), name]))
    }

    fn with_session(mut self, headers: &HeaderMap, name: &str) -> Self {
        let Some(value) = headers.get(name).filter(|value| !value.is_empty()) else { return self };
        if self.session.is_none() {
            self.session = self.session(value.as_bytes());
            if self.session.is_none() {
                self.ignored.push(name.to_owned());
            }
        }
        self
    }
}

fn class(headers: &HeaderMap) -> Result<Option<Class>, ApiError> {
    match headers.get(CLASS).map(HeaderValue::as_bytes) {
        None => Ok(None),
        Some(b"interactive") => Ok(Some(Class::Interactive)),
        Some(b"batch") => Ok(Some(Class::Batch)),
        Some(_) => Err(invalid(CLASS, "'interactive' or 'batch'")),
    }
}

fn no_cache(headers: &HeaderMap) -> Result<bool, ApiError> {
    match headers.get(NO_CACHE).map(HeaderValue::as_bytes) {
        None | Some(b"0") => Ok(false),
        Some(b"1") => Ok(true),
        Some(_) => Err(invalid(NO_CACHE, "'1' or '0'")),
    }
}

fn invalid(header: &str, allowed: &str) -> ApiError {
    let message = format!("Invalid value for the header '{header}': it must be {allowed}.");
    ApiError::invalid("invalid_value", header, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Arc<HashKeys> {
        Arc::new(HashKeys::new([7; 32]))
    }

    fn caller(headers: &[(&'static str, &str)]) -> Result<Caller, ApiError> {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Caller::of(&headers, &Who::Anonymous, &keys())
    }

    fn tenant(headers: &[(&'static str, &str)]) -> u64 {
        caller(headers).unwrap_or_else(|error| panic!("{error}")).tenant
    }

    fn session(headers: &[(&'static str, &str)]) -> Option<u64> {
        caller(headers).unwrap_or_else(|error| panic!("{error}")).session
    }

    #[test]
    fn each_token_is_a_tenant_wherever_it_stands() {
        let tenant_a = tenant(&[("authorization", "Bearer a")]);
        for same in ["Bearer a", "bearer a", "BEARER  a ", "Bearer a"] {
            assert_eq!(tenant(&[("authorization", same)]), tenant_a, "{same}");
        }
        assert_eq!(tenant(&[("x-api-key", "a")]), tenant_a);
        assert_eq!(tenant(&[("authorization", "Bearer a"), ("x-api-key", "b")]), tenant_a);
        assert_ne!(tenant(&[("authorization", "Bearer b")]), tenant_a);
        assert_ne!(tenant_a, 0);
    }

    #[test]
    fn without_a_token_nobody_in_particular_asks() {
        for none in ["Bearer", "Bearer ", "Bearer   ", "Basic YTpi", ""] {
            assert_eq!(tenant(&[("authorization", none)]), 0, "{none:?}");
        }
        assert_eq!(tenant(&[]), 0);
        assert_eq!(tenant(&[("x-api-key", " ")]), 0);
    }

    #[test]
    fn the_first_session_header_counts_in_the_order_of_the_list() {
        let mut headers = Vec::new();
        for name in SESSION_HEADERS.into_iter().rev() {
            headers.push((name, name));
            assert_eq!(session(&headers), session(&[("thread-id", name)]), "{name} comes before the rest");
        }
        assert_eq!(session(&[("x-session-id", "")]), None);
        assert_eq!(session(&[("x-session-id", ""), ("thread-id", "t")]), session(&[("thread-id", "t")]));
    }

    #[test]
    fn the_same_session_name_of_another_tenant_is_another_session() {
        let of = |token| session(&[("authorization", token), ("x-session-id", "s")]);
        assert_ne!(of("Bearer a"), of("Bearer b"));
        assert_ne!(of("Bearer a"), session(&[("x-session-id", "s")]));
        assert_eq!(of("Bearer a"), of("Bearer a"));
    }

    #[test]
    fn a_session_name_that_is_too_long_is_named_and_the_next_one_counts() {
        let (fits, long) = ("x".repeat(limits::SESSION_BYTES_MAX), "x".repeat(limits::SESSION_BYTES_MAX + 1));
        assert!(session(&[("x-session-id", &fits)]).is_some());
        let judged =
            caller(&[("x-session-id", &long), ("thread-id", "t")]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(judged.session, session(&[("thread-id", "t")]));
        assert_eq!(judged.ignored, ["x-session-id"]);
    }

    #[test]
    fn class_and_cache_are_what_the_headers_say_and_nothing_is_guessed() {
        let said = |headers: &[(&'static str, &str)]| {
            let caller = caller(headers).unwrap_or_else(|error| panic!("{error}"));
            (caller.class, caller.cache)
        };
        assert_eq!(said(&[]), (None, true));
        assert_eq!(said(&[(CLASS, "batch")]), (Some(Class::Batch), true));
        assert_eq!(said(&[(CLASS, "interactive"), (NO_CACHE, "0")]), (Some(Class::Interactive), true));
        assert_eq!(said(&[(NO_CACHE, "1")]), (None, false));
        for (header, value, words) in [
            (CLASS, "urgent", "it must be 'interactive' or 'batch'"),
            (CLASS, "", "it must be 'interactive' or 'batch'"),
            (NO_CACHE, "yes", "it must be '1' or '0'"),
        ] {
            let error = caller(&[(header, value)]).err().expect("refused");
            assert_eq!((error.code, error.param.as_deref()), ("invalid_value", Some(header)));
            assert!(error.message.ends_with(&format!("{words}.")), "{}", error.message);
        }
    }
}
