//! Whether the lines of a file are requests that can be asked.
//!
//! Owns the form of a line, and the reasons for which a batch is not begun, each with its line. What is wrong with a request beyond
//! its form is found out when it is asked, and costs that line alone. No reason repeats what a line says.

use std::collections::HashSet;

use bytes::Bytes;
use registry::{BatchEndpoint, Problem, limits as facts};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::lines::{Line, Lines, NoLine};
use crate::gateway::hash_keys::HashKey;
use crate::gateway::limits;
use crate::gateway::shelf::Shelf;

/// One request.
pub(super) struct Item {
    pub(super) custom_id: String,
    pub(super) body: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    custom_id: Option<String>,
    method: Option<String>,
    url: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// What is looked at before anything is asked.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    model: Option<serde_json::Value>,
    #[serde(default)]
    stream: Option<serde_json::Value>,
}

pub(super) struct Fault {
    code: &'static str,
    param: Option<&'static str>,
    pub(super) message: String,
}

fn fault(code: &'static str, param: Option<&'static str>, message: impl Into<String>) -> Fault {
    Fault { code, param, message: message.into() }
}

/// Reads a line that was checked before, or says what is wrong with it.
pub(super) fn item(line: &Line) -> Option<Item> {
    parse(&line.text).ok().map(|(item, _)| item)
}

/// How many requests there are, or why there is no batch of them.
pub(super) async fn check(
    mut lines: Lines,
    endpoint: BatchEndpoint,
    shelf: &Shelf,
    key: HashKey,
) -> Result<u64, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut names = HashSet::new();
    let mut count = 0;
    while problems.len() < facts::PROBLEMS_MAX {
        let line = match lines.next().await {
            None => break,
            Some(Ok(line)) => line,
            Some(Err(why)) => {
                problems.push(unreadable(why));
                break;
            }
        };
        count += 1;
        if count > facts::BATCH_LINES_MAX {
            let message = format!("A batch has at most {} requests.", facts::BATCH_LINES_MAX);
            problems.push(problem(fault("too_many_requests", None, message), Some(line.number)));
            break;
        }
        let checked = parse(&line.text).and_then(|(item, url)| {
            judge(&item, &url, endpoint, shelf)?;
            let is_new = names.insert(key.number(&[item.custom_id.as_bytes()]));
            let twice = "Another line has the same custom_id. Each line needs one of its own.";
            if is_new { Ok(()) } else { Err(fault("duplicate_custom_id", Some("custom_id"), twice)) }
        });
        problems.extend(checked.err().map(|fault| problem(fault, Some(line.number))));
    }
    if count == 0 && problems.is_empty() {
        problems.push(problem(fault("empty_file", None, "The file has no request."), None));
    }
    if problems.is_empty() { Ok(count) } else { Err(problems) }
}

/// The request, and the path that it names.
pub(super) fn parse(text: &[u8]) -> Result<(Item, String), Fault> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let wrong = || {
        let message =
            "This line is no JSON object with 'custom_id', 'method', 'url' and 'body', and nothing else.";
        fault("invalid_json_line", None, message)
    };
    // A list would be taken for the fields in their order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong());
    }
    let form: Form<'_> = serde_json::from_slice(text).map_err(|_| wrong())?;
    let missing = |param: &'static str| {
        fault("missing_required_parameter", Some(param), format!("This line lacks '{param}'."))
    };
    let custom_id = form.custom_id.ok_or_else(|| missing("custom_id"))?;
    if !(1..=limits::CUSTOM_ID_BYTES_MAX).contains(&custom_id.len()) {
        let message = format!("A custom_id has 1 to {} bytes.", limits::CUSTOM_ID_BYTES_MAX);
        return Err(fault("invalid_value", Some("custom_id"), message));
    }
    if form.method.ok_or_else(|| missing("method"))? != "POST" {
        return Err(fault("invalid_method", Some("method"), "The method must be 'POST'."));
    }
    let url = form.url.ok_or_else(|| missing("url"))?;
    let body = form.body.ok_or_else(|| missing("body"))?.get();
    if !body.starts_with('{') {
        return Err(fault("invalid_value", Some("body"), "The body must be an object."));
    }
    Ok((Item { custom_id, body: Bytes::copy_from_slice(body.as_bytes()) }, url))
}

fn judge(item: &Item, url: &str, endpoint: BatchEndpoint, shelf: &Shelf) -> Result<(), Fault> {
    if url != super::path(endpoint) {
        let message = format!("The url must be '{}', as the batch says.", super::path(endpoint));
        return Err(fault("mismatched_url", Some("url"), message));
    }
    let wrong =
        || fault("invalid_json_line", Some("body"), "The body is no object, or says something twice.");
    let about: About = serde_json::from_slice(&item.body).map_err(|_| wrong())?;
    if !matches!(about.stream, None | Some(serde_json::Value::Null | serde_json::Value::Bool(false))) {
        let message = "Nobody reads a stream of a batch. Leave 'stream' out.";
        return Err(fault("unsupported_parameter", Some("stream"), message));
    }
    let known = about.model.as_ref().and_then(serde_json::Value::as_str).and_then(|model| shelf.get(model));
    if known.is_none() {
        let message = "There is no such model. 'GET /v1/models' lists what there is.";
        return Err(fault("model_not_found", Some("model"), message));
    }
    Ok(())
}

fn unreadable(why: NoLine) -> Problem {
    match why {
        NoLine::Gone => {
            problem(fault("file_gone", Some("input_file_id"), "The bytes of the file are lost."), None)
        }
        NoLine::TooLong(line) => {
            let message = format!("A line has at most {} MiB.", limits::BATCH_LINE_BYTES_MAX >> 20);
            problem(fault("line_too_long", None, message), Some(line))
        }
    }
}

pub(super) fn gone(why: NoLine) -> Problem {
    unreadable(why)
}

fn problem(fault: Fault, line: Option<u64>) -> Problem {
    let Fault { code, param, message } = fault;
    Problem { code: code.to_owned(), message, line, param: param.map(str::to_owned) }
}
