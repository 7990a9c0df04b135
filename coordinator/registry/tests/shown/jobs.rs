//! Jobs in words: who has each, how often it was tried, and how it ended.

use std::fmt::{Result, Write};

use registry::{Deferred, Digest, JobRun, Registry};

pub(super) fn jobs(registry: &Registry, out: &mut String) -> Result {
    for (id, job) in registry.jobs() {
        let (tenant, attempt, until) = (job.tenant.0, job.attempt, job.until_unix_ms);
        write!(out, "  job {} of {tenant} asks {}, until {until}: ", word(id.0), word(job.request))?;
        let run = run(job.run);
        let Some(ended) = &job.ended else {
            writeln!(out, "attempt {attempt} runs as {run}")?;
            if let Some(Deferred { key, question, progress }) = job.deferred.as_deref() {
                let key = key.as_ref().map_or(String::new(), |key| format!(" under key {key}"));
                let shown = progress.as_ref().map_or("nothing".to_owned(), |kept| word(kept.digest));
                writeln!(out, "    asked{key} with {}, {shown} may be shown", word(question.digest))?;
            }
            continue;
        };
        write!(out, "attempt {attempt} by {run} ended at {}, ", ended.at_unix_ms)?;
        match &ended.kept {
            Some(kept) => {
                let holders: Vec<_> = kept.holders.iter().map(ToString::to_string).collect();
                writeln!(out, "{} of {} bytes on {}", word(kept.digest), kept.bytes, holders.join(", "))?;
            }
            None => writeln!(out, "its answer not kept")?,
        }
    }
    Ok(())
}

pub(super) fn run(run: JobRun) -> String {
    format!("{}.{:x}.{}", run.replica, run.life.0, run.number)
}

/// The digests of scenarios are words, repeated.
pub(super) fn word(digest: Digest) -> String {
    let text: String = digest.0.map(char::from).iter().collect();
    let period = (1..=text.len()).find(|period| {
        text.chars().cycle().skip(*period).zip(text.chars()).take(32 - period).all(|(a, b)| a == b)
    });
    text[..period.unwrap_or(text.len())].to_owned()
}
