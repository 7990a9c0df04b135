//! The registry against a second one that is written as naively as possible: lists of what happened, searched from end to
//! end. Fields are well formed here; their rules have tests of their own.

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{
    Breaker, ClusterVersion, Command, Death, Fingerprint, ModelName, ModelPolicy, ModelSource, NodeId,
    Outcome, Refusal, Registry, Reply, Role, TokenId, VoterChange,
};

use crate::generator::{config, farm, founding, well_formed};
use crate::oracle_batches::{NaiveBatch, NaiveFile, compare_batches};
use crate::oracle_jobs::{NaiveJob, compare_jobs};
use crate::oracle_keys::{NaiveKey, compare_keys};
use crate::oracle_rotations::{NaiveRotation, compare_rotations};
use crate::oracle_usage::{Report, compare_usage};

/// Everything that ever happened, and nothing derived from it.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) tokens: Vec<Command>,
    pub(crate) taken_back: Vec<TokenId>,
    /// Key, role, token.
    pub(crate) admitted: Vec<(String, Role, TokenId)>,
    pub(crate) revoked: Vec<NodeId>,
    pub(crate) founder_revoked: bool,
    pub(crate) wanted: Vec<(NodeId, ModelName, ModelSource)>,
    pub(crate) budgets: Vec<(NodeId, u64)>,
    pub(crate) placed: Vec<(NodeId, ModelName, u64)>,
    pub(crate) policies: Vec<(ModelName, ModelPolicy)>,
    pub(crate) draining: Vec<NodeId>,
    /// Every accepted move, the last one last.
    pub(crate) moves: Vec<(NodeId, Option<ModelName>, Breaker)>,
    pub(crate) deaths: Vec<(Fingerprint, Death)>,
    /// Request, when it was decided, when it ends.
    pub(crate) quarantines: Vec<(Fingerprint, u64, u64)>,
    pub(crate) goldens: Vec<(ModelName, String, Vec<u32>)>,
    /// Every change of voters that began, the last one last.
    pub(crate) changes: Vec<VoterChange>,
    /// The number of each that ended.
    pub(crate) ended: Vec<u64>,
    pub(crate) keys: Vec<NaiveKey>,
    pub(crate) jobs: Vec<NaiveJob>,
    pub(crate) files: Vec<NaiveFile>,
    pub(crate) batches: Vec<NaiveBatch>,
    pub(crate) reports: Vec<Report>,
    /// Every sealed key that was taken on; the first is the one.
    pub(crate) sealed: Vec<String>,
    /// Every rotation of the authority that began, the last one last.
    pub(crate) rotations: Vec<NaiveRotation>,
    /// Every version that was taken on.
    pub(crate) raised: Vec<ClusterVersion>,
    /// When, by whom, what, and how it ended.
    pub(crate) trail: Vec<(u64, String, String, Outcome)>,
}

