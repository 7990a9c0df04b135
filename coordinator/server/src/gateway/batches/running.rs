//! The run of a batch, from where the last step left it to its end.
//!
//! Owns the sequence: read and check, ask so many at once, commit in order, end. What ends it before its time is watched beside
//! that: its owner, the end of its key, another run. A run that is dropped leaves what was committed, and the next one goes on
//! from there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use registry::{Batch, BatchChange, BatchId, Ending, FileId, Problem, Registry, Scope};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use super::asking::{Answered, Asker};
use super::checking;
use super::lines::{Line, Lines, NoLine};
use super::steps::{Steps, Stop, Teller, failed};
use crate::clock::unix_ms;
use crate::gateway::error::ApiError;
use crate::gateway::shelf::Shelf;
use crate::gateway::{Gateway, limits, request_id};
use crate::jobs::Running;

/// How it ended, where it is this run's to say so.
struct End {
    how: Ending,
    problems: Vec<Problem>,
}

impl End {
    fn plainly(how: Ending) -> Self {
        Self { how, problems: Vec::new() }
    }
}

pub(super) async fn run(gateway: Gateway, id: BatchId, running: Running) {
    let teller = Teller { gateway: gateway.clone(), batch: id.clone(), run: running.run };
    let registry = gateway.registry.borrow().clone();
    let is_his = |batch: &&Batch| batch.run == running.run && batch.ended.is_none();
    let Some(batch) = registry.batch(&id).filter(is_his).cloned() else { return };
    // One that was cancelled ends at once, whoever else is running.
    let working = async {
        // One whose time is over asks nothing more, so it needs no place.
        let _place = tokio::select! {
            place = gateway.batches.places.take(batch.tenant) => Some(place),
            () = over(&batch) => None,
        };
        work(&teller, &batch, &registry).await
    };
    let outcome = tokio::select! {
        outcome = working => outcome,
        stop = watched(&teller) => stop,
        stop = revoked(&gateway, &batch) => stop,
    };
    let End { how, problems } = match outcome {
        Ok(end) => end,
        Err(Stop::Failed(problems)) => End { how: Ending::Failed, problems },
        Err(Stop::Lost) => return,
    };
    let file = || FileId(request_id::fresh("file-"));
    let (output, errors) = (file(), file());
    let at_unix_ms = unix_ms();
    let change = BatchChange::End { run: running.run, how, problems, output, errors, at_unix_ms };
    if teller.tell(change).await.is_ok() {
        tracing::info!(batch = %id, ?how, "a batch is over");
    }
}

/// Until its day is over.
async fn over(batch: &Batch) {
    loop {
        match batch.expires_at_unix_ms.saturating_sub(unix_ms()) {
            0 => return,
            left_ms => tokio::time::sleep(Duration::from_millis(left_ms)).await,
        }
    }
}

/// Until its owner wants no more of it, or another run has it.
async fn watched(teller: &Teller) -> Result<End, Stop> {
    let mut registry = teller.gateway.registry.clone();
    let matters = |registry: &Arc<Registry>| match registry.batch(&teller.batch) {
        Some(batch) => {
            batch.run != teller.run || batch.ended.is_some() || batch.cancelled_at_unix_ms.is_some()
        }
        None => true,
    };
    let Ok(known) = registry.wait_for(matters).await.map(|known| known.clone()) else {
        return Err(Stop::Lost);
    };
    let is_his = |batch: &&Batch| batch.run == teller.run && batch.ended.is_none();
    match known.batch(&teller.batch).filter(is_his) {
        Some(_) => Ok(End::plainly(Ending::Cancelled)),
        None => Err(Stop::Lost),
    }
}

/// Until its key may ask no more.
async fn revoked(gateway: &Gateway, batch: &Batch) -> Result<End, Stop> {
    let asker = asker(gateway, batch);
    let error = match asker.who() {
        Ok(who) => gateway.access.clone().ended(who, Scope::Inference).await,
        Err(error) => error,
    };
    Err(unkeyed(&error))
}

fn unkeyed(error: &ApiError) -> Stop {
    failed(error.code, "The API key of this batch may ask no more.")
}

