//! [`Registry`]: the facts, and the one door through which they change.
//!
//! Owns the routing of a command to the idea that decides it, and that the founding comes before all others. Refuses any
//! rule of its own beyond that: each idea has a file, with its rules and with what reads its facts.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::Trail;
use crate::batches::Batches;
use crate::blame::{Blame, Death};
use crate::breakers::Breaker;
use crate::canary::Golden;
use crate::facts::{Cluster, Node, Token};
use crate::files::Files;
use crate::jobs::Jobs;
use crate::joining::Joiner;
use crate::key::ApiKey;
use crate::reply::{Refusal, Reply};
use crate::sealing::Key;
use crate::usage::{Usage, UsageMark};
use crate::voters::Voters;
use crate::{ClusterVersion, Command, KeyId, ModelName, ModelPolicy, NodeId, TokenId};

/// The durable facts of one cluster. Equal on every replica that applied the same commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    #[serde(default)]
    pub(crate) cluster: Option<Cluster>,
    #[serde(default, skip_serializing_if = "ClusterVersion::is_first")]
    pub(crate) cluster_version: ClusterVersion,
    #[serde(default)]
    pub(crate) tokens: BTreeMap<TokenId, Token>,
    #[serde(default)]
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// The last number given to a node; outlives the node.
    #[serde(default)]
    pub(crate) last_node: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) policies: BTreeMap<ModelName, ModelPolicy>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) goldens: BTreeMap<ModelName, Golden>,
    #[serde(default, skip_serializing_if = "Blame::is_empty")]
    pub(crate) blame: Blame,
    #[serde(default, skip_serializing_if = "Voters::is_empty")]
    pub(crate) voters: Voters,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) keys: BTreeMap<KeyId, ApiKey>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) jobs: Jobs,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) files: Files,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) batches: Batches,
    #[serde(default, skip_serializing_if = "Usage::is_empty")]
    pub(crate) usage: Usage,
    #[serde(default, skip_serializing_if = "Trail::is_empty")]
    pub(crate) audit: Trail,
}

