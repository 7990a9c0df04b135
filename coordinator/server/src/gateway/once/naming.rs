//! What a request with an `Idempotency-Key` begins for good, under a name that the next run of its job finds again.
//!
//! Owns the name: a keyed hash of the job and of what is asked, so that whoever takes the job over, or begins it anew after an outcome
//! that nobody knew, meets what there is instead of beginning another one. A key that is used again when its day is over names
//! something else.

use registry::limits::JOB_KEPT_MS;

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
}

impl Names {
    pub(crate) fn fresh(prefix: &str) -> Self {
        Self { own: request_id::fresh(prefix), before: Vec::new() }
    }
}

impl Asked {
    pub(crate) fn names(&self, keys: &HashKeys, prefix: &str) -> Names {
        let Some(named) = self.named else { return Names::fresh(prefix) };
        let name = |day: u64| {
            let parts: [&[u8]; 4] = [b"begun", &named.job.0.0, &named.request.0, &day.to_le_bytes()];
            let digest = keys.jobs.digest(&parts).to_string();
            format!("{prefix}{}", digest.get(..32).unwrap_or(&digest))
        };
        let today = unix_ms() / JOB_KEPT_MS;
        // It may have begun yesterday, or where a clock is ahead of this one.
        let before = [today, today.saturating_sub(1), today.saturating_add(1)].map(name);
        Names { own: name(today), before: before.to_vec() }
    }
}

/// Whether what began then is of this job: one that is older has been answered, and was forgotten since.
pub(crate) fn is_of_this_job(begun_at_unix_ms: u64) -> bool {
    begun_at_unix_ms.saturating_add(JOB_KEPT_MS) > unix_ms()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::http::HeaderMap;
    use registry::{Digest, JobId, Tenant};

    use super::super::Named;
    use super::*;
    use crate::gateway::access::Who;

    fn names(named: Option<(u8, u8)>) -> Names {
        let named = named.map(|(job, request)| Named {
            job: JobId(Digest([job; 32])),
            tenant: Tenant(1),
            request: Digest([request; 32]),
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
    fn what_began_a_day_ago_is_of_a_job_that_is_over() {
        let now = unix_ms();
        assert!(
            is_of_this_job(now) && is_of_this_job(now + 60_000) && is_of_this_job(now - JOB_KEPT_MS + 60_000)
        );
        assert!(!is_of_this_job(now - JOB_KEPT_MS));
    }
}
