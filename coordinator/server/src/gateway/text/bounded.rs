//! A place for text that somebody else's template writes. Owns its bound, which is that of a prompt: more could not be used.

use std::io;

use crate::gateway::limits;

/// A buffer that refuses to grow beyond the longest prompt.
#[derive(Default)]
pub(super) struct Bounded {
    pub(super) bytes: Vec<u8>,
    /// Something did not fit.
    pub(super) full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(piece.len()) > limits::PROMPT_BYTES_MAX {
            self.full = true;
            return Err(io::Error::other("the prompt is too long"));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
