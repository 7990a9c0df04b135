//! A client that takes nothing of its answer any more.
//!
//! Owns the time for which what is written to a connection may stay where it is: without a bound, a client that is stopped, with its
//! socket open, would hold its connection for ever. Refuses to judge a slow one: each byte that is taken begins it anew.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A connection that fails when a write has waited for too long.
pub(crate) struct Patience<S> {
    stream: S,
    longest: Duration,
    /// While a write waits.
    over: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    pub(crate) fn new(stream: S, longest: Duration) -> Self {
        Self { stream, longest, over: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.over = None;
            return written;
        }
        let until = Instant::now() + self.longest;
        let over = self.over.get_or_insert_with(|| Box::pin(sleep_until(until)));
        match over.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::sleep;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails_in_the_end() {
        let (near, _far) = duplex(4);
        let mut near = Patience::new(near, LONGEST);
        near.write_all(b"four").await.expect("room");
        let began = Instant::now();
        let error = near.write_all(b"more").await.expect_err("nobody reads");
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, LONGEST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_waited_for_as_long_as_it_reads() {
        let (near, mut far) = duplex(1);
        let mut near = Patience::new(near, LONGEST);
        let reading = async {
            for _ in 0..9 {
                sleep(LONGEST - Duration::from_secs(1)).await;
                far.read_u8().await.expect("a byte");
            }
        };
        let (written, ()) = tokio::join!(near.write_all(b"very slow"), reading);
        written.expect("all of it");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_no_stall() {
        let (near, mut far) = duplex(64);
        let mut near = Patience::new(near, LONGEST);
        near.write_all(b"a").await.expect("room");
        sleep(9 * LONGEST).await;
        near.write_all(b"b").await.expect("room");
        assert_eq!(far.read_u8().await.expect("a byte"), b'a');
    }
}
