//! `/api/v1/admin/nodes…`: who belongs to the cluster, and whose membership ends.
//!
//! Owns these handlers. Who is meant and who may go is decided in `membership.rs`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;

use super::change::Administrator;
use crate::clock::unix_ms;
use crate::gateway::Gateway;
use crate::gateway::error::ApiError;
use crate::membership::{self, MemberView, Unrevoked};

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
    let node = membership::list(&registry).into_iter().find(|member| member.id == id);
    let token = node.as_ref().and_then(|node| node.token.clone());
    let token_still_good = token.filter(|token| membership::admits(&registry, token, unix_ms()));
    Ok(Json(NodeDocument { schema: "mlx-serving.node.v1", node, token_still_good }))
}

fn refused(refusal: &Unrevoked) -> ApiError {
    let (status, code) = match refusal {
        Unrevoked::Unknown(_) => (StatusCode::NOT_FOUND, "not_found"),
        Unrevoked::Ambiguous { .. } | Unrevoked::NoMajority { .. } => (StatusCode::CONFLICT, "conflict"),
    };
    ApiError::refused(status, code, format!("Nothing was changed: {refusal}."))
}
