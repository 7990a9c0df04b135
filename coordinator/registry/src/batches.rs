//! Which batches there are: from their beginning until they are forgotten.
//!
//! Owns the fence and the turn: a batch has one run at a time, another takes it over only from the run it knows of, only the run
//! that has it goes on, and only from where the last step left it. So every request is answered once. Refuses to judge whether a
//! run is dead, and to forget a batch that has not ended.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::batch::{Batch, BatchEndpoint, BatchId, EndedBatch, Ending, Opened, Problem, Progress};
use crate::batch_change::BatchChange;
use crate::batch_field::BatchField;
use crate::batch_refusal::BatchRefusal;
use crate::field::{Field, check_id};
use crate::file::{FileId, Purpose, StoredFile};
use crate::files::is_held;
use crate::job::{JobRun, KeptAnswer, Tenant};
use crate::limits;
use crate::names::KeyId;
use crate::registry::Registry;
use crate::reply::{Bounded, Refusal, Reply};

pub(crate) type Batches = BTreeMap<BatchId, Batch>;

/// One step, as its run tells it.
struct Step<'a> {
    after: u64,
    answered: Progress,
    output: Option<&'a KeptAnswer>,
    errors: Option<&'a KeptAnswer>,
    at: u64,
}

/// An end, as its run tells it.
struct End<'a> {
    run: JobRun,
    how: Ending,
    problems: &'a [Problem],
    /// For answers and for errors.
    files: [&'a FileId; 2],
    at: u64,
}

impl End<'_> {
    /// It ended so before.
    fn is_told(&self, batch: &Batch) -> bool {
        let is_so = |known: &Option<FileId>, told: &FileId| known.as_ref().is_none_or(|known| known == told);
        batch.ended.as_ref().is_some_and(|ended| {
            (ended.how, ended.at_unix_ms) == (self.how, self.at)
                && ended.problems == self.problems
                && is_so(&ended.output, self.files[0])
                && is_so(&ended.errors, self.files[1])
        })
    }
}

impl Registry {
    pub(crate) fn change_batch(&mut self, id: &BatchId, change: &BatchChange) -> Result<Reply, Refusal> {
        match change {
            BatchChange::Begin { tenant, key, input, endpoint, metadata, run, at_unix_ms } => {
                let begun =
                    fresh(*tenant, key.as_ref(), input, *endpoint, metadata.clone(), *run, *at_unix_ms);
                self.begin_batch(id, begun)
            }
            BatchChange::Take { from, run } => self.take_batch(id, *from, *run),
            BatchChange::Open { run, lines, at_unix_ms } => {
                self.open_batch(id, *run, Opened { at_unix_ms: *at_unix_ms, lines: *lines })
            }
            BatchChange::Keep { run, after, completed, failed, output, errors, at_unix_ms } => {
                let answered = Progress { completed: *completed, failed: *failed, all_at_unix_ms: None };
                let (output, errors) = (output.as_ref(), errors.as_ref());
                self.keep_step(id, *run, &Step { after: *after, answered, output, errors, at: *at_unix_ms })
            }
            BatchChange::End { run, how, problems, output, errors, at_unix_ms } => {
                let (run, how, at) = (*run, *how, *at_unix_ms);
                self.end_batch(id, &End { run, how, problems, files: [output, errors], at })
            }
            BatchChange::Cancel { at_unix_ms } => self.cancel_batch(id, *at_unix_ms),
        }
    }

    fn begin_batch(&mut self, id: &BatchId, begun: Batch) -> Result<Reply, Refusal> {
        check_id(&id.0, Field::Batch(BatchField::BatchId))?;
        check_metadata(&begun.metadata)?;
        match self.batches.get(id) {
            Some(known) if *known == begun => return Ok(Reply::AlreadySo),
            Some(_) => return refused(BatchRefusal::IdTaken { batch: id.clone() }),
            None => {}
        }
        let at = begun.begun_at_unix_ms;
        let readable = |file: &&StoredFile| {
            file.tenant == begun.tenant && file.purpose == Purpose::Batch && !file.is_over(at)
        };
        if self.files.get(&begun.input).filter(readable).is_none() {
            return refused(BatchRefusal::UnknownFile { file: begun.input });
        }
        self.place_for_files(begun.tenant, limits::FILES_OF_BATCH, 0, at)?;
        self.place_for_batch(begun.tenant)?;
        self.batches.insert(id.clone(), begun);
        Ok(Reply::Done)
    }

    fn take_batch(&mut self, id: &BatchId, from: JobRun, run: JobRun) -> Result<Reply, Refusal> {
        let batch = self.live_batch(id)?;
        if batch.run == run {
            return Ok(Reply::AlreadySo);
        }
        if batch.run != from {
            return refused(BatchRefusal::NotItsRun { batch: id.clone() });
        }
        batch.run = run;
        batch.attempt = batch.attempt.saturating_add(1);
        Ok(Reply::Done)
    }