impl Oracle {
    pub(crate) fn apply(&mut self, command: &Command) -> Reply {
        let (needs, has) = (command.needs(), self.version());
        if needs > has {
            return Reply::Refused(Refusal::VersionTooLow { needs, has });
        }
        let decided = match command {
            Command::FoundCluster { .. } | Command::FoundSealed { .. } => Err(Refusal::AlreadyFounded),
            Command::SealCa { sealed_ca_key, .. } => Ok(self.seal(sealed_ca_key)),
            Command::RotateCa { number, step, at_unix_ms } => self.rotate(*number, step, *at_unix_ms),
            Command::IssueJoinToken { id, .. } => self.issue(id, command),
            Command::AdmitNode { token, secret_hash, public_key, at_unix_ms, name: _ } => {
                self.admit(token, secret_hash, public_key, *at_unix_ms)
            }
            Command::RevokeJoinToken { id } => self.revoke_token(id),
            Command::RevokeNode { node } => self.revoke(*node),
            Command::RevokeFounder { .. } => Ok(done_if(!std::mem::replace(&mut self.founder_revoked, true))),
            Command::WantModel { node, model, source } => self.want(*node, model, source),
            Command::UnwantModel { node, model } => self.unwant(*node, model),
            Command::SetBudget { node, bytes } => self.set_budget(*node, *bytes),
            Command::PlaceModel { node, model, bytes } => self.place(*node, model, *bytes),
            Command::UnplaceModel { node, model } => self.unplace(*node, model),
            Command::SetModelPolicy { model, policy } => Ok(self.set_policy(model, *policy)),
            Command::SetGolden { model, card_digest, ids } => self.set_golden(model, card_digest, ids),
            Command::DrainNode { node, draining } => self.drain(*node, *draining),
            Command::MoveBreaker { .. } => self.move_breaker(command),
            Command::ChargeDeath { fingerprint, node, at_unix_ms } => {
                self.charge(*fingerprint, Death { at_unix_ms: *at_unix_ms, node: *node })
            }
            Command::QuarantineRequest { fingerprint, at_unix_ms, until_unix_ms } => {
                Ok(self.quarantine(*fingerprint, *at_unix_ms, *until_unix_ms))
            }
            Command::PardonRequest { fingerprint } => Ok(self.pardon(*fingerprint)),
            Command::LockVoters { change } => self.lock_voters(change),
            Command::UnlockVoters { number } => self.unlock_voters(*number),
            Command::CreateKey { key, grant, secret_hash, at_unix_ms } => {
                self.create_key(key, grant, *secret_hash, *at_unix_ms)
            }
            Command::ChangeKey { key, revision, grant } => self.change_key(key, *revision, grant),
            Command::AddKeySecret { key, number, secret_hash, at_unix_ms } => {
                self.add_secret(key, *number, *secret_hash, *at_unix_ms)
            }
            Command::DropKeySecret { key, number } => self.drop_secret(key, *number),
            Command::RevokeKey { key, at_unix_ms } => self.revoke_key(key, *at_unix_ms),
            Command::BeginJob { job, tenant, request, run, at_unix_ms } => {
                self.begin(*job, (*tenant, *request, *run, *at_unix_ms))
            }
            Command::TakeJob { job, from, run, at_unix_ms } => self.take(*job, *from, *run, *at_unix_ms),
            Command::EndJob { job, run, kept, at_unix_ms } => self.end(*job, *run, kept, *at_unix_ms),
            Command::DropJob { job, run } => self.drop_job(*job, *run),
            Command::ForgetJobs { at_unix_ms } => Ok(self.forget(*at_unix_ms)),
            Command::ChangeResponse { response, change } => self.change_response(*response, change),
            Command::ChangeFile { file, change } => self.change_file(file, change),
            Command::ChangeBatch { batch, change } => self.change_batch(batch, change),
            Command::ForgetFiles { at_unix_ms } => Ok(self.forget_files(*at_unix_ms)),
            Command::CountUsage { gateway, life, sequence, at_unix_ms, used } => {
                self.count_usage((*gateway, *life, *sequence), *at_unix_ms, used)
            }
            Command::Note { by, at_unix_ms, action, outcome } => {
                Ok(self.noted((*at_unix_ms, by.clone(), action.clone(), *outcome)))
            }
            Command::RaiseVersion { to, .. } => self.raise(*to),
            Command::Audited { by, at_unix_ms, action, command } => {
                Ok(self.audited(by, *at_unix_ms, action, command))
            }
        };
        decided.unwrap_or_else(Reply::Refused)
    }
}

/// Done if something changed.
pub(crate) fn done_if(changed: bool) -> Reply {
    if changed { Reply::Done } else { Reply::AlreadySo }
}

/// A sorted list, for what a registry reads in the order of its keys.
fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<_> = items.into_iter().collect();
    items.sort();
    items
}

