//! openraft's settings, each from `limits.rs`.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

use crate::limits;
use crate::options::Options;

/// openraft's followers stand for election when the lease of their leader, which is the upper end of the timeouts, and
/// then a random time between both ends have passed: a half and a quarter of the silence that is allowed.
///
/// Pre-vote is on so that a replica that was cut off does not depose a healthy leader when it returns. A leader
/// is never restored from its last vote without an election: our record of what was committed is written but not
/// flushed, and only an election makes the log itself the proof.
///
/// A leader that no majority has answered for its lease falls silent for as long as an election may take. One that only hears
/// nobody would otherwise keep everybody quiet, who still hear it, until its connections break. The price: disks of a majority
/// that take longer than half of the silence for one flush cost an election.
pub(crate) fn of(options: &Options) -> Arc<Config> {
    let silence = options.leader_silence.max(limits::LEADER_SILENCE_MIN).as_millis();
    let silence_ms = u64::try_from(silence).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "mlx-serving".to_owned(),
        heartbeat_interval: silence_ms / limits::HEARTBEATS_PER_SILENCE,
        election_timeout_min: silence_ms / 4,
        election_timeout_max: silence_ms / 2,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_every.max(1)),
        // A follower further behind than a snapshot's worth gets the snapshot; the entries are purged anyway.
        replication_lag_threshold: options.snapshot_every.saturating_mul(2),
        max_in_snapshot_log_to_keep: limits::LOG_KEPT_BEHIND_SNAPSHOT.min(options.snapshot_every),
        quorum_loss_probe_interval: Some(silence_ms),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_silent_leader_is_replaced_within_the_time_that_is_set_and_one_lost_heartbeat_elects_nobody() {
        let settings = |ms| of(&Options { leader_silence: Duration::from_millis(ms), ..Options::default() });
        for (ms, longest) in [(1000, 1000), (2000, 2000), (0, 500)] {
            let config = settings(ms);
            let lease = config.election_timeout_max;
            assert_eq!(lease + config.election_timeout_max, longest);
            assert!(config.election_timeout_min > config.heartbeat_interval);
            assert!(lease + config.election_timeout_min > 3 * config.heartbeat_interval);
            config.as_ref().clone().validate().unwrap();
        }
        assert_eq!(settings(1000).enable_pre_vote, Some(true));
    }
}