    fn open_batch(&mut self, id: &BatchId, run: JobRun, opened: Opened) -> Result<Reply, Refusal> {
        if !(1..=limits::BATCH_LINES_MAX).contains(&opened.lines) {
            return Err(Refusal::Malformed { what: Field::Batch(BatchField::Lines) });
        }
        let batch = self.batch_of_run(id, run)?;
        match batch.opened {
            Some(known) if known == opened => Ok(Reply::AlreadySo),
            Some(_) => refused(BatchRefusal::OutOfTurn { batch: id.clone() }),
            None => {
                batch.opened = Some(opened);
                Ok(Reply::Done)
            }
        }
    }

    fn keep_step(&mut self, id: &BatchId, run: JobRun, step: &Step<'_>) -> Result<Reply, Refusal> {
        let Step { after, answered, output, errors, at } = *step;
        let told = |count: u64, piece: Option<&KeptAnswer>| (count > 0) == piece.is_some_and(is_held);
        if answered.lines() == 0 || !told(answered.completed, output) || !told(answered.failed, errors) {
            return Err(Refusal::Malformed { what: Field::Batch(BatchField::Step) });
        }
        let batch = self.batch_of_run(id, run)?;
        let (tenant, done) = (batch.tenant, batch.progress.lines());
        let then = after.saturating_add(answered.lines());
        // Kept anew, the same answers may be on other disks.
        let is_last = |all: &[KeptAnswer], one: Option<&KeptAnswer>| {
            one.is_none_or(|one| all.last().is_some_and(|last| last.digest == one.digest))
        };
        if done == then && is_last(&batch.output, output) && is_last(&batch.errors, errors) {
            return Ok(Reply::AlreadySo);
        }
        let lines = batch.opened.map_or(0, |opened| opened.lines);
        if done != after
            || then > lines
            || batch.output.len() + batch.errors.len() >= limits::BATCH_PIECES_MAX
        {
            return refused(BatchRefusal::OutOfTurn { batch: id.clone() });
        }
        let more =
            output.map_or(0, |piece| piece.bytes).saturating_add(errors.map_or(0, |piece| piece.bytes));
        self.place_for_files(tenant, 0, more, at)?;
        let batch = self.batch_of_run(id, run)?;
        batch.output.extend(output.cloned());
        batch.errors.extend(errors.cloned());
        batch.progress.completed = batch.progress.completed.saturating_add(answered.completed);
        batch.progress.failed = batch.progress.failed.saturating_add(answered.failed);
        batch.progress.all_at_unix_ms = (then == lines).then_some(at);
        Ok(Reply::Done)
    }

    fn end_batch(&mut self, id: &BatchId, end: &End<'_>) -> Result<Reply, Refusal> {
        let End { run, how, problems, files: [output, errors], at } = *end;
        check_end(end)?;
        if output == errors {
            return refused(BatchRefusal::FileIdTaken { file: output.clone() });
        }
        if self.batches.get(id).filter(|batch| batch.run == run).is_some_and(|batch| end.is_told(batch)) {
            return Ok(Reply::AlreadySo);
        }
        if let Some(taken) = end.files.into_iter().find(|file| self.files.contains_key(*file)) {
            return refused(BatchRefusal::FileIdTaken { file: taken.clone() });
        }
        let batch = self.batch_of_run(id, run)?;
        let in_turn = match how {
            Ending::Completed => batch.is_answered(),
            Ending::Cancelled => batch.cancelled_at_unix_ms.is_some(),
            Ending::Failed | Ending::Expired => true,
        };
        if !in_turn {
            return refused(BatchRefusal::OutOfTurn { batch: id.clone() });
        }
        let tenant = batch.tenant;
        let pieces = [core::mem::take(&mut batch.output), core::mem::take(&mut batch.errors)];
        let named = |pieces: &[KeptAnswer], id: &FileId| (!pieces.is_empty()).then(|| id.clone());
        batch.ended = Some(EndedBatch {
            at_unix_ms: at,
            how,
            problems: problems.to_vec(),
            output: named(&pieces[0], output),
            errors: named(&pieces[1], errors),
            until_unix_ms: at.saturating_add(limits::FILE_KEPT_MS),
        });
        for ((pieces, file), kind) in pieces.into_iter().zip(end.files).zip(["output", "error"]) {
            if !pieces.is_empty() {
                let name = format!("{id}_{kind}.jsonl");
                self.files.insert(file.clone(), made(tenant, name, pieces, at));
            }
        }
        Ok(Reply::Done)
    }

    fn cancel_batch(&mut self, id: &BatchId, at: u64) -> Result<Reply, Refusal> {
        let batch = self.live_batch(id)?;
        if batch.cancelled_at_unix_ms.is_some() {
            return Ok(Reply::AlreadySo);
        }
        batch.cancelled_at_unix_ms = Some(at);
        Ok(Reply::Done)
    }

