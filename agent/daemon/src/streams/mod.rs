//! Token streams: the QUIC connection to one coordinator.
//!
//! Owns dialling it, keeping it alive, finding out that it is dead, and accepting the streams that the coordinator opens, one
//! for each attempt. Refuses to give up a living connection: when a session comes back, the old connection is kept if it is
//! still heard, so that a hiccup of the control side breaks no answer; one under a former authority lives beside its successor until
//! its answers have ended; and one to a coordinator that is none any more does so within the time of a drain. Only one to a coordinator that was revoked is cut at once.

mod admission;
mod attempt;
pub mod codes;
mod dialling;

use std::sync::Arc;

use quinn::{Connection, ConnectionError, VarInt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::{Backoff, roll};
use crate::identity::Tie;
use crate::limits;

pub(crate) use admission::Admission;
pub(crate) use dialling::Dialler;

/// Where the coordinator's streams are, as of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Grows with each session: the same address may be another process now.
    pub(crate) session: u64,
}

#[derive(Clone)]
pub(crate) struct Streams {
    dialler: Arc<Dialler>,
    admission: Admission,
    /// Over all coordinators.
    attempts: TaskTracker,
    mine: TaskTracker,
}

impl Streams {
    pub(crate) fn new(dialler: Arc<Dialler>, admission: Admission, attempts: TaskTracker) -> Self {
        Self { dialler, admission, attempts, mine: counter() }
    }

    /// Keeps one connection to the latest target until `stop` or `cut`; after `leave`, for no longer than its attempts run.
    pub(crate) async fn run(
        self,
        mut targets: watch::Receiver<Option<Target>>,
        leave: CancellationToken,
        cut: CancellationToken,
        stop: CancellationToken,
    ) {
        let idle = async {
            leave.cancelled().await;
            let _ = timeout(limits::DRAIN, self.mine.wait()).await;
        };
        tokio::select! {
            () = self.keep(&mut targets) => {}
            () = idle => {}
            () = cut.cancelled() => {}
            () = stop.cancelled() => {}
        }
    }

    /// Returns when there will be no targets any more and the connection is lost.
    async fn keep(&self, targets: &mut watch::Receiver<Option<Target>>) {
        let mut backoff = Backoff::new(limits::BACKOFF_FIRST, limits::BACKOFF_MOST);
        let mut failing = false;
        let mut turns = self.dialler.turns();
        let mut retired = JoinSet::new();
        loop {
            let target = targets.borrow_and_update().clone();
            let Some(target) = target else {
                if targets.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let tie = self.dialler.tie(*turns.borrow_and_update());
            let own =
                |connection| Open { connection, code: codes::CLOSE_STOPPING, own: counter(), _tie: tie };
            match self.dialler.dial(&target).await.map(own) {
                Ok(mut open) => {
                    tracing::info!(peer = %open.connection.remote_address(), "token streams connected");
                    failing = false;
                    let since = Instant::now();
                    let ended = self.serve(&open, &target, targets, &mut turns).await;
                    open.code = codes::CLOSE_REPLACED;
                    if ended == Ended::Turned {
                        retired.spawn(self.clone().retire(open));
                        while retired.try_join_next().is_some() {}
                        continue;
                    }
                    // One that is refused after the handshake was no success.
                    if since.elapsed() >= limits::STREAM_IDLE {
                        backoff.reset();
                    }
                }
                // Once: a network without UDP looks just like this, and says nothing else.
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!("token streams cannot be connected, trying on: {error:#}");
                }
                Err(error) => tracing::debug!("token streams: {error:#}"),
            }
            // A new session is a reason to try at once.
            if let Ok(Err(_)) = timeout(backoff.delay(roll()), targets.changed()).await {
                return;
            }
        }
    }

    /// Until the connection is lost, or is found dead or another process's after a new session, or another authority signs.
    async fn serve(
        &self,
        open: &Open,
        target: &Target,
        targets: &mut watch::Receiver<Option<Target>>,
        turns: &mut watch::Receiver<[u8; 32]>,
    ) -> Ended {
        loop {
            tokio::select! {
                accepted = self.accept(open) => if let Err(error) = accepted {
                    tracing::info!(%error, "token streams lost");
                    return Ended::Lost;
                },
                Ok(()) = turns.changed() => return Ended::Turned,
                Ok(()) = targets.changed() => {
                    let port = targets.borrow_and_update().as_ref().map(|latest| latest.port);
                    // Another host is another way to the same coordinator; another port is another process.
                    if port.is_some_and(|port| port != target.port) {
                        return Ended::Lost;
                    }
                    tokio::spawn(close_unless_alive(open.connection.clone()));
                }
            }
        }
    }

    /// Takes one stream.
    async fn accept(&self, open: &Open) -> Result<(), ConnectionError> {
        let (send, recv) = open.connection.accept_bi().await?;
        let attempt = attempt::serve(send, recv, self.admission.clone());
        self.attempts.spawn(self.mine.track_future(open.own.track_future(attempt)));
        Ok(())
    }

    /// Lets the answers of a connection end that another one is about to replace.
    async fn retire(self, open: Open) {
        loop {
            tokio::select! {
                accepted = self.accept(&open) => if accepted.is_err() { return },
                () = quiet(&open.own) => return,
            }
        }
    }
}

/// Returns when there has been no answer for a while.
async fn quiet(own: &TaskTracker) {
    loop {
        own.wait().await;
        sleep(limits::RETIRED_QUIET).await;
        if own.is_empty() {
            return;
        }
    }
}

/// It counts; it is never full.
fn counter() -> TaskTracker {
    let counter = TaskTracker::new();
    counter.close();
    counter
}

/// Why a connection is used no more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Lost,
    Turned,
}

/// A connection that is closed however its keeper ends: its attempts hold it, too, and would keep it open.
struct Open {
    connection: Connection,
    code: VarInt,
    /// Counts its attempts.
    own: TaskTracker,
    _tie: Tie,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.close(self.code, b"the agent gives it up");
    }
}

/// After a new session the other side may be a new process, which answers nothing that belongs to the old one. A living
/// peer acknowledges the keep-alives.
async fn close_unless_alive(connection: Connection) {
    let heard = connection.stats().udp_rx.datagrams;
    tokio::time::sleep(limits::STREAM_PROOF).await;
    if connection.stats().udp_rx.datagrams == heard {
        connection.close(codes::CLOSE_REPLACED, b"not heard since the session is new");
    }
}
