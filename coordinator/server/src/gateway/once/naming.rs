//! What a request with an `Idempotency-Key` begins for good, under a name that the next run of its job finds again.
//!
//! Owns the name: a keyed hash of the job and of what is asked, so that whoever takes the job over, or begins it anew after an outcome
//! that nobody knew, meets what there is instead of beginning another one. A key that is used again when its day is over names
//! something else.

use registry::limits::{JOB_KEPT_MS, JOB_RUN_MS};
use registry::{Digest, JobId};

use super::Asked;
use crate::clock::unix_ms;
use crate::gateway::hash_keys::HashKeys;
use crate::gateway::request_id;

/// The names of what a request begins.
pub(crate) struct Names {
    /// The one to give it.
    pub(crate) own: String,
    /// Those that it may have by now; none where it has no key.
    pub(crate) before: Vec<String>,
    /// When the job began, or the run of it that died.
    since_unix_ms: u64,
}

impl Names {
    pub(crate) fn fresh(prefix: &str) -> Self {
        Self { own: request_id::fresh(prefix), before: Vec::new(), since_unix_ms: unix_ms() }
    }

    /// Whether what began then is of this job: one that is a day older was answered and forgotten before this one began.
    pub(crate) fn are_of(&self, begun_at_unix_ms: u64) -> bool {
        begun_at_unix_ms.saturating_add(JOB_KEPT_MS) > self.since_unix_ms
    }
}

impl Asked {
    pub(crate) fn names(&self, keys: &HashKeys, prefix: &str) -> Names {
        let Some(named) = self.named else { return Names::fresh(prefix) };
        let on = |day: u64| name(keys, prefix, named.job, named.request, day);
        let now = unix_ms();
        // A job that was taken over may be older than a day. A clock that is behind takes nothing away.
        let since_unix_ms =
            named.since_unix_ms.map_or(now, |since| since.clamp(now.saturating_sub(JOB_RUN_MS), now));
        let (first, today) = (since_unix_ms / JOB_KEPT_MS, now / JOB_KEPT_MS);
        // It may have begun the day before, or where a clock is ahead of this one.
        let days = first.saturating_sub(1)..=today.saturating_add(1);
        Names { own: on(today), before: days.rev().map(on).collect(), since_unix_ms }
    }
}

/// Of what a job begins on that day.
pub(crate) fn name(keys: &HashKeys, prefix: &str, job: JobId, request: Digest, day: u64) -> String {
    let parts: [&[u8]; 4] = [b"begun", &job.0.0, &request.0, &day.to_le_bytes()];
    let digest = keys.jobs.digest(&parts).to_string();
    format!("{prefix}{}", digest.get(..32).unwrap_or(&digest))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::http::HeaderMap;
    use registry::Tenant;

    use super::super::Named;
    use super::*;
    use crate::gateway::access::Who;

    fn names(named: Option<(u8, u8)>) -> Names {
        names_since(named, None)
    }

    fn names_since(named: Option<(u8, u8)>, since_unix_ms: Option<u64>) -> Names {
        let named = named.map(|(job, request)| Named {
            job: JobId(Digest([job; 32])),
            tenant: Tenant(1),
            request: Digest([request; 32]),
            since_unix_ms,
        });
        let (headers, bytes, at) = (HeaderMap::new(), bytes::Bytes::new(), Instant::now());
        let asked = Asked { who: Who::Anonymous, headers, bytes, at, named };
        asked.names(&HashKeys::new([7; 32]), "batch_")
    }

    #[test]
    fn the_next_run_of_a_job_finds_what_it_began_and_no_other_job_does() {
        let (first, next) = (names(Some((1, 1))), names(Some((1, 1))));
        assert!(next.before.contains(&first.own), "also where it is another day by then");
        assert_eq!(first.own.len(), request_id::fresh("batch_").len());
        for other in [names(Some((1, 2))), names(Some((2, 1))), names(None)] {
            assert!(other.before.iter().chain([&other.own]).all(|name| !first.before.contains(name)));
        }
        assert!(names(None).before.is_empty() && names(None).own != names(None).own);
    }

    #[test]
    fn what_began_a_day_before_its_job_is_of_one_that_is_over() {
        let now = unix_ms();
        let longest = now - JOB_RUN_MS + 60_000;
        for (since, began) in [(None, now), (Some(longest), longest), (Some(0), now - JOB_RUN_MS)] {
            let names = names_since(Some((1, 1)), since);
            assert!(names.are_of(now + 60_000) && names.are_of(now) && names.are_of(began));
            assert!(
                names.are_of(began - JOB_KEPT_MS + 60_000) && !names.are_of(began - JOB_KEPT_MS - 60_000)
            );
        }
    }

    #[test]
    fn a_job_that_was_taken_over_finds_what_it_began_as_long_as_it_can_run() {
        let now = unix_ms();
        let names = names_since(Some((1, 1)), Some(now - JOB_RUN_MS + 1));
        let keys = HashKeys::new([7; 32]);
        let named =
            |at: u64| name(&keys, "batch_", JobId(Digest([1; 32])), Digest([1; 32]), at / JOB_KEPT_MS);
        for hours in 0..=25 {
            assert!(names.before.contains(&named(now - hours * 3_600_000 + 1)), "{hours} hours ago");
        }
        assert!(names.before.contains(&named(now + JOB_KEPT_MS)) && names.before.len() <= 5);
    }
}