fn asker(gateway: &Gateway, batch: &Batch) -> Asker {
    Asker {
        gateway: gateway.clone(),
        endpoint: batch.endpoint,
        key: batch.key.clone(),
        is_anonymous: batch.tenant.0 == 0,
        expires_at_unix_ms: batch.expires_at_unix_ms,
    }
}

async fn work(teller: &Teller, batch: &Batch, registry: &Registry) -> Result<End, Stop> {
    let gateway = &teller.gateway;
    let file = registry.file(&batch.input);
    let pieces = file.map(|file| file.pieces.clone());
    let pieces = pieces.ok_or_else(|| failed("file_gone", "The file of this batch is no more."))?;
    let lines = match batch.opened {
        Some(opened) => opened.lines,
        None if unix_ms() >= batch.expires_at_unix_ms => return Ok(End::plainly(Ending::Expired)),
        None => open(teller, batch, Lines::of(gateway, pieces.clone())).await?,
    };
    let after = batch.progress.lines();
    let asker = asker(gateway, batch);
    // Each goes on by itself while a step waits for a disk: one that nobody reads would keep its place on a node.
    let asked = items(Lines::of(gateway, pieces), after).map(|line| {
        let asking = AbortOnDropHandle::new(tokio::spawn(ask(asker.clone(), line)));
        async move { asking.await.unwrap_or(Err(Stop::Lost)) }
    });
    let mut answers = std::pin::pin!(asked.buffered(limits::LINES_AHEAD));
    let mut steps = Steps::new(teller.clone(), after, lines);
    while let Some(answered) = answers.next().await {
        steps.push(answered?).await?;
    }
    steps.commit().await?;
    let known = gateway.registry.borrow().clone();
    let all_at = known.batch(&teller.batch).and_then(|batch| batch.progress.all_at_unix_ms);
    let in_time = all_at.is_some_and(|at| at < batch.expires_at_unix_ms);
    Ok(End::plainly(if in_time { Ending::Completed } else { Ending::Expired }))
}

/// As long as it is asked it has its place in memory.
async fn ask(asker: Asker, line: Placed) -> Result<Answered, Stop> {
    let (line, _place) = line.map_err(|why| Stop::Failed(vec![checking::gone(why)]))?;
    let item = checking::item(&line).ok_or_else(|| failed("file_gone", "The file has changed."))?;
    asker.ask(item).await.map_err(|error| unkeyed(&error))
}

async fn open(teller: &Teller, batch: &Batch, lines: Lines) -> Result<u64, Stop> {
    let gateway = &teller.gateway;
    let who = asker(gateway, batch).who().map_err(|error| unkeyed(&error))?;
    let shelf = Shelf::of(&gateway.catalogue, &who);
    let checked = checking::check(lines, batch.endpoint, &shelf, gateway.hash_keys.requests).await;
    let lines = checked.map_err(Stop::Failed)?;
    teller.tell(BatchChange::Open { run: teller.run, lines, at_unix_ms: unix_ms() }).await?;
    Ok(lines)
}

/// A request, with its place in memory.
type Placed = Result<(Line, Option<OwnedSemaphorePermit>), NoLine>;

/// The requests but for the first ones, which are answered. So many bytes of them are in memory at once: whoever drops a place
/// lets the next ones be read.
fn items(lines: Lines, after: u64) -> impl futures_util::Stream<Item = Placed> {
    let room = Arc::new(Semaphore::new(limits::LINES_AHEAD_KIB));
    let next = move |state: Option<(Lines, u64)>| {
        let room = room.clone();
        async move {
            let (mut lines, mut skip) = state?;
            loop {
                let line = lines.next().await?;
                if skip > 0 && line.is_ok() {
                    skip -= 1;
                    continue;
                }
                let then = line.is_ok().then_some((lines, 0));
                let Ok(line) = line else { return Some((line.map(|line| (line, None)), then)) };
                // Never closed, and no line is longer than all of it.
                let kib = u32::try_from(line.text.len() >> 10).unwrap_or(u32::MAX).saturating_add(1);
                let place = room.acquire_many_owned(kib).await.ok();
                return Some((Ok((line, place)), then));
            }
        }
    };
    futures_util::stream::unfold(Some((lines, after)), next)
}
