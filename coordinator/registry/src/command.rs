//! What may be asked of the registry. This is what the replicated log holds, so the names are for ever.
//!
//! Owns the list of commands and their form on disk. Refuses every rule about them: what a command does is decided
//! where its idea lives, and how it is shown is `command_debug.rs`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{
    BatchChange, BatchId, BreakerState, CaStep, ClusterId, ClusterVersion, Digest, FileChange, FileId,
    Fingerprint, Grant, JobId, JobRun, KeptAnswer, KeyId, ModelName, ModelPolicy, ModelSource, NodeId,
    Outcome, ResponseChange, Role, Tenant, TokenId, Used, VoterChange,
};

/// A change of the durable facts. Times are the proposer's, in milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Begins the cluster. A second founding is refused, so that the certificate authority never changes by accident.
    FoundCluster {
        /// The name of the cluster.
        cluster: ClusterId,
        /// The authority's certificate.
        ca_certificate_pem: String,
        /// The authority's private key.
        ca_key_pem: String,
        /// When it was founded.
        at_unix_ms: u64,
    },
    /// As [`Command::FoundCluster`], in a cluster of the third version, with a key that nobody can use who has but the facts.
    FoundSealed {
        /// The name of the cluster.
        cluster: ClusterId,
        /// The authority's certificate.
        ca_certificate_pem: String,
        /// The authority's private key, sealed; lower-case hex.
        sealed_ca_key: String,
        /// When it was founded.
        at_unix_ms: u64,
    },
    /// Puts the sealed form of the authority's key in the place of the plain one. Idempotent: a key that is sealed stays as it is.
    SealCa {
        /// The authority's private key, sealed; lower-case hex.
        sealed_ca_key: String,
        /// When it was sealed.
        at_unix_ms: u64,
    },
    /// The authority gives way to another one. Idempotent: what is said of a rotation that is over changes nothing.
    RotateCa {
        /// The rotation's.
        number: u64,
        /// What happens to it.
        step: CaStep,
        /// When it was decided.
        at_unix_ms: u64,
    },
    /// Lets machines that know the secret join, until the token expires or is spent. Idempotent.
    IssueJoinToken {
        /// The token's public part.
        id: TokenId,
        /// Hash of the secret; hex on disk.
        #[serde(with = "crate::secret_hash")]
        secret_hash: [u8; 32],
        /// What a joiner becomes.
        role: Role,
        /// The first moment at which the token is no longer good.
        expires_at_unix_ms: u64,
        /// How many machines may join with it; absent: any number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uses: Option<u32>,
        /// What it is for, in the operator's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Takes a join token back: nobody joins with it any more. Who did, stays. Idempotent.
    RevokeJoinToken {
        /// The token's public part.
        id: TokenId,
    },
    /// A machine joins. The same public key is the same node, however often it asks and whichever token it shows.
    AdmitNode {
        /// The token it shows.
        token: TokenId,
        /// Hash of the secret it shows; hex on disk.
        #[serde(with = "crate::secret_hash")]
        secret_hash: [u8; 32],
        /// What people call the machine.
        name: String,
        /// Fingerprint of its public key, lower-case hex.
        public_key: String,
        /// When it asked.
        at_unix_ms: u64,
    },
    /// Ends a node's membership for ever: its key is no longer accepted, and all it offered, held and reserved is
    /// dropped. Idempotent.
    RevokeNode {
        /// The node.
        node: NodeId,
    },
    /// Ends the membership of the coordinator that founded the cluster, for ever: it was never admitted, and is no node. Idempotent.
    RevokeFounder {
        /// When it was decided.
        at_unix_ms: u64,
    },
    /// This node offers the model: it can hold it, from that source. Whether it shall is [`Command::PlaceModel`]; to
    /// release 0.1, which knew no other word, it was both. Another source replaces the former one and leaves a
    /// placement as it is. Idempotent.
    WantModel {
        /// The node; an agent.
        node: NodeId,
        /// The model.
        model: ModelName,
        /// Where the node finds it.
        source: ModelSource,
    },
    /// This node offers the model no more, and so does not hold it either. Idempotent.
    UnwantModel {
        /// The node.
        node: NodeId,
        /// The model.
        model: ModelName,
    },
    /// What the node's GPU may hold, as its agent found it. A fact, so it is taken even when more is reserved;
    /// nothing is placed there until it fits again. Idempotent.
    SetBudget {
        /// The node; an agent.
        node: NodeId,
        /// All that models may take there.
        bytes: u64,
    },
    /// Reserves memory and has the node hold the model. Accepted only if all reservations of the node then fit into
    /// its budget, so a leader proposes it and waits for the answer before anything is loaded. Other bytes replace the
    /// former reservation under the same rule. Idempotent.
    PlaceModel {
        /// The node; it offers the model.
        node: NodeId,
        /// The model.
        model: ModelName,
        /// Weights, KV cache and overhead; at least one.
        bytes: u64,
    },
    /// This node need not hold the model; its memory is free. Idempotent.
    UnplaceModel {
        /// The node.
        node: NodeId,
        /// The model.
        model: ModelName,
    },
    /// How the cluster shall treat a model. The default needs no place, so setting it removes the entry. Idempotent.
    SetModelPolicy {
        /// The model; it need not be offered yet.
        model: ModelName,
        /// All of it; what is left out is the default.
        policy: ModelPolicy,
    },
    /// Keeps new work away from a node, or lets it come back. Idempotent.
    DrainNode {
        /// The node; an agent.
        node: NodeId,
        /// It shall take no new work.
        draining: bool,
    },
    /// A breaker moved. Accepted only into a later generation than the one that is known; a breaker that never moved
    /// is closed and in generation 0.
    MoveBreaker {
        /// The node; an agent.
        node: NodeId,
        /// The model it offers; absent: the breaker of the whole node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelName>,
        /// Where it moved to.
        state: BreakerState,
        /// One more with each move.
        generation: u32,
        /// How often it opened in a row; the next time is the longer for it.
        opens: u32,
        /// When this state ends by itself, if it does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_unix_ms: Option<u64>,
        /// Why, in words for the operator; never text of a request.
        why: String,
        /// When it moved.
        at_unix_ms: u64,
    },
    /// A runtime died while this request ran in it. One death is one node and one time: charged again it counts once.
    ChargeDeath {
        /// The request.
        fingerprint: Fingerprint,
        /// Where the runtime died.
        node: NodeId,
        /// When it died.
        at_unix_ms: u64,
    },
    /// Keeps a request away from every runtime for a while. A quarantine is lengthened, never shortened. Idempotent.
    QuarantineRequest {
        /// The request.
        fingerprint: Fingerprint,
        /// When it was decided.
        at_unix_ms: u64,
        /// The first moment at which the request may run again.
        until_unix_ms: u64,
    },
    /// Forgets all charges against a request, and its quarantine: it was answered in full. Idempotent.
    PardonRequest {
        /// The request.
        fingerprint: Fingerprint,
    },
    /// What a healthy runtime answers to the canary. The first answer under a card stays; another card replaces it.
    /// Idempotent.
    SetGolden {
        /// The model.
        model: ModelName,
        /// The digest of all that decides the answer, lower-case hex: the model's card and the canary itself.
        card_digest: String,
        /// The ids, in order; 1 to [`crate::limits::GOLDEN_IDS_MAX`].
        ids: Vec<u32>,
    },
    /// Begins a change of the group of coordinators, of which there is one at a time. Whoever leads completes it.
    /// Idempotent.
    LockVoters {
        /// All of it, so that another leader can complete it.
        change: VoterChange,
    },
    /// Ends it: the group is as the change wanted it. Idempotent.
    UnlockVoters {
        /// The change's.
        number: u64,
    },
    /// Makes an API key, with its first secret. Idempotent.
    CreateKey {
        /// The key's public part.
        key: KeyId,
        /// What it may do.
        grant: Grant,
        /// Hash of the secret; hex on disk.
        #[serde(with = "crate::secret_hash")]
        secret_hash: [u8; 32],
        /// When it was made.
        at_unix_ms: u64,
    },
    /// Changes what a key may do. Accepted only as the revision after the one that is known. Idempotent.
    ChangeKey {
        /// The key.
        key: KeyId,
        /// The revision it becomes; a new key has revision 0.
        revision: u64,
        /// All of what it may do from now on.
        grant: Grant,
    },
    /// Gives a key a second secret, so that its users can change to it one by one. Idempotent.
    AddKeySecret {
        /// The key.
        key: KeyId,
        /// One more than that of the last secret; the first is 1.
        number: u32,
        /// Hash of the secret; hex on disk.
        #[serde(with = "crate::secret_hash")]
        secret_hash: [u8; 32],
        /// When it was made.
        at_unix_ms: u64,
    },
    /// Ends one of a key's two secrets. Idempotent.
    DropKeySecret {
        /// The key.
        key: KeyId,
        /// The secret's number.
        number: u32,
    },
    /// Ends a key for ever. Idempotent.
    RevokeKey {
        /// The key.
        key: KeyId,
        /// When it was decided.
        at_unix_ms: u64,
    },
    /// A request begins that shall be answered once. Accepted only if there is no such job, or its time is over. Idempotent.
    BeginJob {
        /// The job.
        job: JobId,
        /// Whose it is.
        tenant: Tenant,
        /// What is asked.
        request: Digest,
        /// Who runs it.
        run: JobRun,
        /// When it was asked for.
        at_unix_ms: u64,
    },
    /// Another run takes the job over, because the former one is dead. Accepted only while that one has it. Idempotent.
    TakeJob {
        /// The job.
        job: JobId,
        /// The run that is dead.
        from: JobRun,
        /// The one that begins anew.
        run: JobRun,
        /// When it was decided.
        at_unix_ms: u64,
    },
    /// The job is answered. Accepted only from the run that has it, after the answer is on the disks that are named.
    /// Idempotent.
    EndJob {
        /// The job.
        job: JobId,
        /// The run that has it.
        run: JobRun,
        /// Its answer; absent: it could not be kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<KeptAnswer>,
        /// When it ended.
        at_unix_ms: u64,
    },
    /// The job was not done and may be begun anew. Accepted only from the run that has it. Idempotent.
    DropJob {
        /// The job.
        job: JobId,
        /// The run that has it.
        run: JobRun,
    },
    /// Forgets every job whose time is over at this moment. Idempotent.
    ForgetJobs {
        /// The moment.
        at_unix_ms: u64,
    },
    /// What happens to a response that its client need not wait for, beside what happens to every job.
    ChangeResponse {
        /// The job that it is.
        response: JobId,
        /// What.
        change: ResponseChange,
    },
    /// What happens to a file of a client.
    ChangeFile {
        /// The file.
        file: FileId,
        /// What.
        change: FileChange,
    },
    /// What happens to a batch.
    ChangeBatch {
        /// The batch.
        batch: BatchId,
        /// What.
        change: BatchChange,
    },
    /// Forgets every file and every batch whose time is over at this moment. Idempotent.
    ForgetFiles {
        /// The moment.
        at_unix_ms: u64,
    },
    /// What keys have used, as a gateway tells it. Each report counts once. Idempotent.
    CountUsage {
        /// The replica whose gateway it is.
        gateway: u64,
        /// The life of its process; a later one has a higher number.
        life: u64,
        /// The report's number in that life; the first is 1.
        sequence: u64,
        /// When it was told: it counts for this day and this month of UTC.
        at_unix_ms: u64,
        /// By key.
        used: BTreeMap<KeyId, Used>,
    },
    /// A line of the audit trail about a change that is no command of this registry, before it and after it. Idempotent.
    Note {
        /// Who asked.
        by: String,
        /// When.
        at_unix_ms: u64,
        /// What for, in words without secrets.
        action: String,
        /// How far it is.
        outcome: Outcome,
    },
    /// All replicas understand this version from now on. Proposed only when each of them says so, for one that does not cannot
    /// even read this. Idempotent.
    RaiseVersion {
        /// The version; one that is not higher changes nothing.
        to: ClusterVersion,
        /// When it was decided.
        at_unix_ms: u64,
    },
    /// A command that an administrator asked for: it does what it says, and a line of the audit trail says so. Made by
    /// [`Command::audited`].
    Audited {
        /// Who asked.
        by: String,
        /// When.
        at_unix_ms: u64,
        /// What for, in words without secrets.
        action: String,
        /// The command; none of this kind.
        command: Box<Command>,
    },
}

