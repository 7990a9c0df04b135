//! Moments and spans, in microseconds.
//!
//! Owns arithmetic that cannot overflow. Refuses to know where time comes from: the shell's monotonic clock, which
//! stands still while the Mac sleeps, or a simulator.

use core::fmt;

/// A moment, in microseconds of a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub u64);

/// A length of time, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl At {
    /// The moment that much later; the end of time at most.
    #[must_use]
    pub fn after(self, span: Span) -> At {
        At(self.0.saturating_add(span.0))
    }

    /// How long ago `earlier` was; nothing if it is yet to come.
    #[must_use]
    pub fn since(self, earlier: At) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Span {
        Span(secs.saturating_mul(1_000_000))
    }

    /// From milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Span {
        Span(millis.saturating_mul(1_000))
    }

    /// That many times as long.
    #[must_use]
    pub fn times(self, factor: u64) -> Span {
        Span(self.0.saturating_mul(factor))
    }
}

impl fmt::Display for Span {
    /// Seconds with one decimal, rounded down: `15.0 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0 / 100_000;
        write!(f, "{}.{} s", tenths / 10, tenths % 10)
    }
}
