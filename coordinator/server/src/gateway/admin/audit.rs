//! `GET /api/v1/admin/audit`: what administrators did.
//!
//! Owns the document. The chain of hashes comes with it, so that whoever reads it can check it.

use axum::Json;
use axum::extract::State;
use registry::AuditEntry;
use serde::Serialize;

use crate::gateway::Gateway;

#[derive(Serialize)]
pub(crate) struct Trail {
    schema: &'static str,
    /// The oldest first; of very many only the last.
    entries: Vec<AuditEntry>,
}

pub(crate) async fn list(State(gateway): State<Gateway>) -> Json<Trail> {
    let entries = gateway.registry.borrow().audit().to_vec();
    Json(Trail { schema: "mlx-serving.audit.v1", entries })
}
