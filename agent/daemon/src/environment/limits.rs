//! Every bound of the environment room, with its reason.

use std::time::Duration;

/// Oldest Python that the locked packages have wheels for (numpy 2.4 asks for 3.11).
pub(super) const PYTHON_VERSION_MIN: (u32, u32) = (3, 11);

/// A Python that does not tell its version by then hangs; the slowest honest start seen is under two seconds.
pub(super) const INTERPRETER_ANSWER: Duration = Duration::from_secs(20);

/// Making an empty environment copies pip and starts it once: seconds, a minute on a loaded machine.
pub(super) const VENV_SILENCE: Duration = Duration::from_secs(180);

/// pip says a line for each package and nothing while one downloads. The largest wheel has 78 MB: fifteen minutes allow for
/// 90 kB/s. A dead connection pip notices by itself much sooner.
pub(super) const PIP_SILENCE: Duration = Duration::from_secs(900);

/// Importing everything once; two to seven seconds warm, more from a cold disk.
pub(super) const IMPORT_SILENCE: Duration = Duration::from_secs(180);

/// Lines of a failed child that an error carries: pip's own last words fit, a log does not.
pub(crate) const LAST_LINES: usize = 12;

/// Longest line kept; hub progress lines have a few hundred bytes.
pub(crate) const LINE_BYTES_MAX: usize = 4_096;

/// How often a lock that another process holds is tried again: soon for a person, rare for a machine.
pub(super) const LOCK_RETRY: Duration = Duration::from_millis(200);

/// Characters of a content hash in a folder's name: 64 bits tell any two versions apart, and paths stay short.
pub(super) const DIGEST_CHARS: usize = 16;
