//! How a process ended, in words.
//!
//! Owns the sentence an operator reads after a crash. Refuses to pass on what could garble a terminal or fill a report:
//! last words lose their control characters and are cut.

use alloc::format;
use alloc::string::String;

/// How a process ended, as the system tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitStatus {
    /// The exit code, if it ended by itself.
    pub code: Option<i32>,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
}

/// `the runtime was killed by signal 11 while loading: <last words>`, at most so many bytes.
pub(crate) fn describe(status: ExitStatus, doing: &str, last_words: &str, bytes_max: usize) -> String {
    let how = match (status.signal, status.code) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => String::from("ended, nobody knows how,"),
    };
    let words = last_words.trim();
    let colon = if words.is_empty() { "" } else { ": " };
    bounded(&format!("the runtime {how} while {doing}{colon}{words}"), bytes_max)
}

/// The text without control characters, cut at a character's border.
pub(crate) fn bounded(text: &str, bytes_max: usize) -> String {
    let mut kept = String::new();
    for char in text.chars() {
        if kept.len().saturating_add(char.len_utf8()) > bytes_max {
            break;
        }
        kept.push(if char.is_control() { ' ' } else { char });
    }
    kept
}
