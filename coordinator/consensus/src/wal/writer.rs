//! The one who writes the log. It takes everything that waits, writes it, flushes once, and then tells
//! everybody: while a flush runs the next batch gathers, so throughput grows with the number of writers and a
//! lone writer waits for nobody.
//!
//! The first failure ends it: everything that waits and everything that comes later gets the same error. There is
//! no retry, because after a failed flush a second one that succeeds proves nothing.
//!
//! What is done with a batch ([`Scribe`]) is apart from who waits for one: a thread, and in simulated nights a task.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::limits;
use crate::wal::log::Log;
use crate::wal::record::{Kind, Op};

/// Called when a request is durable, or cannot become so.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The way to the writer, which ends when this is dropped and the queue is empty. The queue needs no bound of its
/// own: what openraft has under way is bounded by the proposals in flight.
pub(crate) struct Writer {
    queue: Queue,
}

enum Queue {
    Thread(Sender<Request>),
    #[cfg(test)]
    Task(tokio::sync::mpsc::UnboundedSender<Request>),
}

pub(crate) enum Request {
    Append(Vec<Op>, Done),
    Vote(Vec<u8>, Done),
    Committed(Option<String>),
}

impl Writer {
    /// Starts the thread; after `idle` without work it flushes the mark.
    pub(crate) fn start(log: Log, idle: Duration) -> io::Result<Writer> {
        let (queue, requests) = channel();
        let thread = std::thread::Builder::new().name("consensus-log".to_owned());
        thread.spawn(move || serve(Scribe::new(log), &requests, idle))?;
        Ok(Writer { queue: Queue::Thread(queue) })
    }

    /// The writer is a task that takes its requests from the other end of `queue`.
    #[cfg(test)]
    pub(crate) fn to(queue: tokio::sync::mpsc::UnboundedSender<Request>) -> Writer {
        Writer { queue: Queue::Task(queue) }
    }

    /// Appends records in one batch. A purge among them also removes the files it frees.
    pub(crate) fn append(&self, ops: Vec<Op>, done: Done) {
        self.send(Request::Append(ops, done));
    }

    pub(crate) fn save_vote(&self, vote: Vec<u8>, done: Done) {
        self.send(Request::Vote(vote, done));
    }

    /// A hint; nobody waits for it.
    pub(crate) fn save_committed(&self, committed: Option<String>) {
        self.send(Request::Committed(committed));
    }

    fn send(&self, request: Request) {
        let unsent = match &self.queue {
            Queue::Thread(queue) => queue.send(request).err().map(|unsent| unsent.0),
            #[cfg(test)]
            Queue::Task(queue) => queue.send(request).err().map(|unsent| unsent.0),
        };
        // The queue is drained even after a failure; the writer is gone only if it could not go on at all.
        if let Some(unsent) = unsent {
            unsent.answer(Err(io::Error::other("the log writer has ended")));
        }
    }
}

impl Request {
    fn answer(self, result: io::Result<()>) {
        match self {
            Request::Append(_, done) | Request::Vote(_, done) => done(result),
            Request::Committed(_) => {}
        }
    }
}

/// The thread: waits for work, and uses the first idle moment to flush the mark.
fn serve(mut scribe: Scribe, requests: &Receiver<Request>, idle: Duration) {
    loop {
        let first = if scribe.mark_is_due() {
            match requests.recv_timeout(idle) {
                Ok(request) => request,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    scribe.flush_mark();
                    continue;
                }
            }
        } else {
            // After a failure it stays until nobody asks any more, so that every later call gets the reason.
            let Ok(request) = requests.recv() else { break };
            request
        };
        scribe.write(std::iter::once(first).chain(requests.try_iter()));
    }
    scribe.end();
}

/// What is done with the log, whoever waits for the requests.
pub(crate) struct Scribe {
    log: Log,
    /// Appended and not flushed yet.
    waiting: Vec<Done>,
    /// Why it does nothing any more.
    failure: Option<io::Error>,
}

impl Scribe {
    pub(crate) fn new(log: Log) -> Scribe {
        Scribe { log, waiting: Vec::new(), failure: None }
    }

    /// Whether the first idle moment is for the mark.
    pub(crate) fn mark_is_due(&self) -> bool {
        self.failure.is_none() && !self.log.mark_flushed()
    }

    pub(crate) fn flush_mark(&mut self) {
        let flushed = self.log.flush_mark();
        self.fail_with(flushed);
    }

    /// Writes and answers a batch.
    pub(crate) fn write(&mut self, requests: impl Iterator<Item = Request>) {
        let mut requests = requests.take(limits::REQUESTS_PER_FLUSH_MAX);
        if self.failure.is_none() {
            let written = self.try_write(&mut requests);
            self.fail_with(written);
        }
        if let Some(failure) = &self.failure {
            requests.for_each(|request| request.answer(Err(again(failure))));
        }
    }

    /// Nobody will ask any more.
    pub(crate) fn end(mut self) {
        if self.failure.is_none() {
            self.flush_mark();
        }
    }

    fn try_write(&mut self, requests: &mut impl Iterator<Item = Request>) -> io::Result<()> {
        for request in requests {
            self.take(request)?;
        }
        self.flush()?;
        self.log.write_committed()
    }

    fn fail_with(&mut self, result: io::Result<()>) {
        let Err(failure) = result else { return };
        tracing::error!(error = %failure, "the log cannot be written; this replica has stopped");
        for done in self.waiting.drain(..) {
            done(Err(again(&failure)));
        }
        self.failure = Some(failure);
    }

    fn take(&mut self, request: Request) -> io::Result<()> {
        match request {
            Request::Append(ops, done) => {
                self.waiting.push(done);
                ops.iter().try_for_each(|op| self.log.append(op))?;
                if ops.iter().any(|op| op.kind == Kind::Purge) {
                    self.log.drop_purged()?;
                    self.flush()?;
                }
            }
            Request::Vote(vote, done) => {
                // What was appended before is answered first: the order of answers is the order on disk.
                let flushed = self.flush();
                self.waiting.push(done);
                flushed?;
                self.log.save_vote(&vote)?;
                self.flush()?;
            }
            Request::Committed(committed) => self.log.save_committed(committed),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.log.flush()?;
        for done in self.waiting.drain(..) {
            done(Ok(()));
        }
        Ok(())
    }
}

/// The same failure for another listener.
fn again(failure: &io::Error) -> io::Error {
    io::Error::new(failure.kind(), failure.to_string())
}
