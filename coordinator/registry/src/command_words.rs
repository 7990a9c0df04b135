//! A command in words, for the audit trail.
//!
//! Owns [`Command::audited`]: the sentence fragment that says what was asked for. Refuses secrets, hashes and keys, and lines
//! that are longer than the trail takes.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::command::Command;
use crate::file::FileChange;
use crate::key::Grant;
use crate::limits;
use crate::policy::ModelPolicy;
use crate::rotation::CaStep;

impl Command {
    /// The same command, asked for by an administrator: done as it would be, and noted.
    #[must_use]
    pub fn audited(self, by: &str, at_unix_ms: u64) -> Command {
        let action = line(&self.words());
        Command::Audited { by: by.to_owned(), at_unix_ms, action, command: Box::new(self) }
    }

    fn words(&self) -> String {
        match self {
            Command::FoundCluster { cluster, .. } | Command::FoundSealed { cluster, .. } => {
                format!("found cluster {cluster}")
            }
            Command::SealCa { .. } => "seal the key of the cluster's authority".to_owned(),
            Command::RotateCa { number, step, .. } => rotated(*number, step),
            Command::IssueJoinToken { id, role, expires_at_unix_ms, uses, name, secret_hash: _ } => {
                let name = name.as_ref().map_or_else(String::new, |name| format!(" '{name}'"));
                let uses = uses.map_or_else(|| "any number of".to_owned(), |uses| uses.to_string());
                format!(
                    "issue join token {id}{name} for {uses} machines of role {role}, until {expires_at_unix_ms}"
                )
            }
            Command::AdmitNode { token, name, .. } => format!("admit machine {name} with join token {token}"),
            Command::RevokeJoinToken { id } => format!("revoke join token {id}"),
            Command::RevokeFounder { .. } => "revoke the founder".to_owned(),
            Command::RevokeNode { node } => format!("revoke node {node}"),
            Command::WantModel { node, model, .. } => format!("offer model {model} on node {node}"),
            Command::UnwantModel { node, model } => format!("offer model {model} on node {node} no more"),
            Command::SetBudget { node, bytes } => format!("set the memory of node {node} to {bytes} bytes"),
            Command::PlaceModel { node, model, bytes } => {
                format!("place model {model} on node {node} with {bytes} bytes")
            }
            Command::UnplaceModel { node, model } => format!("unload model {model} from node {node}"),
            Command::SetModelPolicy { model, policy } => {
                format!("set the policy of model {model}: {}", treated(*policy))
            }
            Command::DrainNode { node, draining: true } => format!("drain node {node}"),
            Command::DrainNode { node, draining: false } => format!("end the drain of node {node}"),
            Command::MoveBreaker { node, model: Some(model), .. } => {
                format!("move the breaker of model {model} on node {node}")
            }
            Command::MoveBreaker { node, model: None, .. } => format!("move the breaker of node {node}"),
            Command::ChargeDeath { fingerprint, node, .. } => {
                format!("charge request {fingerprint} with a death on node {node}")
            }
            Command::QuarantineRequest { fingerprint, .. } => format!("quarantine request {fingerprint}"),
            Command::PardonRequest { fingerprint } => format!("pardon request {fingerprint}"),
            Command::SetGolden { model, .. } => format!("set the canary's answer of model {model}"),
            Command::LockVoters { change } => format!("begin change {} of the coordinators", change.number),
            Command::UnlockVoters { number } => format!("end change {number} of the coordinators"),
            Command::CreateKey { key, grant, .. } => format!("create key {key}: {}", granted(grant)),
            Command::ChangeKey { key, grant, revision: _ } => format!("change key {key}: {}", granted(grant)),
            Command::AddKeySecret { key, number, .. } => format!("add secret {number} to key {key}"),
            Command::DropKeySecret { key, number } => format!("drop secret {number} of key {key}"),
            Command::RevokeKey { key, .. } => format!("revoke key {key}"),
            Command::BeginJob { job, .. } => format!("begin job {job}"),
            Command::TakeJob { job, .. } => format!("take job {job} over"),
            Command::EndJob { job, .. } => format!("end job {job}"),
            Command::DropJob { job, .. } => format!("drop job {job}"),
            Command::ForgetJobs { at_unix_ms } => format!("forget the jobs that are over at {at_unix_ms}"),
            Command::ChangeResponse { response, change } => format!("{} response {response}", change.verb()),
            Command::ChangeFile { file, change: FileChange::Add { .. } } => format!("add file {file}"),
            Command::ChangeFile { file, change: FileChange::Drop } => format!("drop file {file}"),
            Command::ChangeBatch { batch, change } => format!("{} batch {batch}", change.verb()),
            Command::ForgetFiles { at_unix_ms } => {
                format!("forget the files and batches that are over at {at_unix_ms}")
            }
            Command::CountUsage { gateway, .. } => format!("count the usage that gateway {gateway} tells"),
            Command::RaiseVersion { to, .. } => format!("raise the version of the cluster to {to}"),
            Command::Note { action, .. } | Command::Audited { action, .. } => action.clone(),
        }
    }
}

fn rotated(number: u64, step: &CaStep) -> String {
    let step = match step {
        CaStep::Begin { until_unix_ms, .. } => {
            return format!("begin rotation {number} of the cluster's authority, until {until_unix_ms}");
        }
        CaStep::Move { members } => {
            return format!(
                "{} members have moved in rotation {number} of the cluster's authority",
                members.len()
            );
        }
        CaStep::End { abandon: false } => "",
        CaStep::End { abandon: true } => " and abandon who has not moved",
    };
    format!("end rotation {number} of the cluster's authority{step}")
}

fn granted(grant: &Grant) -> String {
    let scopes: Vec<_> = grant.scopes.iter().map(|scope| scope.name()).collect();
    let expiry = grant.expires_at_unix_ms.map_or_else(|| "never".to_owned(), |at| at.to_string());
    // The list is the only long part, so it comes last: what is cut off is a part of it.
    let models = grant.models.as_ref().map_or_else(
        || "all".to_owned(),
        |models| models.iter().map(|model| model.as_str()).collect::<Vec<_>>().join(", "),
    );
    let (name, scopes, allowance) = (&grant.name, scopes.join(", "), grant.allowance);
    format!("name '{name}', scopes {scopes}, expires {expiry}{allowance}, models {models}")
}

fn treated(policy: ModelPolicy) -> String {
    let ModelPolicy { pinned, replicas_min, replicas_max, idle_unload_s } = policy;
    let pinned = if pinned { "pinned, " } else { "" };
    let most = if replicas_max == 0 { "any number of".to_owned() } else { replicas_max.to_string() };
    let idle = idle_unload_s.map_or_else(String::new, |idle_s| format!(", unloaded after {idle_s} s"));
    format!("{pinned}{replicas_min} to {most} replicas{idle}")
}

/// One line that the trail takes, whatever a stranger put into a name.
fn line(words: &str) -> String {
    const CUT: &str = "…";
    let mut out = String::new();
    for char in words.chars().map(|char| if char.is_control() { ' ' } else { char }) {
        if out.len() + char.len_utf8() + CUT.len() > limits::AUDIT_ACTION_BYTES_MAX {
            out.push_str(CUT);
            break;
        }
        out.push(char);
    }
    out
}