    /// A batch, also one whose time is over.
    #[must_use]
    pub fn batch(&self, id: &BatchId) -> Option<&Batch> {
        self.batches.get(id)
    }

    /// All remembered batches, by id.
    pub fn batches(&self) -> impl Iterator<Item = (&BatchId, &Batch)> {
        self.batches.iter()
    }

    /// Of those that ended, the one that did first gives way; its files stay.
    fn place_for_batch(&mut self, tenant: Tenant) -> Result<(), Refusal> {
        let own = self.batches.values().filter(|batch| batch.tenant == tenant).count();
        let (what, limit, of) = if own >= limits::BATCHES_PER_TENANT_MAX {
            (Bounded::BatchesOfTenant, limits::BATCHES_PER_TENANT_MAX, Some(tenant))
        } else if self.batches.len() >= limits::BATCHES_MAX {
            (Bounded::Batches, limits::BATCHES_MAX, None)
        } else {
            return Ok(());
        };
        let may_go = self.batches.iter().filter(|(_, batch)| of.is_none_or(|of| batch.tenant == of));
        let ended = may_go.filter_map(|(id, batch)| Some((batch.ended.as_ref()?.at_unix_ms, id)));
        let first = ended.min().map(|(_, id)| id.clone());
        let first = first.ok_or(Refusal::TooMany { what, limit })?;
        self.batches.remove(&first);
        Ok(())
    }

    fn live_batch(&mut self, id: &BatchId) -> Result<&mut Batch, Refusal> {
        let unknown = || Refusal::Batch(BatchRefusal::Unknown { batch: id.clone() });
        let batch = self.batches.get_mut(id).ok_or_else(unknown)?;
        if batch.ended.is_some() { refused(BatchRefusal::Ended { batch: id.clone() }) } else { Ok(batch) }
    }

    fn batch_of_run(&mut self, id: &BatchId, run: JobRun) -> Result<&mut Batch, Refusal> {
        let batch = self.live_batch(id)?;
        if batch.run == run { Ok(batch) } else { refused(BatchRefusal::NotItsRun { batch: id.clone() }) }
    }
}

fn fresh(
    tenant: Tenant,
    key: Option<&KeyId>,
    input: &FileId,
    endpoint: BatchEndpoint,
    metadata: BTreeMap<String, String>,
    run: JobRun,
    at: u64,
) -> Batch {
    Batch {
        tenant,
        key: key.cloned(),
        input: input.clone(),
        endpoint,
        metadata,
        run,
        attempt: 1,
        begun_at_unix_ms: at,
        expires_at_unix_ms: at.saturating_add(limits::BATCH_WINDOW_MS),
        opened: None,
        progress: Progress::default(),
        output: Vec::new(),
        errors: Vec::new(),
        cancelled_at_unix_ms: None,
        ended: None,
    }
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let fits = |(key, value): (&String, &String)| {
        (1..=limits::METADATA_KEY_BYTES_MAX).contains(&key.len())
            && value.len() <= limits::METADATA_VALUE_BYTES_MAX
    };
    let fine = metadata.len() <= limits::METADATA_PAIRS_MAX && metadata.iter().all(fits);
    if fine { Ok(()) } else { Err(Refusal::Malformed { what: Field::Batch(BatchField::Metadata) }) }
}

fn made(tenant: Tenant, name: String, pieces: Vec<KeptAnswer>, at: u64) -> StoredFile {
    StoredFile {
        tenant,
        name,
        purpose: Purpose::BatchOutput,
        pieces,
        made_at_unix_ms: at,
        until_unix_ms: at.saturating_add(limits::FILE_KEPT_MS),
    }
}

/// There are reasons where it failed, and nowhere else.
fn check_end(end: &End<'_>) -> Result<(), Refusal> {
    for file in end.files {
        check_id(&file.0, Field::Batch(BatchField::FileId))?;
    }
    let fits = |text: &String| (1..=limits::PROBLEM_BYTES_MAX).contains(&text.len());
    let fine = |problem: &Problem| {
        fits(&problem.code) && fits(&problem.message) && problem.param.as_ref().is_none_or(fits)
    };
    let many = match end.how {
        Ending::Failed => 1..=limits::PROBLEMS_MAX,
        Ending::Completed | Ending::Expired | Ending::Cancelled => 0..=0,
    };
    if many.contains(&end.problems.len()) && end.problems.iter().all(fine) {
        Ok(())
    } else {
        Err(Refusal::Malformed { what: Field::Batch(BatchField::Problems) })
    }
}

fn refused<T>(refusal: BatchRefusal) -> Result<T, Refusal> {
    Err(Refusal::Batch(refusal))
}
