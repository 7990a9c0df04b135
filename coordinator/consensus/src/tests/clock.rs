//! What everything in a simulated night has in common: tokio's clock, which is paused and jumps when nobody has anything to do,
//! one source of chance, and a trace of what happened when.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};

use super::dice;
use super::generator::Generator;
use crate::limits;
use crate::wal::log::Log;
use crate::wal::writer::{Request, Scribe, Writer};

#[derive(Clone)]
pub(crate) struct Clock {
    begin: Instant,
    state: Arc<Mutex<State>>,
}

struct State {
    chance: Generator,
    trace: blake3::Hasher,
}

impl Clock {
    pub(crate) fn new(seed: u64) -> Clock {
        let state = State { chance: Generator::new(seed), trace: blake3::Hasher::new() };
        Clock { begin: Instant::now(), state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.state.lock().unwrap().chance.below(bound)
    }

    /// Something happened at this moment.
    pub(crate) fn note(&self, what: impl Display) {
        let line = format!("{} {what}\n", self.begin.elapsed().as_micros());
        self.state.lock().unwrap().trace.update(line.as_bytes());
    }

    /// All that happened, in one short word.
    pub(crate) fn trace(&self) -> String {
        self.state.lock().unwrap().trace.finalize().to_hex()[..16].to_owned()
    }
}

/// Runs to its end, by a clock that jumps to the next moment at which anybody has something to do.
pub(crate) fn live_through<T>(seed: u64, night: impl Future<Output = T>) -> T {
    dice::load(seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    builder.build().unwrap().block_on(night)
}

/// What the disk of one replica is made of: how long a flush takes.
#[derive(Clone)]
pub(crate) struct Medium {
    clock: Clock,
    replica: u64,
    /// Milliseconds that a flush takes at most.
    slowest_ms: Arc<AtomicU64>,
}

/// An SSD that does much else besides.
const USUAL_MS: u64 = 6;

impl Medium {
    pub(crate) fn new(clock: Clock, replica: u64) -> Medium {
        Medium { clock, replica, slowest_ms: Arc::new(AtomicU64::new(USUAL_MS)) }
    }

    /// Flushes take up to so long from now on.
    pub(crate) fn slow_down(&self, slowest: Duration) {
        self.slowest_ms.store(slowest.as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn recover(&self) {
        self.slowest_ms.store(USUAL_MS, Ordering::Relaxed);
    }

    /// The time that one flush takes; half of them find a drive with nothing to do.
    pub(crate) async fn flush(&self) {
        let slowest = self.slowest_ms.load(Ordering::Relaxed);
        let takes = if self.clock.below(2) == 0 { 0 } else { self.clock.below(slowest + 1) };
        if takes > 0 {
            sleep(Duration::from_millis(takes)).await;
        }
        self.clock.note(format_args!("flush {}", self.replica));
    }

    /// Starts the writer of a log as a task.
    pub(crate) fn writer(&self, log: Log) -> Writer {
        let (queue, requests) = unbounded_channel();
        tokio::spawn(serve(Scribe::new(log), requests, self.clone()));
        Writer::to(queue)
    }
}

/// As the thread in `wal/writer.rs`: what comes while a flush takes its time is the next batch.
async fn serve(mut scribe: Scribe, mut requests: UnboundedReceiver<Request>, medium: Medium) {
    loop {
        let wait = if scribe.mark_is_due() { limits::MARK_FLUSH_IDLE } else { Duration::MAX };
        let Ok(first) = timeout(wait, requests.recv()).await else {
            scribe.flush_mark();
            continue;
        };
        let Some(first) = first else { break };
        let mut batch = vec![first];
        while let Ok(request) = requests.try_recv() {
            batch.push(request);
        }
        medium.flush().await;
        scribe.write(batch.into_iter());
    }
    scribe.end();
}
