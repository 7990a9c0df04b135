//! How a command is shown.
//!
//! Owns `Debug` of [`Command`]. Refuses to show secrets: keys and hashes are left out, because commands end up in traces.

use core::fmt;

use crate::Command;

/// Names a command and those of its fields that may be shown.
macro_rules! shown {
    ($f:ident, $name:ident, $($field:ident),+) => {
        $f.debug_struct(stringify!($name))$(.field(stringify!($field), $field))+
    };
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::FoundCluster { .. }
            | Command::FoundSealed { .. }
            | Command::SealCa { .. }
            | Command::RotateCa { .. } => authority(self, f),
            Command::IssueJoinToken { id, role, expires_at_unix_ms, uses, name, secret_hash: _ } => {
                shown!(f, IssueJoinToken, id, role, expires_at_unix_ms, uses, name).finish_non_exhaustive()
            }
            Command::RevokeJoinToken { id } => shown!(f, RevokeJoinToken, id).finish(),
            Command::AdmitNode { token, name, public_key, at_unix_ms, secret_hash: _ } => {
                shown!(f, AdmitNode, token, name, public_key, at_unix_ms).finish_non_exhaustive()
            }
            Command::RevokeNode { node } => shown!(f, RevokeNode, node).finish(),
            Command::RevokeFounder { at_unix_ms } => shown!(f, RevokeFounder, at_unix_ms).finish(),
            Command::WantModel { node, model, source } => shown!(f, WantModel, node, model, source).finish(),
            Command::UnwantModel { node, model } => shown!(f, UnwantModel, node, model).finish(),
            Command::SetBudget { node, bytes } => shown!(f, SetBudget, node, bytes).finish(),
            Command::PlaceModel { node, model, bytes } => shown!(f, PlaceModel, node, model, bytes).finish(),
            Command::UnplaceModel { node, model } => shown!(f, UnplaceModel, node, model).finish(),
            Command::SetModelPolicy { model, policy } => shown!(f, SetModelPolicy, model, policy).finish(),
            Command::DrainNode { node, draining } => shown!(f, DrainNode, node, draining).finish(),
            Command::MoveBreaker { .. } => breaker(self, f),
            Command::ChargeDeath { fingerprint, node, at_unix_ms } => {
                shown!(f, ChargeDeath, fingerprint, node, at_unix_ms).finish()
            }
            Command::QuarantineRequest { fingerprint, at_unix_ms, until_unix_ms } => {
                shown!(f, QuarantineRequest, fingerprint, at_unix_ms, until_unix_ms).finish()
            }
            Command::PardonRequest { fingerprint } => shown!(f, PardonRequest, fingerprint).finish(),
            Command::SetGolden { model, card_digest, ids } => {
                shown!(f, SetGolden, model, card_digest, ids).finish()
            }
            Command::LockVoters { change } => shown!(f, LockVoters, change).finish(),
            Command::UnlockVoters { number } => shown!(f, UnlockVoters, number).finish(),
            Command::CreateKey { key, grant, at_unix_ms, secret_hash: _ } => {
                shown!(f, CreateKey, key, grant, at_unix_ms).finish_non_exhaustive()
            }
            Command::ChangeKey { key, revision, grant } => {
                shown!(f, ChangeKey, key, revision, grant).finish()
            }
            Command::AddKeySecret { key, number, at_unix_ms, secret_hash: _ } => {
                shown!(f, AddKeySecret, key, number, at_unix_ms).finish_non_exhaustive()
            }
            Command::DropKeySecret { key, number } => shown!(f, DropKeySecret, key, number).finish(),
            Command::RevokeKey { key, at_unix_ms } => shown!(f, RevokeKey, key, at_unix_ms).finish(),
            Command::BeginJob { .. }
            | Command::TakeJob { .. }
            | Command::EndJob { .. }
            | Command::DropJob { .. }
            | Command::ForgetJobs { .. }
            | Command::ChangeResponse { .. } => job(self, f),
            Command::ChangeFile { file, change } => shown!(f, ChangeFile, file, change).finish(),
            Command::ChangeBatch { batch, change } => shown!(f, ChangeBatch, batch, change).finish(),
            Command::ForgetFiles { at_unix_ms } => shown!(f, ForgetFiles, at_unix_ms).finish(),
            Command::CountUsage { gateway, life, sequence, at_unix_ms, used } => {
                shown!(f, CountUsage, gateway, life, sequence, at_unix_ms, used).finish()
            }
            Command::Note { by, at_unix_ms, action, outcome } => {
                shown!(f, Note, by, at_unix_ms, action, outcome).finish()
            }
            Command::RaiseVersion { to, at_unix_ms } => shown!(f, RaiseVersion, to, at_unix_ms).finish(),
            Command::Audited { by, at_unix_ms, action, command } => {
                shown!(f, Audited, by, at_unix_ms, action, command).finish()
            }
        }
    }
}

fn authority(command: &Command, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Command::FoundCluster { cluster, at_unix_ms, ca_certificate_pem: _, ca_key_pem: _ } = command {
        return shown!(f, FoundCluster, cluster, at_unix_ms).finish_non_exhaustive();
    }
    if let Command::FoundSealed { cluster, at_unix_ms, ca_certificate_pem: _, sealed_ca_key: _ } = command {
        return shown!(f, FoundSealed, cluster, at_unix_ms).finish_non_exhaustive();
    }
    if let Command::SealCa { at_unix_ms, sealed_ca_key: _ } = command {
        return shown!(f, SealCa, at_unix_ms).finish_non_exhaustive();
    }
    if let Command::RotateCa { number, step, at_unix_ms } = command {
        return shown!(f, RotateCa, number, step, at_unix_ms).finish();
    }
    // No other command is about the authority.
    f.debug_struct("Command").finish_non_exhaustive()
}

fn breaker(command: &Command, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Command::MoveBreaker { node, model, state, generation, opens, until_unix_ms, why, at_unix_ms } =
        command
    else {
        return f.debug_struct("Command").finish_non_exhaustive();
    };
    shown!(f, MoveBreaker, node, model, state, generation, opens, until_unix_ms, why, at_unix_ms).finish()
}

fn job(command: &Command, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Command::BeginJob { job, tenant, request, run, at_unix_ms } = command {
        return shown!(f, BeginJob, job, tenant, request, run, at_unix_ms).finish();
    }
    if let Command::TakeJob { job, from, run, at_unix_ms } = command {
        return shown!(f, TakeJob, job, from, run, at_unix_ms).finish();
    }
    if let Command::EndJob { job, run, kept, at_unix_ms } = command {
        return shown!(f, EndJob, job, run, kept, at_unix_ms).finish();
    }
    if let Command::DropJob { job, run } = command {
        return shown!(f, DropJob, job, run).finish();
    }
    if let Command::ForgetJobs { at_unix_ms } = command {
        return shown!(f, ForgetJobs, at_unix_ms).finish();
    }
    if let Command::ChangeResponse { response, change } = command {
        return shown!(f, ChangeResponse, response, change).finish();
    }
    // No other command is about jobs.
    f.debug_struct("Command").finish_non_exhaustive()
}
