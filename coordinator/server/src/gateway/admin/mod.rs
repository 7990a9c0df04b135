//! `/api/v1/admin/…`: what administrators see and change.
//!
//! Owns the list of these routes, all of the scope `admin`. Each kind of thing has a file with its handlers; a change goes
//! through [`change::Administrator`], which notes it in the audit trail.

pub(crate) mod change;
mod audit;
mod ca;
pub(crate) mod coordinators;
mod key_body;
mod keys;
mod models;
mod nodes;
mod tokens;

use axum::routing::{MethodRouter, delete, get, patch, post};
use registry::Scope;

use super::Gateway;
use super::access::Needs;
use super::routes::{Route, route};

/// Each with the scope `admin`.
pub(crate) fn routes() -> Vec<Route> {
    let admin = |path, methods: MethodRouter<Gateway>| route(path, Needs::Scope(Scope::Admin), methods);
    vec![
        admin("/api/v1/admin/keys", get(keys::list).post(keys::create)),
        admin("/api/v1/admin/keys/{id}", get(keys::one).patch(keys::change).delete(keys::revoke)),
        admin("/api/v1/admin/keys/{id}/secrets", post(keys::add_secret)),
        admin("/api/v1/admin/keys/{id}/secrets/{number}", delete(keys::drop_secret)),
        admin("/api/v1/admin/tokens", get(tokens::list).post(tokens::create)),
        admin("/api/v1/admin/tokens/{id}", delete(tokens::revoke)),
        admin("/api/v1/admin/nodes", get(nodes::list)),
        admin("/api/v1/admin/nodes/{which}", delete(nodes::revoke)),
        admin("/api/v1/admin/nodes/{which}/drain", post(nodes::drain)),
        admin("/api/v1/admin/nodes/{which}/undrain", post(nodes::undrain)),
        admin("/api/v1/admin/models", get(models::list)),
        admin("/api/v1/admin/models/{*name}", patch(models::change)),
        admin("/api/v1/admin/audit", get(audit::list)),
        admin("/api/v1/admin/coordinators", get(coordinators::list)),
        admin("/api/v1/admin/coordinators/{replica}", delete(coordinators::remove)),
        admin("/api/v1/admin/coordinators/{replica}/promote", post(coordinators::promote)),
        admin("/api/v1/admin/coordinators/{replica}/replace", post(coordinators::replace)),
        admin("/api/v1/admin/coordinators/{replica}/lead", post(coordinators::lead)),
        admin("/api/v1/admin/ca", get(ca::show)),
        admin("/api/v1/admin/ca/rotate", post(ca::rotate)),
        admin("/api/v1/admin/backup", get(coordinators::backup)),
    ]
}
