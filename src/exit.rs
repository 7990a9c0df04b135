//! Exit codes: what a script can tell from the way we end.
//!
//! Owns the mapping from an error to its code and to the words on stderr. Refuses backtraces and debug forms for people.

use std::fmt;
use std::process::ExitCode;

/// An end with a meaning of its own; every other error is `1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Usage,
    Degraded,
    NotFound,
    NotAllowed,
    Unreachable,
    Refused,
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Usage => 2,
            Exit::Degraded => 3,
            Exit::NotFound => 4,
            Exit::NotAllowed => 5,
            Exit::Unreachable => 6,
            Exit::Refused => 8,
            Exit::Interrupted => 130,
        }
    }
}

/// An error with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) words: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.words)
    }
}

impl std::error::Error for Failure {}

pub(crate) fn failure(exit: Exit, words: impl Into<String>) -> anyhow::Error {
    Failure { exit, words: words.into() }.into()
}

/// Says what went wrong and gives the code.
#[expect(clippy::print_stderr, reason = "this is the command line")]
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let code = error.downcast_ref::<Failure>().map_or(1, |failure| failure.exit.code());
    let words = format!("{error:#}");
    if !words.is_empty() {
        eprintln!("mlx-serving: {words}");
    }
    ExitCode::from(code)
}
