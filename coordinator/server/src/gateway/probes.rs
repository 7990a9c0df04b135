//! Questions that operators and load balancers ask: does the process live, is the control plane there, can a token flow.
//!
//! Owns these answers, the first page a person sees, and what is said where nothing is. Liveness never depends on anything but
//! this process: a restart cures nothing that lies outside it.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::models::is_routable;
use super::names;
use super::{Gateway, metrics};

#[derive(Serialize)]
struct Probe {
    ready: bool,
    why: String,
}

#[derive(Deserialize)]
pub(crate) struct Which {
    model: Option<String>,
}

/// By the name that the caller has for it: the address it is bound to may be none.
pub(crate) async fn front_page(State(gateway): State<Gateway>, headers: HeaderMap) -> String {
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    let api = named.map_or_else(|| gateway.api.to_string(), ToOwned::to_owned);
    format!(
        "mlx-serving {}: an OpenAI-compatible API. base_url http://{api}/v1, models http://{api}/v1/models, \
         status http://{api}/api/v1/status, metrics http://{api}/metrics\n",
        env!("CARGO_PKG_VERSION")
    )
}

pub(crate) async fn live() -> Response {
    probe(true, String::new())
}

pub(crate) async fn ready(State(gateway): State<Gateway>) -> Response {
    let readiness = (gateway.readiness)();
    probe(readiness.leader, readiness.why)
}

/// With `?model=`, that model; without, any.
pub(crate) async fn routable(
    State(gateway): State<Gateway>,
    Query(which): Query<Which>,
) -> Result<Response, ApiError> {
    let readiness = (gateway.readiness)();
    if !readiness.soon {
        return Ok(probe(false, readiness.why));
    }
    let Some(name) = which.model else {
        let any = gateway.catalogue.all().iter().any(|model| is_routable(model));
        return Ok(probe(any, if any { String::new() } else { "no model is ready".to_owned() }));
    };
    let model = gateway.catalogue.get(&name).ok_or_else(|| unknown(&name))?;
    let routable = is_routable(&model);
    Ok(probe(routable, if routable { String::new() } else { model.status.clone() }))
}

/// Without a hint at the names that there are: a probe needs no key.
fn unknown(name: &str) -> ApiError {
    let message = format!("The model '{}' does not exist here.", names::quoted(name));
    let refused = ApiError::refused(StatusCode::NOT_FOUND, "model_not_found", message);
    ApiError { param: Some("model".to_owned()), ..refused }
}

pub(crate) async fn status(State(gateway): State<Gateway>) -> Json<serde_json::Value> {
    Json((gateway.status)().await)
}

pub(crate) async fn scrape() -> impl IntoResponse {
    const FORMAT: (HeaderName, &str) = (CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([FORMAT], metrics::render())
}

pub(crate) async fn no_such_path() -> ApiError {
    let message = "There is nothing at this path. The API is below /v1.";
    ApiError::refused(StatusCode::NOT_FOUND, "not_found", message)
}

pub(crate) async fn no_such_method() -> ApiError {
    let message = "This path does not take that method.";
    ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

fn probe(ready: bool, why: String) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Probe { ready, why })).into_response()
}