impl Registry {
    /// Changes the facts, or says why not. Total: every command has a reply, and a refused one changed nothing.
    pub fn apply(&mut self, command: &Command) -> Reply {
        match self.decide(command) {
            Ok(reply) => reply,
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    fn decide(&mut self, command: &Command) -> Result<Reply, Refusal> {
        self.understands(command)?;
        if let Command::FoundCluster { cluster, ca_certificate_pem, ca_key_pem, at_unix_ms } = command {
            return self.found(cluster, ca_certificate_pem, &Key::Plain(ca_key_pem), *at_unix_ms);
        }
        if let Command::FoundSealed { cluster, ca_certificate_pem, sealed_ca_key, at_unix_ms } = command {
            return self.found(cluster, ca_certificate_pem, &Key::Sealed(sealed_ca_key), *at_unix_ms);
        }
        if self.cluster.is_none() {
            return Err(Refusal::NotFounded);
        }
        self.decide_founded(command)
    }

    fn decide_founded(&mut self, command: &Command) -> Result<Reply, Refusal> {
        match command {
            Command::FoundCluster { .. } | Command::FoundSealed { .. } => Err(Refusal::AlreadyFounded),
            Command::SealCa { sealed_ca_key, at_unix_ms } => self.seal(sealed_ca_key, *at_unix_ms),
            Command::RotateCa { number, step, at_unix_ms } => self.rotate(*number, step, *at_unix_ms),
            Command::IssueJoinToken { id, secret_hash, role, expires_at_unix_ms, uses, name } => {
                let name = name.as_deref();
                self.issue_token(id, Token::fresh(*secret_hash, *role, *expires_at_unix_ms, *uses, name))
            }
            Command::RevokeJoinToken { id } => self.revoke_token(id),
            Command::AdmitNode { token, secret_hash, name, public_key, at_unix_ms } => {
                self.admit(&Joiner { token, secret_hash, name, public_key, at_unix_ms: *at_unix_ms })
            }
            Command::RevokeNode { node } => self.revoke(*node),
            Command::RevokeFounder { at_unix_ms } => self.revoke_founder(*at_unix_ms),
            Command::WantModel { node, model, source } => self.want(*node, model, source),
            Command::UnwantModel { node, model } => self.unwant(*node, model),
            Command::SetBudget { node, bytes } => self.set_budget(*node, *bytes),
            Command::PlaceModel { node, model, bytes } => self.place(*node, model, *bytes),
            Command::UnplaceModel { node, model } => self.unplace(*node, model),
            Command::SetModelPolicy { model, policy } => self.set_policy(model, *policy),
            Command::DrainNode { node, draining } => self.drain(*node, *draining),
            Command::MoveBreaker { .. } => self.decide_breaker(command),
            Command::ChargeDeath { fingerprint, node, at_unix_ms } => {
                self.charge(*fingerprint, Death { at_unix_ms: *at_unix_ms, node: *node })
            }
            Command::QuarantineRequest { fingerprint, at_unix_ms, until_unix_ms } => {
                self.quarantine(*fingerprint, *at_unix_ms, *until_unix_ms)
            }
            Command::PardonRequest { fingerprint } => Ok(self.pardon(*fingerprint)),
            Command::SetGolden { model, card_digest, ids } => self.set_golden(model, card_digest, ids),
            Command::LockVoters { change } => self.lock_voters(change),
            Command::UnlockVoters { number } => self.unlock_voters(*number),
            Command::CreateKey { key, grant, secret_hash, at_unix_ms } => {
                self.create_key(key, grant, *secret_hash, *at_unix_ms)
            }
            Command::ChangeKey { key, revision, grant } => self.change_key(key, *revision, grant),
            Command::AddKeySecret { key, number, secret_hash, at_unix_ms } => {
                self.add_key_secret(key, *number, *secret_hash, *at_unix_ms)
            }
            Command::DropKeySecret { key, number } => self.drop_key_secret(key, *number),
            Command::RevokeKey { key, at_unix_ms } => self.revoke_key(key, *at_unix_ms),
            Command::BeginJob { .. }
            | Command::TakeJob { .. }
            | Command::EndJob { .. }
            | Command::DropJob { .. }
            | Command::ForgetJobs { .. } => self.decide_job(command),
            Command::ChangeResponse { response, change } => self.change_response(*response, change),
            Command::ChangeFile { file, change } => self.change_file(file, change),
            Command::ChangeBatch { batch, change } => self.change_batch(batch, change),
            Command::ForgetFiles { at_unix_ms } => Ok(self.forget_files(*at_unix_ms)),
            Command::CountUsage { gateway, life, sequence, at_unix_ms, used } => {
                self.count_usage(*gateway, UsageMark { life: *life, sequence: *sequence }, *at_unix_ms, used)
            }
            Command::Note { by, at_unix_ms, action, outcome } => {
                self.noted(by, *at_unix_ms, action, *outcome)
            }
            Command::RaiseVersion { to, at_unix_ms: _ } => self.raise_version(*to),
            Command::Audited { by, at_unix_ms, action, command } => {
                self.audited(by, *at_unix_ms, action, command)
            }
        }
    }

    fn decide_breaker(&mut self, command: &Command) -> Result<Reply, Refusal> {
        let Command::MoveBreaker { node, model, state, generation, opens, until_unix_ms, why, at_unix_ms } =
            command
        else {
            // No other command moves one.
            return Ok(Reply::AlreadySo);
        };
        let (state, generation, opens, why) = (*state, *generation, *opens, why.clone());
        let (until_unix_ms, at_unix_ms) = (*until_unix_ms, *at_unix_ms);
        let moved = Breaker { state, generation, opens, until_unix_ms, why, at_unix_ms };
        self.move_breaker(*node, model.as_ref(), moved)
    }

    /// The cluster; none before it is founded.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The membership of the coordinator that founded the cluster is over.
    #[must_use]
    pub fn is_founder_revoked(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.founder_revoked_at_unix_ms.is_some())
    }

    /// A join token that is remembered, good or not.
    #[must_use]
    pub fn token(&self, id: &TokenId) -> Option<&Token> {
        self.tokens.get(id)
    }

    /// All remembered join tokens, by id.
    pub fn tokens(&self) -> impl Iterator<Item = (&TokenId, &Token)> {
        self.tokens.iter()
    }

    /// A node, revoked or not.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The node's membership is over. One that was revoked so long ago that nothing else is known of it is so for ever.
    #[must_use]
    pub fn is_node_revoked(&self, id: NodeId) -> bool {
        self.nodes.get(&id).map_or(id.0 > 0 && id.0 <= self.last_node, |node| node.revoked)
    }

    /// All nodes, revoked or not, by number.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }
}
