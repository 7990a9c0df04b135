//! `/api/v1/admin/coordinators…`: who belongs to the group, and changes of it; and the backup of its facts.
//!
//! Owns these handlers and the shape of a member. Refuses to know how a change is made: whoever implements [`Group`] does.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use futures_util::future::BoxFuture;
use proto::v1::change_group_request::Change;
use proto::v1::{ChangeGroupRequest, GroupMember, GroupReplacement};
use registry::Outcome;
use serde::{Deserialize, Serialize};

use super::change::{self, Administrator};
use crate::gateway::error::ApiError;
use crate::gateway::{Gateway, limits};

/// Why the group is as it was, or nobody knows how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupError {
    /// With the reason.
    Refused(String),
    Unavailable(String),
}

/// What the cluster side can do to the group.
pub(crate) trait Group: Send + Sync {
    /// Returns the members afterwards.
    fn change(&self, wish: ChangeGroupRequest) -> BoxFuture<'_, Result<Vec<GroupMember>, GroupError>>;
    /// All facts in one file, secrets too.
    fn backup(&self) -> BoxFuture<'_, Result<Vec<u8>, String>>;
}

#[derive(Serialize)]
pub(crate) struct Members {
    schema: &'static str,
    coordinators: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    replica: u64,
    address: String,
    /// `voter`, or `learner`, which only follows.
    role: &'static str,
    leader: bool,
    /// Entries of the log that it lacks.
    lag: Option<u64>,
    silent_ms: Option<u64>,
}

/// Whether an even number of voters is meant.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Allowing {
    even: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct With {
    with: u64,
}

pub(crate) async fn list(State(gateway): State<Gateway>) -> Result<Json<Members>, ApiError> {
    group(&gateway, None, false).await.map_err(told)
}

pub(crate) async fn promote(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(replica): Path<u64>,
    Query(allowing): Query<Allowing>,
) -> Result<Json<Members>, ApiError> {
    changed(&gateway, &administrator, Change::Promote(replica), allowing.even).await
}

pub(crate) async fn remove(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(replica): Path<u64>,
    Query(allowing): Query<Allowing>,
) -> Result<Json<Members>, ApiError> {
    changed(&gateway, &administrator, Change::Remove(replica), allowing.even).await
}

pub(crate) async fn replace(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(replica): Path<u64>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Members>, ApiError> {
    let With { with } = change::read(&headers, body).await?;
    let both = GroupReplacement { old: replica, new: with };
    changed(&gateway, &administrator, Change::Replace(both), false).await
}

pub(crate) async fn lead(
    State(gateway): State<Gateway>,
    administrator: Administrator,
    Path(replica): Path<u64>,
) -> Result<Json<Members>, ApiError> {
    changed(&gateway, &administrator, Change::Lead(replica), false).await
}

pub(crate) async fn backup(
    State(gateway): State<Gateway>,
    administrator: Administrator,
) -> Result<([(HeaderName, &'static str); 1], Vec<u8>), ApiError> {
    // Where nobody leads, a backup may be all that is left to be saved, and nothing can be noted.
    let begun = administrator.begin(&gateway, "take a backup of all facts".to_owned()).await;
    let written = gateway.group.backup().await;
    let bytes = written.map_err(|why| {
        let words = format!("No backup was made: {why}.");
        ApiError::unavailable("backup_failed", words, limits::RETRY_AFTER_LOSS)
    })?;
    match begun {
        Ok(begun) => begun.ended(&gateway, Outcome::Done).await,
        Err(error) => tracing::warn!(%error, "a backup was taken of which the audit trail does not know"),
    }
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes))
}

/// The trail knows of it before it is tried, and how it ended, as far as that is known here.
async fn changed(
    gateway: &Gateway,
    administrator: &Administrator,
    change: Change,
    even: bool,
) -> Result<Json<Members>, ApiError> {
    let begun = administrator.begin(gateway, words(&change, even)).await?;
    let changed = group(gateway, Some(change), even).await;
    match &changed {
        Ok(_) => begun.ended(gateway, Outcome::Done).await,
        Err(GroupError::Refused(_)) => begun.ended(gateway, Outcome::Refused).await,
        Err(GroupError::Unavailable(_)) => {}
    }
    changed.map_err(told)
}

/// For the audit trail.
fn words(change: &Change, even: bool) -> String {
    let even = if even { ", an even number allowed" } else { "" };
    match change {
        Change::Promote(replica) => format!("promote coordinator {replica}{even}"),
        Change::Remove(replica) => format!("remove coordinator {replica}{even}"),
        Change::Replace(GroupReplacement { old, new }) => format!("replace coordinator {old} by {new}"),
        Change::Lead(replica) => format!("hand the lead to coordinator {replica}"),
    }
}

async fn group(gateway: &Gateway, change: Option<Change>, even: bool) -> Result<Json<Members>, GroupError> {
    let members = gateway.group.change(ChangeGroupRequest { change, even }).await?;
    let coordinators = members.into_iter().map(member).collect();
    Ok(Json(Members { schema: "mlx-serving.coordinators.v1", coordinators }))
}

fn told(error: GroupError) -> ApiError {
    match error {
        GroupError::Refused(why) => {
            ApiError::refused(StatusCode::CONFLICT, "conflict", format!("Nothing was changed: {why}."))
        }
        GroupError::Unavailable(why) => {
            let words =
                format!("The group cannot be changed or shown now: {why}. Look before you send it again.");
            ApiError::unavailable("no_leader", words, limits::RETRY_AFTER_LOSS)
        }
    }
}

fn member(member: GroupMember) -> Member {
    let GroupMember { replica, address, voter, leader, lag, silent_ms } = member;
    let role = if voter { "voter" } else { "learner" };
    Member { replica, address, role, leader, lag, silent_ms }
}
