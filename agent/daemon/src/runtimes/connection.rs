//! The conversation with one runtime over its socket.
//!
//! Owns accepting exactly one peer, checking that it is our child and speaks our version, and moving frames in both directions
//! until either side ends. Steps go straight to their rows; everything else becomes an event. Refuses the first frame that
//! breaks the contract: the runtime is then broken, and only that runtime.

use std::sync::Arc;

use rustix::process::{Pid, getpgid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::frames::{Decoder, FrameError, Hello, Incoming, Outgoing, PROTOCOL, Phase};
use super::outbox::Loss;
use super::run_folder::Socket;
use super::runtime::{Event, Events, LOAD_CALL, Shared};
use crate::limits;

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The runtime closed its side, as it does when it ends by itself.
    #[error("it closed its socket")]
    Closed,
    #[error("its socket failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("it broke the contract of frames: {0}")]
    Frame(#[from] FrameError),
    #[error("its first frame was no hello")]
    NoHello,
    #[error("it speaks version {0} of the frames, not {PROTOCOL}")]
    Version(u32),
    #[error("it said hello twice")]
    HelloAgain,
}

impl Ended {
    /// What the rows are told.
    pub(crate) fn loss(&self) -> Loss {
        match self {
            Self::Closed | Self::Io(_) => Loss::Ended,
            Self::Frame(_) | Self::NoHello | Self::Version(_) | Self::HelloAgain => Loss::Garbled,
        }
    }
}

/// Accepts the runtime and talks to it until the conversation ends.
pub(crate) async fn converse(
    socket: Socket,
    group: Pid,
    shared: Arc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Outgoing>,
    events: Events,
) -> Ended {
    let stream = match accept(&socket, group).await {
        Ok(stream) => stream,
        Err(error) => return Ended::Io(error),
    };
    drop(socket);
    let (reading, writing) = stream.into_split();
    let mut reader = Reader { reading, decoder: Decoder::default(), shared, events, last_sign: None };
    tokio::select! {
        ended = reader.read() => ended,
        ended = write(writing, &mut commands) => ended,
    }
}

/// The first peer of our own group. Others are hung up on: the folder is private, but so is a model's work.
async fn accept(socket: &Socket, group: Pid) -> std::io::Result<UnixStream> {
    loop {
        let (stream, _) = socket.listener.accept().await?;
        let peer = stream.peer_cred()?.pid().and_then(Pid::from_raw);
        // A system that does not tell the peer's number leaves the private folder as the only check.
        if peer.is_none_or(|peer| getpgid(Some(peer)).is_ok_and(|found| found == group)) {
            return Ok(stream);
        }
        tracing::warn!(?peer, "a stranger connected to a runtime's socket");
    }
}

async fn write(mut writing: OwnedWriteHalf, commands: &mut mpsc::UnboundedReceiver<Outgoing>) -> Ended {
    while let Some(command) = commands.recv().await {
        let written = match command.encode() {
            Ok(bytes) => writing.write_all(&bytes).await,
            Err(error) => return Ended::Frame(error),
        };
        if let Err(error) = written {
            // A runtime that ended says so on the reading side, with its last frames before it.
            tracing::debug!(%error, "writing to a runtime failed");
            break;
        }
    }
    std::future::pending().await
}

struct Reader {
    reading: OwnedReadHalf,
    decoder: Decoder,
    shared: Arc<Shared>,
    events: Events,
    last_sign: Option<Instant>,
}

impl Reader {
    async fn read(&mut self) -> Ended {
        match self.read_frames().await {
            Ok(()) => Ended::Closed,
            Err(ended) => ended,
        }
    }

    async fn read_frames(&mut self) -> Result<(), Ended> {
        let mut greeted = false;
        loop {
            while let Some(frame) = self.decoder.next_message()? {
                match (frame, greeted) {
                    (Incoming::Hello(_), true) => return Err(Ended::HelloAgain),
                    (Incoming::Hello(hello), false) => self.greet(hello).await?,
                    (_, false) => return Err(Ended::NoHello),
                    (frame, true) => self.take(frame).await,
                }
                greeted = true;
            }
            if self.reading.read_buf(self.decoder.buffer()).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn greet(&mut self, hello: Hello) -> Result<(), Ended> {
        if hello.protocol != PROTOCOL {
            return Err(Ended::Version(hello.protocol));
        }
        tracing::info!(model = %self.shared.model, pid = hello.pid, runtime = %hello.runtime, mlx = ?hello.mlx,
            device = ?hello.device, "runtime started");
        self.events.send(Event::Hello { pid: hello.pid }).await;
        Ok(())
    }

    async fn take(&mut self, frame: Incoming) {
        match frame {
            Incoming::Step { rows, stats } => {
                self.shared.learn(stats);
                if self.shared.rows.route(rows) {
                    self.events.send(Event::Drained).await;
                }
                if self.last_sign.is_none_or(|last| last.elapsed() >= limits::PROGRESS_EVERY) {
                    self.sign_of_life(None);
                }
            }
            Incoming::Progress(progress) => {
                self.sign_of_life(progress.fraction.filter(|_| progress.phase == Phase::Loading));
            }
            Incoming::Reply { call: LOAD_CALL, value } => {
                let bytes = value.weights_bytes.unwrap_or(0);
                tracing::info!(model = %self.shared.model, bytes, seconds = value.load_s, "model loaded");
                self.events.send(Event::Loaded { bytes }).await;
            }
            Incoming::Error { call: Some(LOAD_CALL), code, text } => {
                self.events.send(Event::LoadFailed { code, text }).await;
            }
            Incoming::Reply { .. } => {}
            Incoming::Error { call, code, text } => {
                tracing::error!(model = %self.shared.model, ?call, code, text, "a runtime did not take a frame");
            }
            // Answered before this is called.
            Incoming::Hello(_) => {}
        }
    }

    fn sign_of_life(&mut self, fraction: Option<f32>) {
        self.last_sign = Some(Instant::now());
        self.events.offer(Event::Progress { fraction });
    }
}

#[cfg(test)]
mod tests {
    use super::super::run_folder::RunFolder;
    use super::*;

    #[tokio::test]
    async fn a_stranger_is_hung_up_on_and_a_child_is_taken() {
        let data = tempfile::tempdir().expect("scratch");
        let folder = RunFolder::make(data.path()).expect("a folder");
        let socket = folder.listen(1).expect("a socket");
        let (ours, foreign) = (rustix::process::getpgrp(), Pid::INIT);
        assert_ne!(ours, foreign);
        let mut peer = UnixStream::connect(&socket.path).await.expect("connects");
        let refused = tokio::select! {
            _ = accept(&socket, foreign) => panic!("a stranger was taken"),
            read = peer.read_u8() => read,
        };
        assert_eq!(refused.expect_err("hung up on").kind(), std::io::ErrorKind::UnexpectedEof);

        let _peer = UnixStream::connect(&socket.path).await.expect("connects");
        accept(&socket, ours).await.expect("a child");
    }
}
