//! What a batch has answered, committed step by step.
//!
//! Owns the order: the answers of a step are on disks, then the registry takes the step, and only then the next one counts. A step
//! that the registry has taken is never answered again, and one that it has not never shows. Refuses to go on where another run has
//! the batch.

use bytes::{Bytes, BytesMut};
use consensus::ProposeError;
use registry::{BatchChange, BatchId, BatchRefusal, Command, JobRun, KeptAnswer, Problem, Refusal, Reply};

use super::asking::Answered;
use crate::clock::unix_ms;
use crate::gateway::{Gateway, limits};
use crate::jobs::What;
use crate::limits::ANSWER_BYTES_MAX;

/// Why a batch does not go on here.
pub(super) enum Stop {
    /// Another run has it, or it is over, or this coordinator is.
    Lost,
    Failed(Vec<Problem>),
}

/// None takes a piece at the moment.
struct NoDisk;

/// The registry, as a run of a batch speaks to it.
#[derive(Clone)]
pub(super) struct Teller {
    pub(super) gateway: Gateway,
    pub(super) batch: BatchId,
    pub(super) run: JobRun,
}

/// Collects answers, in the order of their requests.
pub(super) struct Steps {
    teller: Teller,
    /// Answered before.
    after: u64,
    lines_max: u64,
    completed: u64,
    failed: u64,
    output: BytesMut,
    errors: BytesMut,
}

impl Steps {
    pub(super) fn new(teller: Teller, after: u64, lines: u64) -> Self {
        let lines_max = (lines / limits::STEPS).max(limits::STEP_LINES_MIN);
        let (output, errors) = (BytesMut::new(), BytesMut::new());
        Self { teller, after, lines_max, completed: 0, failed: 0, output, errors }
    }

    pub(super) async fn push(&mut self, answered: Answered) -> Result<(), Stop> {
        let piece = if answered.is_answer { &self.output } else { &self.errors };
        if piece.len() + answered.line.len() > ANSWER_BYTES_MAX {
            self.commit().await?;
        }
        let (count, piece) = match answered.is_answer {
            true => (&mut self.completed, &mut self.output),
            false => (&mut self.failed, &mut self.errors),
        };
        *count += 1;
        piece.extend_from_slice(&answered.line);
        if self.completed + self.failed >= self.lines_max { self.commit().await } else { Ok(()) }
    }

    pub(super) async fn commit(&mut self) -> Result<(), Stop> {
        let (completed, failed) = (std::mem::take(&mut self.completed), std::mem::take(&mut self.failed));
        if completed + failed == 0 {
            return Ok(());
        }
        let (output, errors) = (self.output.split().freeze(), self.errors.split().freeze());
        loop {
            let told = async {
                let (Ok(output), Ok(errors)) = tokio::join!(self.keep(&output), self.keep(&errors)) else {
                    return Ok(false);
                };
                let (run, after, at_unix_ms) = (self.teller.run, self.after, unix_ms());
                let change = BatchChange::Keep { run, after, completed, failed, output, errors, at_unix_ms };
                self.teller.tell(change).await.map(|()| true)
            };
            // What nobody has named for long is removed: all of it is put there anew, however long nobody leads.
            match tokio::time::timeout(limits::STEP_TOLD, told).await.unwrap_or(Ok(false))? {
                true => break,
                false => tokio::time::sleep(limits::BATCH_AGAIN).await,
            }
        }
        self.after += completed + failed;
        Ok(())
    }

    /// Tried once: a disk may get room again and a coordinator may come back, but by then the other piece may have been removed.
    async fn keep(&self, piece: &Bytes) -> Result<Option<KeptAnswer>, NoDisk> {
        if piece.is_empty() {
            return Ok(None);
        }
        let gateway = &self.teller.gateway;
        let (digest, bytes) = (gateway.hash_keys.pieces.digest(&[piece]), piece.len() as u64);
        let holders = gateway.jobs.keeper.keep(What::Piece, digest, piece.clone()).await;
        if holders.is_empty() {
            tracing::warn!(batch = %self.teller.batch, "no disk takes what a batch has answered: it waits");
            return Err(NoDisk);
        }
        Ok(Some(KeptAnswer { digest, bytes, holders }))
    }
}

impl Teller {
    /// Says it until the registry takes it or does not want it. Every change of a batch may be said twice.
    pub(super) async fn tell(&self, change: BatchChange) -> Result<(), Stop> {
        let command = Command::ChangeBatch { batch: self.batch.clone(), change };
        loop {
            match self.gateway.facts.propose(command.clone()).await {
                Ok(Reply::Done | Reply::AlreadySo | Reply::NodeAdmitted { .. }) => return Ok(()),
                Ok(Reply::Refused(refusal)) => return Err(self.refused(&refusal)),
                Err(error) if error.fatal() => return Err(Stop::Lost),
                Err(ProposeError::TooLarge { .. }) => {
                    return Err(failed("internal_error", "A step of this batch could not be written down."));
                }
                Err(error) => {
                    tracing::info!(batch = %self.batch, %error, "a step of a batch waits");
                    tokio::time::sleep(limits::BATCH_AGAIN).await;
                }
            }
        }
    }

    fn refused(&self, refusal: &Refusal) -> Stop {
        if let Refusal::TooMany { .. } = refusal {
            return failed("storage_full", format!("Nothing more is kept: {refusal}."));
        }
        if let Refusal::Batch(BatchRefusal::OutOfTurn { .. }) = refusal {
            return failed("too_much_output", "This batch has answered more than can be kept. Divide it.");
        }
        tracing::info!(batch = %self.batch, %refusal, "a run of a batch ends");
        Stop::Lost
    }
}

pub(super) fn failed(code: &str, message: impl Into<String>) -> Stop {
    Stop::Failed(vec![Problem { code: code.to_owned(), message: message.into(), line: None, param: None }])
}
