//! The naive registry's idea of files and batches: lists of them, and of every step that a batch took.

use proptest::prelude::*;
use registry::{
    BatchChange, BatchId, BatchRefusal, BatchStatus, Ending, FileChange, FileId, JobRun, KeptAnswer, Refusal,
    Registry, Reply, Tenant, limits,
};

use crate::oracle::{Oracle, done_if};

#[derive(Clone, PartialEq)]
pub(crate) struct NaiveFile {
    id: FileId,
    tenant: Tenant,
    /// `None`: a batch made it.
    name: Option<String>,
    pieces: Vec<KeptAnswer>,
    at: u64,
    until: u64,
}

/// One that is remembered.
#[derive(Clone)]
pub(crate) struct NaiveBatch {
    id: BatchId,
    tenant: Tenant,
    input: FileId,
    begun: BatchChange,
    runs: Vec<JobRun>,
    lines: Option<(u64, u64)>,
    /// Completed, failed, answers, errors.
    steps: Vec<(u64, u64, Option<KeptAnswer>, Option<KeptAnswer>)>,
    cancelled: bool,
    ended: Option<(Ending, u64, Option<FileId>, Option<FileId>)>,
}

impl NaiveBatch {
    fn run(&self) -> JobRun {
        self.runs[self.runs.len() - 1]
    }

    fn done(&self) -> u64 {
        self.steps.iter().map(|(completed, failed, ..)| completed + failed).sum()
    }

    fn pieces(&self) -> [Vec<KeptAnswer>; 2] {
        let output = self.steps.iter().filter_map(|step| step.2.clone()).collect();
        let errors = self.steps.iter().filter_map(|step| step.3.clone()).collect();
        [output, errors]
    }

    fn status(&self) -> BatchStatus {
        match (&self.ended, self.cancelled, self.lines) {
            (Some((Ending::Completed, ..)), ..) => BatchStatus::Completed,
            (Some((Ending::Failed, ..)), ..) => BatchStatus::Failed,
            (Some((Ending::Expired, ..)), ..) => BatchStatus::Expired,
            (Some((Ending::Cancelled, ..)), ..) => BatchStatus::Cancelled,
            (None, true, _) => BatchStatus::Cancelling,
            (None, false, None) => BatchStatus::Validating,
            (None, false, Some((lines, _))) if self.done() == lines => BatchStatus::Finalizing,
            (None, false, Some(_)) => BatchStatus::InProgress,
        }
    }
}

impl Oracle {
    pub(crate) fn change_file(&mut self, id: &FileId, change: &FileChange) -> Result<Reply, Refusal> {
        let FileChange::Add { tenant, name, pieces, at_unix_ms, until_unix_ms } = change else {
            if self.is_read(id) {
                return Err(Refusal::Batch(BatchRefusal::FileInUse { file: id.clone() }));
            }
            let before = self.files.len();
            self.files.retain(|file| file.id != *id);
            return Ok(done_if(self.files.len() < before));
        };
        let added = NaiveFile {
            id: id.clone(),
            tenant: *tenant,
            name: Some(name.clone()),
            pieces: pieces.clone(),
            at: *at_unix_ms,
            until: *until_unix_ms,
        };
        match self.files.iter().find(|file| file.id == *id) {
            Some(known) if *known == added => Ok(Reply::AlreadySo),
            Some(_) => Err(Refusal::Batch(BatchRefusal::FileIdTaken { file: id.clone() })),
            None => {
                self.files.push(added);
                Ok(Reply::Done)
            }
        }
    }

