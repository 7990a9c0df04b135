//! The last lines a runtime wrote, for its obituary.
//!
//! Owns a bounded ring of log lines. Runtimes write no prompt and no answer to their standard streams, so the lines may be
//! logged and shown. Refuses to grow: long lines are cut, old ones forgotten.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use crate::limits;

#[derive(Clone, Debug, Default)]
pub(crate) struct LastWords {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl LastWords {
    /// Reads one of the runtime's standard streams to its end.
    pub(crate) async fn listen(self, model: String, stream: impl AsyncRead + Unpin) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line without an end is taken in pieces, so that it cannot grow without bound.
            let piece = (&mut stream).take(limits::LOG_LINE_BYTES as u64).read_until(b'\n', &mut line).await;
            if !piece.is_ok_and(|read| read > 0) {
                return;
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !text.is_empty() {
                tracing::debug!(%model, "runtime: {text}");
                self.push(text);
            }
        }
    }

    pub(crate) fn push(&self, line: String) {
        let mut lines = self.lines();
        if lines.len() == limits::LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The newest lines that fit into a report, oldest first.
    pub(crate) fn text(&self) -> String {
        let lines = self.lines();
        let mut kept = VecDeque::new();
        let mut bytes = 0;
        for line in lines.iter().rev() {
            bytes += line.len() + 1;
            if bytes > limits::LAST_WORDS_BYTES && !kept.is_empty() {
                break;
            }
            kept.push_front(line.as_str());
        }
        let text = kept.into_iter().collect::<Vec<_>>().join("\n");
        text.chars().take(limits::LAST_WORDS_BYTES).collect()
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(bytes: &[u8]) -> LastWords {
        let words = LastWords::default();
        words.clone().listen("m".to_owned(), bytes).await;
        words
    }

    #[tokio::test]
    async fn only_the_newest_lines_are_kept() {
        let log: String = (0..100).map(|at| format!("line {at}\n")).collect();
        let words = heard(log.as_bytes()).await.text();
        assert!(words.starts_with("line 80\n") && words.ends_with("line 99"), "{words}");
    }

    #[tokio::test]
    async fn an_endless_line_is_bounded() {
        let words = heard(&vec![b'x'; 1 << 20]).await;
        assert!(words.text().len() <= limits::LAST_WORDS_BYTES);
        assert!(
            words.lines().iter().map(String::len).sum::<usize>()
                <= limits::LAST_LINES * limits::LOG_LINE_BYTES
        );
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_do_no_harm() {
        assert_eq!(heard(b"\xff\xfe ok\n\n").await.text(), "\u{fffd}\u{fffd} ok");
    }
}
