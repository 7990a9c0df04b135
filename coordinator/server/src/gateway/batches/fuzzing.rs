//! The law of a line of a batch: refused, or handed on as it is.

use serde_json::json;
use serde_json::value::RawValue;

use super::checking::parse;
use crate::gateway::limits;

/// A line is refused without being quoted, or its body is handed on byte for byte, and the same again from a line that is
/// written anew.
pub fn batch_lines(bytes: &[u8]) {
    match parse(bytes) {
        Err(fault) => assert!(fault.message.len() < 200),
        Ok((item, url)) => {
            assert!((1..=limits::CUSTOM_ID_BYTES_MAX).contains(&item.custom_id.len()));
            assert!(item.body.starts_with(b"{") && contains(bytes, &item.body), "the body is another one");
            let Ok(body) = serde_json::from_slice::<&RawValue>(&item.body) else { return };
            let line = json!({"url": url, "method": "POST", "custom_id": item.custom_id}).to_string();
            let line = format!("{},\"body\":{}}}", line.trim_end_matches('}'), body.get());
            let again = parse(line.as_bytes()).ok();
            let again = again.map(|(again, url)| (again.custom_id, again.body, url));
            assert_eq!(again, Some((item.custom_id, item.body, url)), "another line: {line}");
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