impl Command {
    /// It only ends what somebody was allowed to, or what was let in while there was room: whatever else has to wait, this
    /// has not.
    #[must_use]
    pub fn takes_rights_away(&self) -> bool {
        match self {
            Command::Audited { command, .. } => command.takes_rights_away(),
            Command::ChangeFile { change, .. } => *change == FileChange::Drop,
            Command::ChangeBatch { change, .. } => change.only_ends(),
            Command::RotateCa { step, .. } => matches!(step, CaStep::End { .. }),
            Command::ChangeResponse { change, .. } => change.only_ends(),
            Command::RevokeNode { .. }
            | Command::RevokeFounder { .. }
            | Command::RevokeJoinToken { .. }
            | Command::DropKeySecret { .. }
            | Command::RevokeKey { .. }
            | Command::EndJob { .. }
            | Command::DropJob { .. }
            | Command::ForgetJobs { .. }
            | Command::ForgetFiles { .. } => true,
            Command::FoundCluster { .. }
            | Command::FoundSealed { .. }
            | Command::SealCa { .. }
            | Command::IssueJoinToken { .. }
            | Command::AdmitNode { .. }
            | Command::WantModel { .. }
            | Command::UnwantModel { .. }
            | Command::SetBudget { .. }
            | Command::PlaceModel { .. }
            | Command::UnplaceModel { .. }
            | Command::SetModelPolicy { .. }
            | Command::DrainNode { .. }
            | Command::MoveBreaker { .. }
            | Command::ChargeDeath { .. }
            | Command::QuarantineRequest { .. }
            | Command::PardonRequest { .. }
            | Command::SetGolden { .. }
            | Command::LockVoters { .. }
            | Command::UnlockVoters { .. }
            | Command::CreateKey { .. }
            | Command::ChangeKey { .. }
            | Command::AddKeySecret { .. }
            | Command::BeginJob { .. }
            | Command::TakeJob { .. }
            | Command::CountUsage { .. }
            | Command::Note { .. }
            | Command::RaiseVersion { .. } => false,
        }
    }
}
