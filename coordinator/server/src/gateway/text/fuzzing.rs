//! The laws of what turns messages into a prompt and an answer into text.

use minijinja::Value;

use super::stop::{Scan, StopScanner};
use super::template::{Conversation, Template, TemplateError};
use crate::gateway::limits;

const NOW_UNIX_S: u64 = 1_763_942_400;
const CANARY: &str = "qzxj";

/// Up to the first 0 a template, behind it messages as JSON. It ends, within its bounds, in the same text each time; a failure
/// of the engine quotes no message.
pub fn chat_templates(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let Some(Ok(source)) = parts.next().map(std::str::from_utf8) else { return };
    let said: Option<Vec<Value>> = parts.next().and_then(|json| serde_json::from_slice(json).ok());
    let messages = said.unwrap_or_else(|| {
        let message = |role| Value::from_pairs([("role", role), ("content", CANARY)]);
        vec![message("user"), message("assistant"), message("user")]
    });
    let special_tokens = vec![("bos_token".to_owned(), "<s>".to_owned())];
    let Ok(template) = Template::compile(source, special_tokens) else { return };
    let render = || {
        let (messages, variables) = (messages.clone(), Vec::new());
        template.render(Conversation {
            messages,
            tools: None,
            variables,
            now_unix_s: NOW_UNIX_S,
            bytes: bytes.len(),
        })
    };
    match render() {
        Ok(prompt) => {
            assert!(prompt.len() <= limits::PROMPT_BYTES_MAX);
            assert!(render().is_ok_and(|again| again == prompt), "another prompt the second time");
        }
        // Its own words may be those of a message: that is how templates say what is wrong with it.
        Err(TemplateError::Raised(_)) => {}
        Err(error) => {
            let quoted = format!("{error} {error:?}").contains(CANARY) && !source.contains(CANARY);
            assert!(!quoted, "an error quotes a message: {error}");
        }
    }
}

/// Lines: the stop strings up to an empty one, behind it the text. Wherever it is cut, the same is said and it stops at the same
/// place, which is the first at which a stop string is complete.
pub fn stop_strings(bytes: &[u8]) {
    let Ok(input) = std::str::from_utf8(bytes) else { return };
    let (stops, text) = input.split_once("\n\n").unwrap_or(("", input));
    let stops: Vec<String> = stops.lines().take(limits::STOPS_MAX).map(str::to_owned).collect();
    let expected = plainly(&stops, text);
    for length in [1, 2, 3, 7, text.chars().count().max(1)] {
        let chars: Vec<char> = text.chars().collect();
        let pieces: Vec<String> = chars.chunks(length).map(|piece| piece.iter().collect()).collect();
        let (mut scanner, mut out, mut stopped) = (StopScanner::new(&stops), String::new(), false);
        for piece in &pieces {
            stopped = scanner.push(piece, &mut out) == Scan::Stopped;
            assert!(
                scanner.held_bytes() <= stops.iter().map(String::len).max().unwrap_or(0),
                "too much is held"
            );
            if stopped {
                break;
            }
        }
        if !stopped {
            scanner.finish(&mut out);
        }
        assert_eq!((out, stopped), expected, "in pieces of {length}");
    }
}

/// As the rule says it, without any thought for speed.
fn plainly(stops: &[String], text: &str) -> (String, bool) {
    for end in 1..=text.len() {
        let ended = |stop: &&String| !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes());
        if let Some(stop) = stops.iter().filter(ended).max_by_key(|stop| stop.len()) {
            return (text[..end - stop.len()].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}