fn compare_models(registry: &Registry, oracle: &Oracle) -> Result<(), TestCaseError> {
    let nodes = || registry.nodes().map(|(id, _)| id);
    let wanted: Vec<_> = nodes()
        .flat_map(|id| registry.wanted_on(id).map(move |(name, source)| (id, name.clone(), source.clone())))
        .collect();
    prop_assert_eq!(wanted, sorted(oracle.wanted.clone()));
    let placed: Vec<_> = nodes()
        .flat_map(|id| {
            registry.placed_on(id).map(move |(name, placement)| (id, name.clone(), placement.bytes))
        })
        .collect();
    prop_assert_eq!(placed, sorted(oracle.placed.clone()));
    let budgets: Vec<_> = nodes().filter_map(|id| Some((id, registry.budget(id)?))).collect();
    prop_assert_eq!(budgets, sorted(oracle.budgets.clone()));
    let policies: Vec<_> = registry.policies().map(|(model, policy)| (model.clone(), *policy)).collect();
    let mut expected = oracle.policies.clone();
    expected.sort_by(|left, right| left.0.cmp(&right.0));
    prop_assert_eq!(policies, expected);
    for (model, card, ids) in &oracle.goldens {
        prop_assert_eq!(registry.golden(model, card), Some(ids.as_slice()));
    }
    Ok(())
}

fn compare_health(registry: &Registry, oracle: &Oracle) -> Result<(), TestCaseError> {
    let draining = registry.nodes().map(|(id, _)| id).filter(|id| registry.is_draining(*id));
    prop_assert_eq!(draining.collect::<Vec<_>>(), sorted(oracle.draining.clone()));
    let breakers: Vec<_> =
        registry.breakers().map(|(node, model, breaker)| (node, model.cloned(), breaker.clone())).collect();
    let mut standing = Vec::new();
    for (index, (node, model, breaker)) in oracle.moves.iter().enumerate() {
        let later = oracle.moves.iter().skip(index + 1);
        if later.into_iter().all(|(on, of, _)| (on, of) != (node, model)) {
            standing.push((*node, model.clone(), breaker.clone()));
        }
    }
    standing.sort_by_key(|(node, model, _)| (*node, model.clone()));
    prop_assert_eq!(breakers, standing);
    let charged = registry.charges();
    let charged: Vec<_> =
        charged.flat_map(|(of, charge)| charge.deaths().map(move |death| (of, *death))).collect();
    prop_assert_eq!(charged, sorted(oracle.deaths.clone()));
    let quarantines = registry.quarantines();
    let quarantines: Vec<_> =
        quarantines.map(|(of, known)| (of, known.at_unix_ms, known.until_unix_ms)).collect();
    prop_assert_eq!(quarantines, sorted(oracle.quarantines.clone()));
    Ok(())
}

fn compare_voters(registry: &Registry, oracle: &Oracle) -> Result<(), TestCaseError> {
    let under_way = oracle.changes.last().filter(|change| !oracle.ended.contains(&change.number));
    prop_assert_eq!(registry.voter_change(), under_way);
    prop_assert_eq!(registry.last_voter_change(), oracle.changes.len() as u64);
    for replica in 1..8 {
        let removed = oracle.changes.iter().any(|change| change.remove.contains(&replica));
        prop_assert_eq!(registry.is_replica_removed(replica), removed);
    }
    prop_assert_eq!(registry.epoch(), 0);
    prop_assert_eq!(registry.cluster_version(), oracle.version());
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_registry_answers_as_a_naive_one_does(
        beginning in prop_oneof![Just(Vec::new()), Just(farm().split_off(1))],
        commands in vec(well_formed(), 0..120),
    ) {
        let mut registry = Registry::default();
        let mut oracle = Oracle::default();
        registry.apply(&founding());
        for command in beginning.iter().chain(&commands) {
            prop_assert_eq!(registry.apply(command), oracle.apply(command), "{:?}", command);
        }
        compare_models(&registry, &oracle)?;
        compare_health(&registry, &oracle)?;
        compare_voters(&registry, &oracle)?;
        compare_keys(&registry, &oracle)?;
        compare_jobs(&registry, &oracle)?;
        compare_batches(&registry, &oracle)?;
        compare_rotations(&registry, &oracle)?;
        compare_usage(&registry, &oracle)?;
    }
}
