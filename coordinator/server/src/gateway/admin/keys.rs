//! `/api/v1/admin/keys…`: API keys, from their making to their end.
//!
//! Owns these handlers. A secret is in exactly one answer: that to the request which made it.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use registry::{ApiKey, Command, KeyId, KeyRefusal, Refusal};
use serde::Serialize;

use super::change::{self, Administrator};
use super::key_body::{KeyChange, KeyView, NewKey};
use crate::clock::unix_ms;
use crate::gateway::Gateway;
use crate::gateway::access::secret::{NewSecret, fresh_id, fresh_secret};
use crate::gateway::error::ApiError;

const KEY: &str = "mlx-serving.key.v1";

#[derive(Serialize)]
pub(crate) struct KeyList {
    schema: &'static str,
    keys: Vec<KeyView>,
}

#[derive(Serialize)]
pub(crate) struct KeyDocument {
    schema: &'static str,
    key: KeyView,
    /// The key as clients send it, where it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

pub(crate) async fn list(State(gateway): State<Gateway>) -> Json<KeyList> {
    let registry = gateway.registry.borrow().clone();
    let now = unix_ms();
    let keys = registry.keys().map(|(id, key)| KeyView::new(id, key, registry.key_usage(id), now)).collect();
    Json(KeyList { schema: "mlx-serving.keys.v1", keys })
}

pub(crate) async fn one(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<KeyDocument>, ApiError> {
    document(&gateway, &KeyId(id), None)
}

pub(crate) async fn create(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<KeyDocument>), ApiError> {
    let wanted: NewKey = change::read(&headers, body).await?;
    let key = fresh_id().map_err(|_| no_randomness())?;
    let NewSecret { text, hash } = fresh_secret(&key.0).map_err(|_| no_randomness())?;
    let at_unix_ms = unix_ms();
    let grant = wanted.grant(at_unix_ms);
    let create = Command::CreateKey { key: key.clone(), grant, secret_hash: hash, at_unix_ms };
    administrator.change(&gateway, create).await?;
    Ok((StatusCode::CREATED, document(&gateway, &key, Some(text))?))
}

pub(crate) async fn change(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<KeyDocument>, ApiError> {
    let wanted: KeyChange = change::read(&headers, body).await?;
    let key = KeyId(id);
    let before = known(&gateway, &key)?;
    let grant = wanted.of(&before.grant, unix_ms());
    let revision = before.revision.saturating_add(1);
    administrator.change(&gateway, Command::ChangeKey { key: key.clone(), revision, grant }).await?;
    document(&gateway, &key, None)
}

pub(crate) async fn revoke(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(id): Path<String>,
) -> Result<Json<KeyDocument>, ApiError> {
    let key = KeyId(id);
    known(&gateway, &key)?;
    administrator.change(&gateway, Command::RevokeKey { key: key.clone(), at_unix_ms: unix_ms() }).await?;
    document(&gateway, &key, None)
}

pub(crate) async fn add_secret(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<KeyDocument>), ApiError> {
    let key = KeyId(id);
    let number = known(&gateway, &key)?.next_secret();
    let NewSecret { text, hash } = fresh_secret(&key.0).map_err(|_| no_randomness())?;
    let add = Command::AddKeySecret { key: key.clone(), number, secret_hash: hash, at_unix_ms: unix_ms() };
    administrator.change(&gateway, add).await?;
    Ok((StatusCode::CREATED, document(&gateway, &key, Some(text))?))
}

pub(crate) async fn drop_secret(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path((id, number)): Path<(String, String)>,
) -> Result<Json<KeyDocument>, ApiError> {
    let key = KeyId(id);
    known(&gateway, &key)?;
    let number = number
        .parse()
        .map_err(|_| ApiError::refused(StatusCode::NOT_FOUND, "not_found", "A secret goes by its number."))?;
    administrator.change(&gateway, Command::DropKeySecret { key: key.clone(), number }).await?;
    document(&gateway, &key, None)
}

/// A key that a stranger made up never reaches the registry.
fn known(gateway: &Gateway, id: &KeyId) -> Result<ApiKey, ApiError> {
    let registry = gateway.registry.borrow().clone();
    let unknown = || change::refused(&Refusal::Key(KeyRefusal::Unknown { key: id.clone() }));
    registry.key(id).cloned().ok_or_else(unknown)
}

fn document(gateway: &Gateway, id: &KeyId, secret: Option<String>) -> Result<Json<KeyDocument>, ApiError> {
    let registry = gateway.registry.borrow().clone();
    let key = KeyView::new(id, &known(gateway, id)?, registry.key_usage(id), unix_ms());
    Ok(Json(KeyDocument { schema: KEY, key, secret }))
}

fn no_randomness() -> ApiError {
    ApiError::internal("The operating system gave no randomness for a secret.")
}
