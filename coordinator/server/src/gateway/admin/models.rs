//! `/api/v1/admin/models…`: how the cluster shall treat each model.
//!
//! Owns these handlers and the shape of a model in them. A change says only what shall be other than it is; `null` takes a bound
//! away. Refuses a name that no Mac offers and that nothing was said of: it is a slip of the pen.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use registry::{Command, ModelName, ModelPolicy, Registry};
use serde::{Deserialize, Serialize};

use super::change::{self, Administrator, said};
use crate::gateway::error::ApiError;
use crate::gateway::{Gateway, names};

#[derive(Serialize)]
pub(crate) struct ModelList {
    schema: &'static str,
    models: Vec<ModelView>,
}

#[derive(Serialize)]
pub(crate) struct ModelDocument {
    schema: &'static str,
    model: ModelView,
}

/// A model as administrators see it.
#[derive(Serialize)]
pub(crate) struct ModelView {
    model: String,
    /// The Macs that could hold it.
    offered_by: Vec<String>,
    /// Those whose memory is promised to it.
    placed_on: Vec<String>,
    /// Where it is placed it stays.
    pinned: bool,
    /// So many Macs hold it, asked for or not.
    replicas_min: u32,
    /// `null`: any number.
    replicas_max: Option<u32>,
    /// Unloaded after so long without a request; `null`: when its room is needed.
    idle_unload_s: Option<u64>,
}

/// What shall be other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyChange {
    #[serde(default)]
    pinned: Option<bool>,
    #[serde(default)]
    replicas_min: Option<u32>,
    #[serde(default, deserialize_with = "said")]
    replicas_max: Option<Option<u32>>,
    #[serde(default, deserialize_with = "said")]
    idle_unload_s: Option<Option<u64>>,
}

impl PolicyChange {
    fn of(self, before: ModelPolicy) -> Result<ModelPolicy, ApiError> {
        let after = ModelPolicy {
            pinned: self.pinned.unwrap_or(before.pinned),
            replicas_min: self.replicas_min.unwrap_or(before.replicas_min),
            replicas_max: self.replicas_max.map_or(before.replicas_max, Option::unwrap_or_default),
            idle_unload_s: self.idle_unload_s.unwrap_or(before.idle_unload_s),
        };
        // Zero is how the registry says that there is no bound.
        if self.replicas_max == Some(Some(0)) {
            return Err(wrong("'replicas_max' is at least 1, or null for any number.".to_owned()));
        }
        if after.replicas_max != 0 && after.replicas_min > after.replicas_max {
            let (min, max) = (after.replicas_min, after.replicas_max);
            return Err(wrong(format!("At least {min} replicas and at most {max} cannot both be.")));
        }
        Ok(after)
    }
}

pub(crate) async fn list(State(gateway): State<Gateway>) -> Json<ModelList> {
    let registry = gateway.registry.borrow().clone();
    let models = known(&registry).into_iter().map(|model| view(&registry, model)).collect();
    Json(ModelList { schema: "mlx-serving.models.v1", models })
}

pub(crate) async fn change(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ModelDocument>, ApiError> {
    let wanted: PolicyChange = change::read(&headers, body).await?;
    let registry = gateway.registry.borrow().clone();
    let model = known(&registry).into_iter().find(|model| model.as_str() == name);
    let model = model.ok_or_else(|| unknown(&registry, &name))?.clone();
    let policy = wanted.of(registry.policy(&model))?;
    administrator.change(&gateway, Command::SetModelPolicy { model: model.clone(), policy }).await?;
    let model = view(&gateway.registry.borrow(), &model);
    Ok(Json(ModelDocument { schema: "mlx-serving.model.v1", model }))
}

/// Those that a Mac offers, and those of which something was said.
fn known(registry: &Registry) -> BTreeSet<&ModelName> {
    registry.wanted_models().chain(registry.policies().map(|(model, _)| model)).collect()
}

fn view(registry: &Registry, model: &ModelName) -> ModelView {
    let policy = registry.policy(model);
    let offers = |node| registry.wanted_on(node).any(|(offered, _)| offered == model);
    let offering = registry.nodes().filter(|(node, _)| offers(*node));
    let placed = registry.nodes().filter(|(node, _)| registry.is_placed(*node, model));
    ModelView {
        model: model.to_string(),
        offered_by: offering.map(|(_, node)| node.name.clone()).collect(),
        placed_on: placed.map(|(_, node)| node.name.clone()).collect(),
        pinned: policy.pinned,
        replicas_min: policy.replicas_min,
        replicas_max: Some(policy.replicas_max).filter(|most| *most != 0),
        idle_unload_s: policy.idle_unload_s,
    }
}

fn unknown(registry: &Registry, name: &str) -> ApiError {
    let known = known(registry);
    let close = names::close(name, known.iter().map(|model| model.as_str()));
    let hint =
        if close.is_empty() { String::new() } else { format!(" Did you mean {}?", close.join(" or ")) };
    let message = format!("No Mac offers the model '{}'.{hint}", names::quoted(name));
    ApiError::refused(StatusCode::NOT_FOUND, "model_not_found", message)
}

fn wrong(message: String) -> ApiError {
    ApiError::refused(StatusCode::BAD_REQUEST, "invalid_value", message)
}
