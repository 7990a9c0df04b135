//! `/api/v1/admin/nodes…`: who belongs to the cluster, who is emptied, and whose membership ends.
//!
//! Owns these handlers. Who is meant and what may be done is decided in `membership.rs`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use registry::Registry;
use serde::Serialize;

use super::change::Administrator;
use crate::clock::unix_ms;
use crate::gateway::Gateway;
use crate::gateway::error::ApiError;
use crate::membership::{self, MemberView, NotDone};

#[derive(Serialize)]
pub(crate) struct NodeList {
    schema: &'static str,
    nodes: Vec<MemberView>,
}

#[derive(Serialize)]
pub(crate) struct NodeDocument {
    schema: &'static str,
    node: Option<MemberView>,
    /// The token it joined with, if further machines may join with that.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_still_good: Option<String>,
}

pub(crate) async fn list(State(gateway): State<Gateway>) -> Json<NodeList> {
    let nodes = membership::list(&gateway.registry.borrow());
    Json(NodeList { schema: "mlx-serving.nodes.v1", nodes })
}

pub(crate) async fn revoke(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(which): Path<String>,
) -> Result<Json<NodeDocument>, ApiError> {
    let registry = gateway.registry.borrow().clone();
    let revocation = membership::revocation(&registry, &gateway.room.group(), &which, unix_ms());
    let (id, command) = revocation.map_err(|refusal| refused(&refusal))?;
    administrator.change(&gateway, command).await?;
    let registry = gateway.registry.borrow().clone();
    let node = called(&registry, &id);
    let token = node.as_ref().and_then(|node| node.token.clone());
    let token_still_good = token.filter(|token| membership::admits(&registry, token, unix_ms()));
    Ok(Json(NodeDocument { schema: "mlx-serving.node.v1", node, token_still_good }))
}

pub(crate) async fn drain(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(which): Path<String>,
) -> Result<Json<NodeDocument>, ApiError> {
    set_drain(&gateway, administrator, &which, true).await
}

pub(crate) async fn undrain(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(which): Path<String>,
) -> Result<Json<NodeDocument>, ApiError> {
    set_drain(&gateway, administrator, &which, false).await
}

async fn set_drain(
    gateway: &Gateway,
    administrator: Administrator,
    which: &str,
    draining: bool,
) -> Result<Json<NodeDocument>, ApiError> {
    let registry = gateway.registry.borrow().clone();
    let (id, command) = membership::drain(&registry, which, draining).map_err(|refusal| refused(&refusal))?;
    administrator.change(gateway, command).await?;
    let node = called(&gateway.registry.borrow(), &id);
    Ok(Json(NodeDocument { schema: "mlx-serving.node.v1", node, token_still_good: None }))
}

fn called(registry: &Registry, id: &str) -> Option<MemberView> {
    membership::list(registry).into_iter().find(|member| member.id == id)
}

fn refused(refusal: &NotDone) -> ApiError {
    let (status, code) = match refusal {
        NotDone::Unknown(_) => (StatusCode::NOT_FOUND, "not_found"),
        NotDone::Ambiguous { .. }
        | NotDone::NoMajority { .. }
        | NotDone::NoAgent(_)
        | NotDone::Revoked(_) => (StatusCode::CONFLICT, "conflict"),
    };
    ApiError::refused(status, code, format!("Nothing was changed: {refusal}."))
}
