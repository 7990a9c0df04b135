//! Every bound of this crate, with its reason. All replicas must agree on them: lowering one makes a replica
//! refuse what another accepted, so a bound may only grow, and only with a cluster-wide upgrade.

/// Nodes that are admitted and not revoked. Ten times the largest Mac farm we aim at; a snapshot stays in the
/// low megabytes.
pub const LIVE_NODES_MAX: usize = 1024;

/// Revoked nodes that are remembered, the oldest forgotten first. The number of a forgotten node is unknown, which
/// refuses its certificate just as well; what is lost is only that its old key is recognised when it joins.
pub const REVOKED_NODES_MAX: usize = 4096;

/// Numbers that another life of the facts passes over, besides those up to the time at which it begins: as many nodes as can live at
/// once. It counts only where the clock was set back since the former life began.
pub const NODES_BEYOND_COPY: u64 = LIVE_NODES_MAX as u64;

/// Join tokens that are remembered. A farm needs a handful; a new one displaces a spent one, or the one that
/// expires first, so that old tokens never keep an operator from making another.
pub const TOKENS_MAX: usize = 1024;

/// Models one node offers. More than the memory of any Mac carries at once, with room for small ones.
pub const MODELS_PER_NODE_MAX: usize = 64;

/// A model name: an owner and a name on a hub are at most 96 bytes each, plus the divider and some air.
pub const MODEL_NAME_BYTES_MAX: usize = 200;

/// A model folder's path: macOS itself refuses paths above 1,024 bytes.
pub const MODEL_PATH_BYTES_MAX: usize = 1024;

/// Cluster and token ids: short random names made by a coordinator.
pub const ID_BYTES_MAX: usize = 64;

/// A machine's name: a host name is at most 253 bytes.
pub const NODE_NAME_BYTES_MAX: usize = 256;

/// A key's fingerprint in hex: room for a 512-bit hash.
pub const FINGERPRINT_BYTES_MAX: usize = 128;

/// The digest of a model card in hex: room for a 512-bit hash.
pub const CARD_DIGEST_BYTES_MAX: usize = 128;

/// A certificate or a private key in PEM: an RSA-4096 key takes 3.2 KiB, what we make takes less than one.
pub const PEM_BYTES_MAX: usize = 16 * 1024;

/// The authority's sealed key as hex: twice the PEM, and the nonce and the tag around it.
pub const SEALED_KEY_BYTES_MAX: usize = 2 * PEM_BYTES_MAX + 64;

/// A rotation of the authority: as long as a certificate lasts, after which nobody has one of the former authority.
pub const ROTATION_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Models that have a policy of their own. A farm serves dozens; the default needs no entry.
pub const MODEL_POLICIES_MAX: usize = 1024;

/// Breakers that are remembered on one node, beside its own. Twice what it may offer, so that a full node always has
/// the breaker of a model it offers no more, which can be forgotten.
pub const BREAKERS_PER_NODE_MAX: usize = 2 * MODELS_PER_NODE_MAX;

/// Why a breaker moved: one line of a table.
pub const BREAKER_WHY_BYTES_MAX: usize = 120;

/// Requests that are charged with a death, the one whose last death is oldest forgotten first. Deaths are rare: a
/// thousand nodes that each lose a runtime a day fill it in four days.
pub const CHARGES_MAX: usize = 4096;

/// Deaths that are remembered for one request, the oldest forgotten first. The second quarantines it; the rest is
/// room for one panic that takes several runtimes, and for a client that sends it again after the quarantine.
pub const DEATHS_PER_CHARGE_MAX: usize = 8;

/// Quarantined requests, the one that ends first forgotten first. As many as can be charged.
pub const QUARANTINES_MAX: usize = CHARGES_MAX;

/// Models whose golden ids are known. A farm serves dozens; those of models that nobody offers give way.
pub const GOLDENS_MAX: usize = 1024;

/// Replicas that one change of voters names in each of its parts: a group of five, replaced as a whole, with some air.
pub const REPLICAS_MAX: usize = 16;

/// Replica ids that are known to be spent one by one; below the lowest of more all are. One coordinator replaced each
/// day fills it in eleven years.
pub const REMOVED_REPLICAS_MAX: usize = 4096;

/// A coordinator's address: a host name of at most 253 bytes, and a port.
pub const REPLICA_ADDRESS_BYTES_MAX: usize = 260;

/// Golden ids of one model. A wrong weight shows within a few tokens; sixteen cost a slow Mac about a second.
pub const GOLDEN_IDS_MAX: usize = 16;

/// API keys that are not revoked. One for each person and program of a farm, several times over.
pub const LIVE_KEYS_MAX: usize = 1024;

/// Revoked keys that are remembered, the one that was revoked first forgotten first. A forgotten key opens nothing either;
/// what is lost is only its name in a list. Never 0: that there was a key is not forgotten.
pub const REVOKED_KEYS_MAX: usize = 1024;

/// Secrets of one key: the old one and the new one, while its users change.
pub const SECRETS_PER_KEY_MAX: usize = 2;

