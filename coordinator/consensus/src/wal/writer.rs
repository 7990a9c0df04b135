//! The one thread that writes the log. It takes everything that waits, writes it, flushes once, and then tells
//! everybody: while a flush runs the next batch gathers, so throughput grows with the number of writers and a
//! lone writer waits for nobody.
//!
//! The first failure ends it: everything that waits and everything that comes later gets the same error. There is
//! no retry, because after a failed flush a second one that succeeds proves nothing.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::limits;
use crate::wal::log::Log;
use crate::wal::record::{Kind, Op};

/// Called when a request is durable, or cannot become so.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The way to the writer. The thread ends when this is dropped and the queue is empty. The queue needs no bound of its
/// own: what openraft has under way is bounded by the proposals in flight.
pub(crate) struct Writer {
    queue: Sender<Request>,
}

enum Request {
    Append(Vec<Op>, Done),
    Vote(Vec<u8>, Done),
    Committed(Option<String>),
}

impl Writer {
    /// Starts the thread; after `idle` without work it flushes the mark.
    pub(crate) fn start(log: Log, idle: Duration) -> io::Result<Writer> {
        let (queue, requests) = channel();
        let thread = std::thread::Builder::new().name("consensus-log".to_owned());
        thread.spawn(move || Thread { log, requests, idle, waiting: Vec::new() }.run())?;
        Ok(Writer { queue })
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
        // The thread drains its queue even after a failure; it is gone only if it could not go on at all.
        if let Err(unsent) = self.queue.send(request) {
            unsent.0.answer(Err(io::Error::other("the log writer has ended")));
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

struct Thread {
    log: Log,
    requests: Receiver<Request>,
    idle: Duration,
    /// Appended and not flushed yet.
    waiting: Vec<Done>,
}

impl Thread {
    fn run(mut self) {
        let end = self.serve();
        let failure = match end.and_then(|()| self.log.flush_mark()) {
            Ok(()) => return,
            Err(failure) => failure,
        };
        tracing::error!(error = %failure, "the log cannot be written; this replica has stopped");
        for done in self.waiting.drain(..) {
            done(Err(again(&failure)));
        }
        // Held open until nobody asks any more, so that every later call gets the reason.
        while let Ok(request) = self.requests.recv() {
            request.answer(Err(again(&failure)));
        }
    }

    /// Serves until the [`Writer`] is gone.
    fn serve(&mut self) -> io::Result<()> {
        while let Some(first) = self.next()? {
            self.take(first)?;
            for _ in 1..limits::REQUESTS_PER_FLUSH_MAX {
                let Ok(request) = self.requests.try_recv() else { break };
                self.take(request)?;
            }
            self.flush()?;
            self.log.write_committed()?;
        }
        Ok(())
    }

    /// Waits for work; uses the first idle moment to flush the mark.
    fn next(&mut self) -> io::Result<Option<Request>> {
        if !self.log.mark_flushed() {
            match self.requests.recv_timeout(self.idle) {
                Ok(request) => return Ok(Some(request)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.log.flush_mark()?,
            }
        }
        Ok(self.requests.recv().ok())
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
