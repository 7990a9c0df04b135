//! `/api/v1/admin/tokens…`: join tokens, from their making to their end.
//!
//! Owns these handlers and the life of a token that is asked for. Its secret is in exactly one answer: that to the request which
//! made it.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use registry::{Command, Refusal, Role, Token, TokenId};
use serde::{Deserialize, Serialize};

use super::change::{self, Administrator};
use crate::clock::unix_ms;
use crate::gateway::error::ApiError;
use crate::gateway::{Gateway, limits};

/// A token that is to be made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    role: NewRole,
    #[serde(default = "a_day")]
    ttl_s: u64,
    /// `null`: any number.
    #[serde(default = "once")]
    uses: Option<u32>,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NewRole {
    Agent,
    Coordinator,
}

fn a_day() -> u64 {
    24 * 3_600
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
fn once() -> Option<u32> {
    Some(1)
}

#[derive(Serialize)]
pub(crate) struct TokenList {
    schema: &'static str,
    tokens: Vec<TokenView>,
}

#[derive(Serialize)]
pub(crate) struct TokenDocument {
    schema: &'static str,
    token: TokenView,
    /// What a machine joins with, where it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize)]
struct TokenView {
    id: String,
    name: Option<String>,
    role: &'static str,
    /// `live`, `spent`, `expired` or `revoked`.
    state: &'static str,
    used: u32,
    /// `null`: any number.
    uses: Option<u32>,
    expires_at_unix_ms: u64,
}

impl TokenView {
    fn new(id: &TokenId, token: &Token, now_unix_ms: u64) -> Self {
        Self {
            id: id.to_string(),
            name: token.name.clone(),
            role: match token.role {
                Role::Agent => "agent",
                Role::Coordinator => "coordinator",
                Role::Client => "client",
            },
            state: match (token.revoked, token.spent(), now_unix_ms >= token.expires_at_unix_ms) {
                (true, _, _) => "revoked",
                (false, true, _) => "spent",
                (false, false, true) => "expired",
                (false, false, false) => "live",
            },
            used: token.used,
            uses: token.uses,
            expires_at_unix_ms: token.expires_at_unix_ms,
        }
    }
}

pub(crate) async fn list(State(gateway): State<Gateway>) -> Json<TokenList> {
    let registry = gateway.registry.borrow().clone();
    let now = unix_ms();
    let tokens = registry.tokens().map(|(id, token)| TokenView::new(id, token, now)).collect();
    Json(TokenList { schema: "mlx-serving.tokens.v1", tokens })
}

pub(crate) async fn create(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<TokenDocument>), ApiError> {
    let wanted: NewToken = change::read(&headers, body).await?;
    let ttl = Duration::from_secs(wanted.ttl_s);
    if !(limits::TOKEN_LIFE_MIN..=limits::TOKEN_LIFE_MAX).contains(&ttl) {
        let message = "A join token is good for a minute at least and for 30 days at most.";
        return Err(ApiError::refused(StatusCode::BAD_REQUEST, "invalid_value", message));
    }
    let no_randomness = |_| ApiError::internal("The operating system gave no randomness for a secret.");
    let (token, secret_hash) = gateway.room.new_token().map_err(no_randomness)?;
    let id = TokenId(token.id.clone());
    let life_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let issue = Command::IssueJoinToken {
        id: id.clone(),
        secret_hash,
        role: match wanted.role {
            NewRole::Agent => Role::Agent,
            NewRole::Coordinator => Role::Coordinator,
        },
        expires_at_unix_ms: unix_ms().saturating_add(life_ms),
        uses: wanted.uses,
        name: wanted.name,
    };
    administrator.change(&gateway, issue).await?;
    Ok((StatusCode::CREATED, document(&gateway, &id, Some(token.to_string()))?))
}

pub(crate) async fn revoke(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(id): Path<String>,
) -> Result<Json<TokenDocument>, ApiError> {
    let id = TokenId(id);
    known(&gateway, &id)?;
    administrator.change(&gateway, Command::RevokeJoinToken { id: id.clone() }).await?;
    document(&gateway, &id, None)
}

/// A token that a stranger made up never reaches the registry.
fn known(gateway: &Gateway, id: &TokenId) -> Result<Token, ApiError> {
    let registry = gateway.registry.borrow().clone();
    let unknown = || change::refused(&Refusal::UnknownToken { token: id.clone() });
    registry.token(id).cloned().ok_or_else(unknown)
}

fn document(
    gateway: &Gateway,
    id: &TokenId,
    secret: Option<String>,
) -> Result<Json<TokenDocument>, ApiError> {
    let token = TokenView::new(id, &known(gateway, id)?, unix_ms());
    Ok(Json(TokenDocument { schema: "mlx-serving.token.v1", token, secret }))
}
