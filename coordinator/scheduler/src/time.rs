//! Time as this crate knows it: a point and a length, in microseconds of the shell's own monotonic clock.
//!
//! Owns the arithmetic, which saturates: a deadline at the end of time stays there. Refuses to know what time it is.

use core::ops::Add;

/// A point in time: microseconds since the shell's epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub u64);

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

impl At {
    /// The time since `earlier`; zero when that is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of whole milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000))
    }

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_s(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000))
    }

    /// `count` spans of this length, one after another.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// What is left of this span after `other` of it has passed.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add<Span> for At {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Add for Span {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_time_is_not_passed() {
        assert_eq!(At(u64::MAX) + Span(1), At(u64::MAX));
        assert_eq!(Span(u64::MAX) + Span(1), Span(u64::MAX));
        assert_eq!(Span::from_s(u64::MAX), Span(u64::MAX));
        assert_eq!(Span(2).times(u64::MAX), Span(u64::MAX));
    }

    #[test]
    fn a_span_is_never_negative() {
        assert_eq!(At(3).since(At(5)), Span::ZERO);
        assert_eq!(At(5).since(At(3)), Span(2));
        assert_eq!(Span(3).less(Span(5)), Span::ZERO);
    }

    #[test]
    fn milliseconds_and_seconds_are_microseconds() {
        assert_eq!(Span::from_ms(3), Span(3_000));
        assert_eq!(Span::from_s(3), Span(3_000_000));
    }
}
