//! Bytes as a script: what a fuzz target does next, and with what. An end yields nothing, or zeros.

pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// At most so many.
    pub(super) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Small, mostly; the largest there is, sometimes.
    pub(super) fn number(&mut self) -> u64 {
        match self.byte().unwrap_or_default() {
            0xff => u64::MAX,
            0xfe => u64::MAX - 1,
            0xfd => self.take(2).iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            small => u64::from(small),
        }
    }
}
