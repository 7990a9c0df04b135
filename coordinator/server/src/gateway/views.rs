//! `GET /api/v1/queue` and `GET /api/v1/explain/…`: what waits, and why things are as they are.
//!
//! Owns the paths, the schema's name in each document, and what is said of a request, a model or a node that nobody knows.
//! Refuses to look into the cluster itself: whoever implements [`Views`] does.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::Gateway;
use super::access::Who;
use super::error::ApiError;
use super::names;
use super::openai::asking::unknown;
use super::shelf::Shelf;

const QUEUE: &str = "mlx-serving.queue.v1";
const EXPLAIN: &str = "mlx-serving.explain.v1";

/// The keys of a document; its schema is added here.
pub(crate) type Document = Map<String, Value>;

/// What the cluster side can tell of itself. An explanation has `words` for people and its numbers beside them; `None`: nobody
/// knows of such a thing.
pub(crate) trait Views: Send + Sync {
    fn queue(&self) -> BoxFuture<'_, Document>;
    /// By the scheduler's number.
    fn explain_request(&self, request: u64) -> BoxFuture<'_, Option<Document>>;
    fn explain_model<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Option<Document>>;
    fn explain_node(&self, node: u64) -> BoxFuture<'_, Option<Document>>;
    /// The names of all known nodes.
    fn nodes(&self) -> BoxFuture<'_, BTreeMap<u64, String>>;
}

pub(crate) async fn queue(State(gateway): State<Gateway>) -> Json<Document> {
    document(QUEUE, gateway.views.queue().await)
}

pub(crate) async fn explain_request(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<Document>, ApiError> {
    let explained = match gateway.request_numbers.of(&id) {
        Some(number) => gateway.views.explain_request(number).await,
        None => None,
    };
    explained.map(|found| document(EXPLAIN, found)).ok_or_else(|| {
        let message = format!(
            "No request '{}' is known here, or no longer: only the latest are remembered. Give the 'x-request-id' or the \
             'x-mlx-request' of a response.",
            names::quoted(&id)
        );
        ApiError::refused(StatusCode::NOT_FOUND, "request_not_found", message)
    })
}

pub(crate) async fn explain_model(
    State(gateway): State<Gateway>,
    who: Who,
    Path(name): Path<String>,
) -> Result<Json<Document>, ApiError> {
    let explained = if who.may_ask(&name) { gateway.views.explain_model(&name).await } else { None };
    let found = explained.ok_or_else(|| unknown(&Shelf::of(&gateway.catalogue, &who), &name))?;
    Ok(document(EXPLAIN, found))
}

/// A node's name is what people use; its number is right too.
pub(crate) async fn explain_node(
    State(gateway): State<Gateway>,
    Path(node): Path<String>,
) -> Result<Json<Document>, ApiError> {
    let nodes = gateway.views.nodes().await;
    let named = nodes.iter().find(|(_, name)| **name == node).map(|(number, _)| *number);
    let explained = match named.or_else(|| node.parse().ok()) {
        Some(number) => gateway.views.explain_node(number).await,
        None => None,
    };
    explained.map(|found| document(EXPLAIN, found)).ok_or_else(|| unknown_node(&nodes, &node))
}

fn unknown_node(nodes: &BTreeMap<u64, String>, node: &str) -> ApiError {
    let close = names::close(node, nodes.values().map(String::as_str));
    let known = match (close.as_slice(), nodes.len()) {
        ([], 0) => "No node has joined yet.".to_owned(),
        ([], _) => "GET /api/v1/status lists the nodes.".to_owned(),
        (close, _) => format!("Did you mean {}?", close.join(", ")),
    };
    let message = format!("No node '{}' is known here. {known}", names::quoted(node));
    ApiError::refused(StatusCode::NOT_FOUND, "node_not_found", message)
}

fn document(schema: &str, mut found: Document) -> Json<Document> {
    found.insert("schema".to_owned(), schema.into());
    Json(found)
}
