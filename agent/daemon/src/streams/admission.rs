//! May this attempt run here, now?
//!
//! Owns the answer, given from the published picture at the moment the request arrives. Refuses politely: a coordinator's
//! picture of this Mac is a moment old, and being wrong about it is no failure.

use std::sync::Arc;

use proto::v1::AttemptStart;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::codes;
use crate::board::Board;
use crate::runtimes::{Attempt, NoRow};
use crate::wire;

/// Why an attempt does not run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

#[derive(Clone)]
pub(crate) struct Admission {
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) draining: CancellationToken,
}

impl Admission {
    /// Starts the sequence.
    pub(crate) fn begin(&self, start: AttemptStart) -> Result<Attempt, Refusal> {
        if self.draining.is_cancelled() {
            return Err(not_loaded("this Mac is draining".to_owned()));
        }
        let board = self.board.borrow().clone();
        let Some(entry) = board.models.get(&start.model) else {
            return Err(not_loaded(format!("{} is not held here", start.model)));
        };
        let Some(runtime) = entry.ready() else {
            return Err(not_loaded(format!("{} is not ready here", start.model)));
        };
        let slots = entry.slots;
        runtime.begin(wire::generate(start)).map_err(|no_row| match no_row {
            NoRow::Busy => Refusal { code: codes::BUSY, text: format!("all {slots} slots are taken") },
            NoRow::Draining => not_loaded("the model is being unloaded".to_owned()),
            NoRow::Closed => not_loaded("its runtime has just ended".to_owned()),
        })
    }
}

fn not_loaded(text: String) -> Refusal {
    Refusal { code: codes::NOT_LOADED, text }
}
