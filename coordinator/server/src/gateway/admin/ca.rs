//! `/api/v1/admin/ca…`: the authority that signs the members' certificates, and how it gives way to another one.
//!
//! Owns these handlers. Asking for a rotation while one is under way is asking for that one. Refuses to show a key.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use registry::{CaStep, Command, Registry};
use serde::{Deserialize, Serialize};

use super::change::{self, Administrator};
use crate::clock::unix_ms;
use crate::gateway::error::ApiError;
use crate::gateway::{Gateway, limits};
use crate::membership::{self, MemberView};
use crate::trust::Trust;

#[derive(Serialize)]
pub(crate) struct CaDocument {
    schema: &'static str,
    /// The beginning of the hash of the authority that signs, as it is announced on the local network.
    authority: String,
    /// How many rotations are over.
    rotations: u64,
    last_ended_at_unix_ms: Option<u64>,
    /// `null`: none is under way.
    rotation: Option<RotationView>,
}

#[derive(Serialize)]
struct RotationView {
    number: u64,
    /// The authority that is trusted as well until it is over.
    former_authority: String,
    began_at_unix_ms: u64,
    /// When it ends at the latest: nobody has a certificate of the former authority any more.
    until_unix_ms: u64,
    /// How many members have moved.
    moved: usize,
    /// Who has not.
    awaited: Vec<MemberView>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Wanted {
    abandon_absent: bool,
}

pub(crate) async fn show(State(gateway): State<Gateway>) -> Json<CaDocument> {
    gateway.facts.newest().await;
    Json(document(&gateway.registry.borrow()))
}

pub(crate) async fn rotate(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CaDocument>, ApiError> {
    let wanted: Wanted = change::read(&headers, body).await?;
    gateway.facts.newest().await;
    match (under_way(&gateway), wanted.abandon_absent) {
        (Some(number), true) => {
            let step = CaStep::End { abandon: true };
            let end = Command::RotateCa { number, step, at_unix_ms: unix_ms() };
            administrator.change(&gateway, end).await?;
        }
        // It is joined.
        (Some(_), false) => {}
        (None, true) => {
            let words =
                "Nothing was changed: no rotation of the authority is under way, so nobody is awaited.";
            return Err(ApiError::refused(StatusCode::CONFLICT, "conflict", words));
        }
        (None, false) => {
            let begin = gateway.room.rotation().map_err(|error| cannot(&error))?;
            let begun = administrator.change(&gateway, begin).await;
            // Another administrator may have been a moment faster.
            if under_way(&gateway).is_none() {
                begun?;
            }
        }
    }
    Ok(Json(document(&gateway.registry.borrow())))
}

fn under_way(gateway: &Gateway) -> Option<u64> {
    let registry = gateway.registry.borrow();
    registry.cluster()?.rotation.as_ref().map(|rotation| rotation.number)
}

fn cannot(error: &anyhow::Error) -> ApiError {
    let message = format!("Nothing was changed: {error}.");
    ApiError::unavailable("cannot_sign", message, limits::RETRY_AFTER_LOSS)
}

fn document(registry: &Registry) -> CaDocument {
    let cluster = registry.cluster();
    let hashes = cluster.map(|cluster| Trust::of(cluster).hashes()).unwrap_or_default();
    let mark = |hash: &[u8; 32]| hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    let rotation = cluster.and_then(|cluster| cluster.rotation.as_ref());
    CaDocument {
        schema: "mlx-serving.ca.v1",
        authority: hashes.first().map(mark).unwrap_or_default(),
        rotations: cluster.map_or(0, |cluster| cluster.rotations),
        last_ended_at_unix_ms: cluster.and_then(|cluster| cluster.rotated_at_unix_ms),
        rotation: rotation.map(|rotation| RotationView {
            number: rotation.number,
            former_authority: hashes.get(1).map(mark).unwrap_or_default(),
            began_at_unix_ms: rotation.began_at_unix_ms,
            until_unix_ms: rotation.until_unix_ms,
            moved: rotation.moved.len(),
            awaited: membership::awaited(registry),
        }),
    }
}