    pub(crate) fn change_batch(&mut self, id: &BatchId, change: &BatchChange) -> Result<Reply, Refusal> {
        match change {
            BatchChange::Begin { tenant, input, at_unix_ms, run, .. } => {
                self.begin_batch(id, (*tenant, input, *at_unix_ms, *run), change)
            }
            BatchChange::Take { from, run } => {
                let batch = self.live(id)?;
                if batch.run() != *run && batch.run() != *from {
                    return Err(not_its_run(id));
                }
                let changes = batch.run() != *run;
                batch.runs.extend(changes.then_some(*run));
                Ok(done_if(changes))
            }
            BatchChange::Open { run, lines, at_unix_ms } => {
                let batch = self.live_of(id, *run)?;
                if batch.lines.is_some_and(|known| known != (*lines, *at_unix_ms)) {
                    return Err(out_of_turn(id));
                }
                Ok(done_if(batch.lines.replace((*lines, *at_unix_ms)).is_none()))
            }
            BatchChange::Keep { run, after, completed, failed, output, errors, at_unix_ms: _ } => {
                let step = (*completed, *failed, output.clone(), errors.clone());
                self.keep_step(id, *run, *after, step)
            }
            BatchChange::End { run, how, output, errors, at_unix_ms, problems: _ } => {
                self.end_batch(id, *run, *how, [output, errors], *at_unix_ms)
            }
            BatchChange::Cancel { .. } => {
                Ok(done_if(!std::mem::replace(&mut self.live(id)?.cancelled, true)))
            }
        }
    }

    pub(crate) fn forget_files(&mut self, at: u64) -> Reply {
        let before = (self.batches.len(), self.files.len());
        let is_over = |batch: &NaiveBatch| {
            batch.ended.as_ref().is_some_and(|(_, ended, ..)| ended + limits::FILE_KEPT_MS <= at)
        };
        self.batches.retain(|batch| !is_over(batch));
        let read: Vec<FileId> =
            self.files.iter().map(|file| file.id.clone()).filter(|id| self.is_read(id)).collect();
        self.files.retain(|file| file.until > at || read.contains(&file.id));
        done_if(before != (self.batches.len(), self.files.len()))
    }

    fn begin_batch(
        &mut self,
        id: &BatchId,
        (tenant, input, at, run): (Tenant, &FileId, u64, JobRun),
        begun: &BatchChange,
    ) -> Result<Reply, Refusal> {
        if let Some(known) = self.batches.iter().find(|batch| batch.id == *id) {
            let untouched =
                known.runs.len() == 1 && known.lines.is_none() && !known.cancelled && known.ended.is_none();
            return if known.begun == *begun && untouched {
                Ok(Reply::AlreadySo)
            } else {
                Err(Refusal::Batch(BatchRefusal::IdTaken { batch: id.clone() }))
            };
        }
        let readable = |file: &&NaiveFile| {
            file.id == *input && file.tenant == tenant && file.name.is_some() && file.until > at
        };
        if self.files.iter().find(readable).is_none() {
            return Err(Refusal::Batch(BatchRefusal::UnknownFile { file: input.clone() }));
        }
        self.batches.push(NaiveBatch {
            id: id.clone(),
            tenant,
            input: input.clone(),
            begun: begun.clone(),
            runs: vec![run],
            lines: None,
            steps: Vec::new(),
            cancelled: false,
            ended: None,
        });
        Ok(Reply::Done)
    }

    fn keep_step(
        &mut self,
        id: &BatchId,
        run: JobRun,
        after: u64,
        step: (u64, u64, Option<KeptAnswer>, Option<KeptAnswer>),
    ) -> Result<Reply, Refusal> {
        let batch = self.live_of(id, run)?;
        let then = after + step.0 + step.1;
        let [output, errors] = batch.pieces();
        let is_last = |all: &[KeptAnswer], one: &Option<KeptAnswer>| {
            one.as_ref().is_none_or(|one| all.last().map(|last| last.digest) == Some(one.digest))
        };
        if batch.done() == then && is_last(&output, &step.2) && is_last(&errors, &step.3) {
            return Ok(Reply::AlreadySo);
        }
        if batch.done() != after || batch.lines.is_none_or(|(lines, _)| then > lines) {
            return Err(out_of_turn(id));
        }
        batch.steps.push(step);
        Ok(Reply::Done)
    }

