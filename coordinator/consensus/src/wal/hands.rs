//! Who does what blocks: threads. In simulated nights it is done in place, after as long as the medium takes by their clock.

use std::io;

use crate::limits;
use crate::wal::log::Log;
use crate::wal::writer::Writer;

/// Goes with a folder.
#[derive(Clone, Default)]
pub(crate) enum Hands {
    #[default]
    Threads,
    #[cfg(test)]
    Clock(crate::tests::clock::Medium),
}

impl Hands {
    /// Does what may block for as long as a flush takes.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Hands::Threads => Ok(tokio::task::spawn_blocking(work).await?),
            #[cfg(test)]
            Hands::Clock(medium) => {
                medium.flush().await;
                Ok(work())
            }
        }
    }

    /// Starts the writer of a log.
    pub(crate) fn writer(&self, log: Log) -> io::Result<Writer> {
        match self {
            Hands::Threads => Writer::start(log, limits::MARK_FLUSH_IDLE),
            #[cfg(test)]
            Hands::Clock(medium) => Ok(medium.writer(log)),
        }
    }
}
