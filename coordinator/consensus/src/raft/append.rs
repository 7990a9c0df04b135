//! One stream of entries to a follower, pipelined: requests go out as openraft makes them, replies come back in order.
//!
//! Each request that is out has a deadline for its reply. openraft sets none on a stream, and without one a follower whose
//! machine went to sleep would hold the stream for as long as TCP believes in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use proto::raft as wire;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use crate::limits;
use crate::raft::link::Link;
use crate::raft::types::Types;
use crate::raft::wire as convert;

/// Replies of one stream; ends with the first error.
pub(crate) type Replies = BoxStream<'static, Result<StreamAppendResult<Types>, String>>;

/// Opens the stream and sends what `requests` yields.
pub(crate) async fn open<S>(link: Arc<Link>, header: wire::Header, requests: S) -> Result<Replies, String>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + 'static,
{
    let mut client = link.client().await?;
    let flight = Arc::new(Flight::new(limits::APPEND_ANSWER_WAIT));
    let sent = Arc::clone(&flight);
    let outgoing = requests.filter_map(move |request| {
        // A command that was once decoded can be encoded; a request that cannot be is left out and runs into its deadline.
        let message = convert::append(header, &request).ok();
        sent.departed();
        std::future::ready(message)
    });
    let opening = timeout(limits::APPEND_ANSWER_WAIT, client.append(outgoing)).await;
    let replies = match opening {
        Err(_) => return Err(silent(&link)),
        Ok(Err(status)) => return Err(refused(&link, &status)),
        Ok(Ok(response)) => response.into_inner(),
    };
    Ok(futures_util::stream::unfold(Some((link, flight, replies)), next).boxed())
}

type Open = (Arc<Link>, Arc<Flight>, Streaming<wire::AppendReply>);

/// The next reply, and what is left of the stream after it.
async fn next(open: Option<Open>) -> Option<(Result<StreamAppendResult<Types>, String>, Option<Open>)> {
    let (link, flight, mut replies) = open?;
    let reply = tokio::select! {
        reply = replies.next() => reply?,
        () = flight.overdue() => return Some((Err(silent(&link)), None)),
    };
    match reply.and_then(convert::append_reply_of) {
        Ok(result) => {
            link.answered();
            flight.landed();
            Some((Ok(result), Some((link, flight, replies))))
        }
        Err(status) => Some((Err(refused(&link, &status)), None)),
    }
}

fn silent(link: &Link) -> String {
    let why = format!("replica {} did not answer in time", link.replica());
    link.broken(&why);
    why
}

fn refused(link: &Link, status: &Status) -> String {
    link.note(status);
    format!("replica {}: {}", link.replica(), status.message())
}

/// When each request that has no reply yet was sent.
pub(crate) struct Flight {
    /// How long each may take.
    wait: Duration,
    sent: Mutex<VecDeque<Instant>>,
    departure: Notify,
}

impl Flight {
    pub(crate) fn new(wait: Duration) -> Flight {
        Flight { wait, sent: Mutex::default(), departure: Notify::new() }
    }

    pub(crate) fn departed(&self) {
        self.sent().push_back(Instant::now());
        self.departure.notify_one();
    }

    pub(crate) fn landed(&self) {
        self.sent().pop_front();
    }

    /// Returns when the oldest request has been out for too long.
    pub(crate) async fn overdue(&self) {
        loop {
            let oldest = self.sent().front().copied();
            match oldest {
                None => self.departure.notified().await,
                Some(at) => {
                    sleep_until(at + self.wait).await;
                    if self.sent().front() == Some(&at) {
                        return;
                    }
                }
            }
        }
    }

    fn sent(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const HANGS: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_stream_that_has_sent_nothing_or_was_answered_is_never_overdue() {
        let flight = Flight::new(Duration::ZERO);
        assert!(flight.overdue().now_or_never().is_none());
        flight.departed();
        flight.landed();
        assert!(flight.overdue().now_or_never().is_none());
    }

    #[tokio::test]
    async fn each_request_has_its_own_deadline() {
        let wait = Duration::from_millis(40);
        let flight = Flight::new(wait);
        flight.departed();
        let mut overdue = Box::pin(flight.overdue());
        assert!(overdue.as_mut().now_or_never().is_none());
        // The second departs when the first has waited for some time, and is then alone.
        tokio::task::yield_now().await;
        let departed = Instant::now();
        flight.departed();
        flight.landed();
        timeout(HANGS, overdue).await.unwrap();
        assert!(departed.elapsed() >= wait, "{:?}", departed.elapsed());
    }

    #[tokio::test]
    async fn a_request_that_departs_while_nothing_is_out_is_waited_for() {
        let flight = Flight::new(Duration::from_millis(1));
        let mut overdue = Box::pin(flight.overdue());
        assert!(overdue.as_mut().now_or_never().is_none());
        flight.departed();
        timeout(HANGS, overdue).await.unwrap();
    }
}