/// What people call a key: one cell of a table.
pub const KEY_NAME_BYTES_MAX: usize = 120;

/// Models on the list of one key: more than a farm serves at once. Who may ask nearly all needs no list.
pub const MODELS_PER_KEY_MAX: usize = 64;

/// Jobs that are remembered, running or ended, whosever they are. The whole registry is copied after each command that is
/// applied, and this many flat entries are copied in about two milliseconds; a snapshot grows by some 9 MB.
pub const JOBS_MAX: usize = 16_384;

/// Jobs of one tenant: a quarter of all, so that nobody takes every place. One begun every 21 s for a whole day.
pub const JOBS_PER_TENANT_MAX: usize = 4_096;

/// A job whose end was never told is forgotten this long after its run began: the longest deadline of a request, and an
/// hour in which its end would have been told.
pub const JOB_RUN_MS: u64 = 25 * 3_600 * 1_000;

/// An answer is kept for a day after it was given, as with other APIs that know such keys.
pub const JOB_KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// Responses that run without their clients, whosever they are: what four coordinators run at once with half of their places. With
/// the longest question and answer they hold eight gigabytes.
pub const RESPONSES_RUNNING_MAX: usize = 1_024;

/// Those of one tenant: a quarter of all.
pub const RESPONSES_RUNNING_PER_TENANT_MAX: usize = 256;

/// A bound of what a key may ask for. Far beyond what a farm computes in a year, and small enough to be reckoned with.
pub const ALLOWANCE_MAX: u64 = 1_000_000_000_000;

/// Days whose totals are remembered for each key: this week beside the same day of the last one.
pub const USAGE_DAYS_MAX: usize = 8;

/// Months whose totals are remembered for each key: a year, and the one that runs.
pub const USAGE_MONTHS_MAX: usize = 13;

/// Keys in one report of usage: all that can be remembered.
pub const USAGE_KEYS_MAX: usize = LIVE_KEYS_MAX + REVOKED_KEYS_MAX;

/// Gateways whose last report is known, the one whose process began first forgotten first. A group has five at most; the rest is
/// room for those that were replaced.
pub const USAGE_GATEWAYS_MAX: usize = 64;

/// Changes by administrators that are remembered. A few a day last a year; a snapshot grows by less than a megabyte.
pub const AUDIT_ENTRIES_MAX: usize = 1024;

/// One change in words: a name, the scopes and the first models of a list.
pub const AUDIT_ACTION_BYTES_MAX: usize = 512;

/// Files that are remembered, and what batches that are not over will make of them. With their pieces they are copied with the
/// registry after each command, as jobs are.
pub const FILES_MAX: usize = 4_096;

/// Files of one tenant: a quarter of all. Thirty batches a day for ten days, with their answers and errors.
pub const FILES_PER_TENANT_MAX: usize = 1_024;

/// Files that a batch makes: one of answers and one of errors.
pub const FILES_OF_BATCH: usize = 2;

/// All files together, in bytes. Each lies on two disks of three; the smallest Mac has 256 GB.
pub const FILE_BYTES_MAX: u64 = 16 << 30;

/// Files of one tenant, in bytes: a quarter of all.
pub const FILE_BYTES_PER_TENANT_MAX: u64 = 4 << 30;

/// Pieces of a file that a client uploads: of 64 MiB in pieces of some four, with air.
pub const UPLOAD_PIECES_MAX: usize = 32;

/// What a client calls a file: a file name is at most 255 bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// A file is kept for thirty days, as OpenAI keeps those of batches, unless its owner wants it shorter.
pub const FILE_KEPT_MS: u64 = 30 * 24 * 3_600 * 1_000;

/// Batches that are remembered, the one that ended first forgotten first; its files stay.
pub const BATCHES_MAX: usize = 256;

/// Batches of one tenant: a quarter of all.
pub const BATCHES_PER_TENANT_MAX: usize = 64;

/// A batch has a day, as with OpenAI.
pub const BATCH_WINDOW_MS: u64 = 24 * 3_600 * 1_000;

/// Requests of one batch, as with OpenAI.
pub const BATCH_LINES_MAX: u64 = 50_000;

/// Pieces of one batch, answers and errors together: one for each step, and a step is a hundredth of the batch or four megabytes of
/// answers, so that as many hold more than a batch can be expected to answer.
pub const BATCH_PIECES_MAX: usize = 512;

/// What a client may say of its batch, as with OpenAI.
pub const METADATA_PAIRS_MAX: usize = 16;
/// The name of a pair, in bytes.
pub const METADATA_KEY_BYTES_MAX: usize = 64;
/// The value of a pair, in bytes: 512 characters, as they may be written.
pub const METADATA_VALUE_BYTES_MAX: usize = 2_048;

/// Reasons for which a batch fails that are told: whoever mends the first ones sees the rest next time.
pub const PROBLEMS_MAX: usize = 32;

/// Such a reason in words.
pub const PROBLEM_BYTES_MAX: usize = 512;
