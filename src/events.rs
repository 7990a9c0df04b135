//! A streamed answer, as the command line reads it: server-sent events, of which it knows `data:` lines alone.
//!
//! Owns the reading, and the bound on what a service may send: the address is the user's, and whoever answers there may send
//! without an end. Refuses to know HTTP, so that a fuzz target can include it (`fuzz/`).

use std::io::BufRead;

use serde::Deserialize;
use serde_json::Value;

/// One answer, its events around it: four times the longest prompt, in the hundred bytes that an event of one token takes.
pub(crate) const STREAM_BYTES_MAX: u64 = 256 << 20;

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the answer broke off before its end; ask again")]
    Broken,
    #[error("reading the answer: {0}")]
    Unreadable(serde_json::Error),
    /// The error that the service sent.
    #[error("the service gave up")]
    Refused(Value),
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Delta,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

/// Reads to the end, and hands on each piece as it comes; returns the whole.
pub(crate) fn read(stream: impl BufRead, mut piece: impl FnMut(&str)) -> Result<String, NoAnswer> {
    let mut answer = String::new();
    for line in stream.take(STREAM_BYTES_MAX).lines() {
        let line = line.map_err(|_| NoAnswer::Broken)?;
        match line.strip_prefix("data: ") {
            Some("[DONE]") => return Ok(answer),
            Some(data) => take_chunk(data, &mut answer, &mut piece)?,
            None => {}
        }
    }
    Err(NoAnswer::Broken)
}

fn take_chunk(data: &str, answer: &mut String, piece: &mut impl FnMut(&str)) -> Result<(), NoAnswer> {
    let chunk: Chunk = serde_json::from_str(data).map_err(NoAnswer::Unreadable)?;
    if let Some(error) = chunk.error {
        return Err(NoAnswer::Refused(error));
    }
    for choice in chunk.choices {
        if let Some(content) = choice.delta.content {
            piece(&content);
            answer.push_str(&content);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer or why there is none, and its pieces.
    fn heard(stream: &str) -> (Result<String, String>, Vec<String>) {
        let mut pieces = Vec::new();
        let answer = read(stream.as_bytes(), |piece| pieces.push(piece.to_owned()));
        (answer.map_err(|why| why.to_string()), pieces)
    }

    #[test]
    fn the_deltas_of_all_chunks_are_the_answer() {
        let stream = [
            r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            ": position 1",
            r#"data: {"choices":[{"delta":{"content":"Hi"}}]}"#,
            r#"data: {"choices":[{"delta":{"content":"!"}}]}"#,
            r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"data: {"choices":[],"usage":{"prompt_tokens":1}}"#,
            "data: [DONE]",
        ];
        let (answer, pieces) = heard(&stream.join("\n\n"));
        assert_eq!((answer, pieces.concat()), (Ok("Hi!".to_owned()), "Hi!".to_owned()));
    }

    #[test]
    fn a_stream_that_ends_early_is_no_answer() {
        let (answer, pieces) = heard("data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n");
        assert!(answer.expect_err("broken").contains("broke off"));
        assert_eq!(pieces, ["Hi"]);
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let stream = "data: {\"error\":{\"message\":\"the node was lost\",\"code\":\"stream_lost\"}}\n\n";
        let error = read(stream.as_bytes(), |_| {}).expect_err("refused");
        assert!(matches!(error, NoAnswer::Refused(error) if error["message"] == "the node was lost"));
    }

    #[test]
    fn a_line_without_an_end_is_not_read_for_ever() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert!(matches!(read(endless, |_| {}), Err(NoAnswer::Broken)));
    }
}

#[cfg(any(test, fuzzing))]
#[path = "../fuzz/targets/answers/laws.rs"]
pub(crate) mod fuzzing;
