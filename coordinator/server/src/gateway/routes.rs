//! Every route of the API, and what it asks of its callers.
//!
//! Owns the table. The router and the guard before it are made of the same table, so there is no route without an entry.
//! Refuses to let a route decide for itself.

use std::collections::HashMap;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use registry::Scope;

use super::access::Needs;
use super::{Gateway, admin, batches, files, models, openai, probes, responses, views};

/// One path.
pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) needs: Needs,
    pub(crate) methods: MethodRouter<Gateway>,
}

pub(crate) fn route(path: &'static str, needs: Needs, methods: MethodRouter<Gateway>) -> Route {
    Route { path, needs, methods }
}

/// All of them.
pub(crate) fn all() -> Vec<Route> {
    const INFERENCE: Needs = Needs::Scope(Scope::Inference);
    const READ: Needs = Needs::Scope(Scope::Read);
    let mut routes = vec![
        route("/v1/chat/completions", INFERENCE, post(openai::handlers::chat)),
        route("/v1/completions", INFERENCE, post(openai::handlers::completions)),
        route("/v1/responses", INFERENCE, post(responses::create)),
        route("/v1/responses/{id}", INFERENCE, get(responses::one).delete(responses::delete)),
        route("/v1/responses/{id}/cancel", INFERENCE, post(responses::cancel)),
        route("/v1/responses/{id}/input_items", INFERENCE, get(responses::input_items)),
        route("/v1/models", INFERENCE, get(models::list)),
        route("/v1/models/{*id}", INFERENCE, get(models::one)),
        route("/v1/files", INFERENCE, get(files::list).post(files::create)),
        route("/v1/files/{id}", INFERENCE, get(files::one).delete(files::delete)),
        route("/v1/files/{id}/content", INFERENCE, get(files::content)),
        route("/v1/batches", INFERENCE, get(batches::list).post(batches::create)),
        route("/v1/batches/{id}", INFERENCE, get(batches::one)),
        route("/v1/batches/{id}/cancel", INFERENCE, post(batches::cancel)),
        route("/", Needs::Nothing, get(probes::front_page)),
        route("/livez", Needs::Nothing, get(probes::live)),
        route("/readyz", Needs::Nothing, get(probes::ready)),
        route("/routablez", Needs::Nothing, get(probes::routable)),
        route("/metrics", READ, get(probes::scrape)),
        route("/api/v1/status", READ, get(probes::status)),
        route("/api/v1/queue", READ, get(views::queue)),
        route("/api/v1/explain/request/{*id}", READ, get(views::explain_request)),
        route("/api/v1/explain/model/{*name}", READ, get(views::explain_model)),
        route("/api/v1/explain/node/{node}", READ, get(views::explain_node)),
    ];
    routes.extend(admin::routes());
    routes
}

/// The router of these routes, and the guard's table.
pub(crate) fn build(routes: Vec<Route>) -> (Router<Gateway>, HashMap<&'static str, Needs>) {
    let needs = routes.iter().map(|route| (route.path, route.needs)).collect();
    let router =
        routes.into_iter().fold(Router::new(), |router, route| router.route(route.path, route.methods));
    (router, needs)
}
