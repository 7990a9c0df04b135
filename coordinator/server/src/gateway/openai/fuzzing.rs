//! The laws of request bodies: their layout says nothing, and no error quotes a prompt.

use std::fmt::Debug;

use serde_json::{Map, Value};

use super::chat_request::ChatRequest;
use super::completion_request::CompletionRequest;
use crate::gateway::error::{ApiError, Retry};

/// Stands where a client's text does; no word of ours has it.
const CANARY: &str = "qzxj\u{e9} canary";
const MESSAGE_BYTES_MAX: usize = 2_048;

pub fn chat_bodies(bytes: &[u8]) {
    body(bytes, ChatRequest::parse, |body| {
        let messages = body.get_mut("messages").and_then(Value::as_array_mut);
        for message in messages.into_iter().flatten() {
            match message.get_mut("content") {
                Some(Value::Array(parts)) => {
                    parts.iter_mut().filter_map(|part| part.get_mut("text")).for_each(hide);
                }
                Some(content) => hide(content),
                None => {}
            }
        }
    });
}

pub fn completion_bodies(bytes: &[u8]) {
    body(bytes, CompletionRequest::parse, |body| match body.get_mut("prompt") {
        Some(Value::Array(prompts)) => prompts.iter_mut().for_each(hide),
        Some(prompt) => hide(prompt),
        None => {}
    });
}

fn hide(text: &mut Value) {
    if text.is_string() {
        *text = Value::from(CANARY);
    }
}

/// A body is read the same however it is laid out, or refused with a short error of the client's making that never has his text.
fn body<T: Debug>(
    bytes: &[u8],
    parse: fn(&[u8]) -> Result<T, ApiError>,
    hide: impl Fn(&mut Map<String, Value>),
) {
    let read = parse(bytes);
    judge(&read);
    let Ok(Value::Object(mut value)) = serde_json::from_slice(bytes) else {
        assert!(read.is_err(), "what is no object is read");
        return;
    };
    let laid_out =
        [serde_json::to_vec(&value), serde_json::to_vec_pretty(&value)].map(Result::unwrap_or_default);
    let [narrow, wide] = laid_out.map(|text| format!("{:?}", parse(&text)));
    assert_eq!(narrow, wide, "how it is laid out changes what it says");
    let known = value.iter().any(|(key, value)| key.contains("qzxj") || value.to_string().contains("qzxj"));
    if !known {
        hide(&mut value);
        let hidden = parse(&serde_json::to_vec(&value).unwrap_or_default());
        if let Err(error) = hidden {
            assert!(!error.body().to_string().contains("qzxj"), "an error quotes a prompt: {error:?}");
        }
    }
}

fn judge<T>(read: &Result<T, ApiError>) {
    let Err(error) = read else { return };
    assert_eq!((error.status.as_u16(), error.retry), (400, Retry::Never), "{error:?}");
    assert!(error.message.len() <= MESSAGE_BYTES_MAX, "{} bytes of error", error.message.len());
    assert!(error.param.as_ref().is_none_or(|param| param.len() <= MESSAGE_BYTES_MAX));
}
