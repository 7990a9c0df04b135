//! One attempt: one QUIC stream from its request to its last frame.
//!
//! Owns reading the request once, numbering the frames from 0 and writing them as fast as the peer reads. Back-pressure is
//! QUIC's: while a write waits, tokens join up in the row's outbox, so a slow reader gets fewer, fuller frames and holds up
//! nobody. STOP_SENDING or a lost connection drops the [`Attempt`], which cancels the row at once. Refuses a second message.

use bytes::BytesMut;
use proto::framing::{self, Decoder};
use proto::v1::{AttemptFrame, AttemptStart, Finish};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use super::admission::Admission;
use super::codes;
use crate::limits;
use crate::runtimes::{Attempt, Loss, Piece, RowEnd, RowFinish};
use crate::wire;

/// Serves one stream to its end.
pub(crate) async fn serve(send: SendStream, mut recv: RecvStream, admission: Admission) {
    let start = timeout(limits::START_TIMEOUT, read_start(&mut recv)).await;
    let Ok(Some(start)) = start else {
        tracing::warn!("a token stream brought no readable request");
        let mut send = send;
        // Either fails only when the stream is already gone.
        let (_, _) = (send.reset(codes::RESET_BAD_START), recv.stop(codes::RESET_BAD_START));
        return;
    };
    let mut frames = Frames { send, attempt: start.attempt, sequence: 0, bytes: BytesMut::new() };
    let (request, attempt) = (start.request, start.attempt);
    let end = match admission.begin(start) {
        Ok(running) => frames.forward(running).await,
        Err(refusal) => {
            tracing::debug!(request, attempt, code = refusal.code, "an attempt was refused");
            frames.last(wire::failed(AttemptFrame::default(), refusal.code, &refusal.text)).await
        }
    };
    match end {
        Ok(()) => tracing::debug!(request, attempt, "an attempt ended"),
        Err(gone) => tracing::debug!(request, attempt, %gone, "an attempt was given up by its coordinator"),
    }
}

/// `None`: the stream ended early, broke, or does not hold exactly one request.
async fn read_start(recv: &mut RecvStream) -> Option<AttemptStart> {
    let mut decoder = Decoder::default();
    while let Some(chunk) = recv.read_chunk(limits::STREAM_READ_BYTES, true).await.ok()? {
        decoder.push(&chunk.bytes);
        if let Some(start) = decoder.next_message::<AttemptStart>().ok()? {
            return decoder.is_empty().then_some(start);
        }
    }
    None
}

/// The coordinator does not listen any more.
#[derive(Debug, thiserror::Error)]
enum Gone {
    #[error("it stopped the stream")]
    Stopped,
    #[error("{0}")]
    Write(#[from] quinn::WriteError),
}

struct Frames {
    send: SendStream,
    attempt: u32,
    sequence: u32,
    bytes: BytesMut,
}

impl Frames {
    async fn forward(&mut self, attempt: Attempt) -> Result<(), Gone> {
        // Created once: a waiter made anew for each piece would miss nothing, but costs a lock each time.
        let stopped = self.send.stopped();
        tokio::pin!(stopped);
        loop {
            let Piece { ids, logprobs, end } = tokio::select! {
                piece = attempt.next() => piece,
                _ = &mut stopped => return Err(Gone::Stopped),
            };
            let frame = wire::tokens(ids, logprobs);
            match end {
                None => self.write(frame).await?,
                Some(end) => return self.last(ended(frame, end)).await,
            }
        }
    }

    async fn write(&mut self, mut frame: AttemptFrame) -> Result<(), Gone> {
        (frame.attempt, frame.sequence) = (self.attempt, self.sequence);
        self.sequence += 1;
        framing::encode(&frame, &mut self.bytes);
        Ok(self.send.write_chunk(self.bytes.split().freeze()).await?)
    }

    /// The last frame; returns when the peer has it, so that a draining agent does not hang up on it.
    async fn last(&mut self, frame: AttemptFrame) -> Result<(), Gone> {
        self.write(frame).await?;
        // Fails only for a stream that was ended before, which this one was not.
        let _ = self.send.finish();
        let _ = timeout(limits::FLUSH, self.send.stopped()).await;
        Ok(())
    }
}

fn ended(frame: AttemptFrame, end: RowEnd) -> AttemptFrame {
    match end {
        RowEnd::Finished(RowFinish::Stop, extra) => wire::finished(frame, Finish::Stop, &extra),
        RowEnd::Finished(RowFinish::Length, extra) => wire::finished(frame, Finish::Length, &extra),
        // Nobody here cancelled it, or the stream would be gone: the model is leaving.
        RowEnd::Finished(RowFinish::Cancelled, _) => {
            wire::failed(frame, codes::NOT_LOADED, "the model was unloaded")
        }
        RowEnd::Finished(RowFinish::Error, extra) => wire::failed(frame, &extra.code, &extra.text),
        RowEnd::Lost(loss) => {
            let (code, text) = lost(loss);
            wire::failed(frame, code, text)
        }
    }
}

fn lost(loss: Loss) -> (&'static str, &'static str) {
    match loss {
        Loss::Ended => (codes::RUNTIME_LOST, "the runtime process ended"),
        Loss::Hung => (codes::RUNTIME_HUNG, "the runtime made no progress and was killed"),
        Loss::Garbled => (codes::RUNTIME_GARBLED, "the runtime sent what is no frame and was killed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::RowExtra;

    fn told(end: RowEnd) -> (Finish, String) {
        let frame = ended(wire::tokens(vec![7], Vec::new()), end);
        assert_eq!(frame.ids, [7], "the last tokens come with the end");
        (frame.finish(), frame.code)
    }

    #[test]
    fn every_way_to_lose_a_runtime_has_a_code_of_its_own() {
        for (loss, code) in
            [(Loss::Ended, "runtime_lost"), (Loss::Hung, "runtime_hung"), (Loss::Garbled, "runtime_garbled")]
        {
            assert_eq!(told(RowEnd::Lost(loss)), (Finish::Failed, code.to_owned()));
        }
    }

    #[test]
    fn a_row_that_the_runtime_ended_is_told_as_it_ended() {
        let extra = RowExtra { code: "out_of_memory".to_owned(), ..RowExtra::default() };
        for (finish, told_finish, code) in [
            (RowFinish::Stop, Finish::Stop, ""),
            (RowFinish::Length, Finish::Length, ""),
            (RowFinish::Cancelled, Finish::Failed, "not_loaded"),
            (RowFinish::Error, Finish::Failed, "out_of_memory"),
        ] {
            let end = RowEnd::Finished(finish, extra.clone());
            assert_eq!(told(end), (told_finish, code.to_owned()));
        }
    }
}