    fn end_batch(
        &mut self,
        id: &BatchId,
        run: JobRun,
        how: Ending,
        [output, errors]: [&FileId; 2],
        at: u64,
    ) -> Result<Reply, Refusal> {
        let taken = |file: &FileId| Err(Refusal::Batch(BatchRefusal::FileIdTaken { file: file.clone() }));
        if output == errors {
            return taken(output);
        }
        let same = |batch: &&NaiveBatch| {
            let is_so =
                |known: &Option<FileId>, told: &FileId| known.is_none() || known.as_ref() == Some(told);
            let ended = batch.ended.as_ref();
            let again = ended.is_some_and(|(had, when, answers, faults)| {
                *had == how && *when == at && is_so(answers, output) && is_so(faults, errors)
            });
            batch.id == *id && batch.run() == run && again
        };
        if self.batches.iter().any(|batch| same(&batch)) {
            return Ok(Reply::AlreadySo);
        }
        for file in [output, errors] {
            if self.files.iter().any(|known| known.id == *file) {
                return taken(file);
            }
        }
        let batch = self.live_of(id, run)?;
        let all = batch.lines.is_some_and(|(lines, _)| batch.done() == lines);
        if (how == Ending::Completed && !all) || (how == Ending::Cancelled && !batch.cancelled) {
            return Err(out_of_turn(id));
        }
        let [answers, faults] = batch.pieces();
        let named = |pieces: &[KeptAnswer], id: &FileId| (!pieces.is_empty()).then(|| id.clone());
        batch.ended = Some((how, at, named(&answers, output), named(&faults, errors)));
        let tenant = batch.tenant;
        for (pieces, file) in [(answers, output), (faults, errors)] {
            let until = at + limits::FILE_KEPT_MS;
            let made = NaiveFile { id: file.clone(), tenant, name: None, pieces, at, until };
            self.files.extend((!made.pieces.is_empty()).then_some(made));
        }
        Ok(Reply::Done)
    }

    fn is_read(&self, id: &FileId) -> bool {
        self.batches.iter().any(|batch| batch.input == *id && batch.ended.is_none())
    }

    fn live(&mut self, id: &BatchId) -> Result<&mut NaiveBatch, Refusal> {
        let unknown = Refusal::Batch(BatchRefusal::Unknown { batch: id.clone() });
        let batch = self.batches.iter_mut().find(|batch| batch.id == *id).ok_or(unknown)?;
        match batch.ended {
            Some(_) => Err(Refusal::Batch(BatchRefusal::Ended { batch: id.clone() })),
            None => Ok(batch),
        }
    }

    fn live_of(&mut self, id: &BatchId, run: JobRun) -> Result<&mut NaiveBatch, Refusal> {
        let batch = self.live(id)?;
        if batch.run() == run { Ok(batch) } else { Err(not_its_run(id)) }
    }
}

fn not_its_run(id: &BatchId) -> Refusal {
    Refusal::Batch(BatchRefusal::NotItsRun { batch: id.clone() })
}

fn out_of_turn(id: &BatchId) -> Refusal {
    Refusal::Batch(BatchRefusal::OutOfTurn { batch: id.clone() })
}

pub(crate) fn compare_batches(registry: &Registry, oracle: &Oracle) -> Result<(), TestCaseError> {
    prop_assert_eq!(registry.files().count(), oracle.files.len());
    for naive in &oracle.files {
        let file = registry.file(&naive.id).expect("it is there");
        prop_assert_eq!((file.tenant, &file.pieces), (naive.tenant, &naive.pieces));
        prop_assert_eq!((file.made_at_unix_ms, file.until_unix_ms), (naive.at, naive.until));
        prop_assert!(naive.name.as_ref().is_none_or(|name| *name == file.name));
    }
    prop_assert_eq!(registry.batches().count(), oracle.batches.len());
    for naive in &oracle.batches {
        let batch = registry.batch(&naive.id).expect("it is there");
        prop_assert_eq!(batch.status(), naive.status());
        prop_assert_eq!((batch.run, batch.attempt as usize), (naive.run(), naive.runs.len()));
        prop_assert_eq!(batch.progress.lines(), naive.done());
        let ended = batch.ended.as_ref();
        let told =
            ended.map(|ended| (ended.how, ended.at_unix_ms, ended.output.clone(), ended.errors.clone()));
        prop_assert_eq!(told, naive.ended.clone());
        if naive.ended.is_none() {
            let pieces = [batch.output.clone(), batch.errors.clone()];
            prop_assert_eq!(pieces, naive.pieces());
        }
    }
    Ok(())
}
