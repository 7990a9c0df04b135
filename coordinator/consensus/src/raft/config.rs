//! openraft's settings, each from `limits.rs`.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

use crate::limits;
use crate::options::Options;

/// Pre-vote is on so that a replica that was cut off does not depose a healthy leader when it returns. A leader
/// is never restored from its last vote without an election: our record of what was committed is written but not
/// flushed, and only an election makes the log itself the proof.
pub(crate) fn of(options: &Options) -> Arc<Config> {
    let config = Config {
        cluster_name: "mlx-serving".to_owned(),
        heartbeat_interval: limits::HEARTBEAT_MS,
        election_timeout_min: limits::ELECTION_MS_MIN,
        election_timeout_max: limits::ELECTION_MS_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_every.max(1)),
        // A follower further behind than a snapshot's worth gets the snapshot; the entries are purged anyway.
        replication_lag_threshold: options.snapshot_every.saturating_mul(2),
        max_in_snapshot_log_to_keep: limits::LOG_KEPT_BEHIND_SNAPSHOT.min(options.snapshot_every),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Arc::new(config)
}
