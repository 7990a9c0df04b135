//! `GET /v1/models` and `GET /v1/models/{id}`.
//!
//! Owns what a client may know of a model: its name, its context, whether a token could flow now. Ids contain slashes.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::Gateway;
use super::access::Who;
use super::error::ApiError;
use super::openai::asking::unknown;
use super::shelf::Shelf;
use crate::catalogue::Model;

#[derive(Serialize)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelView>,
}

#[derive(Serialize)]
pub(crate) struct ModelView {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// vLLM's name for the context length; several clients configure themselves from it.
    max_model_len: Option<u64>,
    ready: bool,
    status: String,
}

pub(crate) async fn list(State(gateway): State<Gateway>, who: Who) -> Json<ModelList> {
    let data = Shelf::of(&gateway.catalogue, &who).all().iter().map(|model| view(model)).collect();
    Json(ModelList { object: "list", data })
}

pub(crate) async fn one(
    State(gateway): State<Gateway>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<ModelView>, ApiError> {
    let shelf = Shelf::of(&gateway.catalogue, &who);
    let model = shelf.get(&id).ok_or_else(|| unknown(&shelf, &id))?;
    Ok(Json(view(&model)))
}

/// A token can flow: somebody holds the model, and we can speak for it.
pub(crate) fn is_routable(model: &Model) -> bool {
    model.nodes_ready > 0 && model.card.is_some() && model.facts.is_some()
}

fn view(model: &Model) -> ModelView {
    let ready = is_routable(model);
    ModelView {
        id: model.name.clone(),
        object: "model",
        created: model.created_unix_s,
        owned_by: "mlx-serving",
        max_model_len: model.facts.as_ref().map(|facts| facts.context_length).filter(|length| *length > 0),
        ready,
        status: if ready { "ready".to_owned() } else { model.status.clone() },
    }
}
