//! The guard before every route.
//!
//! Owns asking for what the route's entry in the table needs, handing on who it is, and cutting an answer short when its key is
//! revoked. A route that is not in the table is closed to everybody.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use registry::Scope;

use super::{Access, Needs, cutting};
use crate::gateway::body;
use crate::gateway::error::ApiError;

/// The guard's knowledge: what opens the API, and what each route needs.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) access: Access,
    pub(crate) needs: Arc<HashMap<&'static str, Needs>>,
}

pub(crate) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    // No path at all is answered with "not found", to everybody.
    let Some(path) = request.extensions().get::<MatchedPath>() else { return next.run(request).await };
    match guard.needs.get(path.as_str()) {
        Some(Needs::Nothing) => next.run(request).await,
        Some(Needs::Scope(scope)) => admit(guard.access, *scope, request, next).await,
        None => refuse(request, super::missing()).await,
    }
}

async fn admit(access: Access, scope: Scope, mut request: Request, next: Next) -> Response {
    let who = match access.admit(request.headers(), scope) {
        Ok(who) => who,
        Err(error) => return refuse(request, error).await,
    };
    request.extensions_mut().insert(who.clone());
    let mut ended = Box::pin(access.ended(who, scope));
    tokio::select! {
        response = next.run(request) => cutting::until(response, ended),
        error = &mut ended => error.into_response(),
    }
}

/// Most clients send all of a body before they look at the answer.
async fn refuse(request: Request, error: ApiError) -> Response {
    body::discard(request.into_body()).await;
    error.into_response()
}
