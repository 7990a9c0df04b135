//! The service as the command line sees it: plain HTTP, as any client would.
//!
//! Owns requests, streamed answers and turning the API's errors into exit codes. Refuses anything a foreign client could not
//! do too.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Agent;

use crate::exit::{Exit, failure};

const CONNECT: Duration = Duration::from_secs(5);

pub(crate) struct Api {
    url: String,
    agent: Agent,
}

/// One message of a conversation.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) role: &'static str,
    pub(crate) content: String,
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

impl Api {
    pub(crate) fn new(url: &str) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_connect(Some(CONNECT)).build();
        Self { url: url.trim_end_matches('/').to_owned(), agent: config.into() }
    }

    /// GET a JSON document.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut response =
            self.agent.get(format!("{}{path}", self.url)).call().map_err(|error| self.lost(&error))?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_json().with_context(|| format!("reading {path}"))?;
        if status < 400 { Ok(body) } else { Err(refused(status, &body)) }
    }

    /// The model to talk to when none was named: the first that is ready.
    pub(crate) fn default_model(&self) -> anyhow::Result<String> {
        let status = self.get("/api/v1/status")?;
        let models = status["models"].as_array().cloned().unwrap_or_default();
        let ready = models.iter().find(|model| model["nodes_ready"].as_u64().unwrap_or(0) > 0);
        let chosen = ready.or(models.first()).and_then(|model| model["model"].as_str());
        chosen.map(str::to_owned).ok_or_else(|| {
            failure(Exit::NotFound, "no model is served here yet: start an agent with --model PATH-or-hub-id")
        })
    }

    /// Streams one chat answer piece by piece; returns the whole of it.
    pub(crate) fn chat(
        &self,
        model: &str,
        messages: &[Message],
        mut piece: impl FnMut(&str),
    ) -> anyhow::Result<String> {
        let messages: Vec<_> = messages
            .iter()
            .map(|message| json!({"role": message.role, "content": message.content}))
            .collect();
        let body = json!({"model": model, "messages": messages, "stream": true});
        let url = format!("{}/v1/chat/completions", self.url);
        let mut response = self.agent.post(url).send_json(&body).map_err(|error| self.lost(&error))?;
        let status = response.status().as_u16();
        if status >= 400 {
            let body = response.body_mut().read_json().unwrap_or_default();
            return Err(refused(status, &body));
        }
        let mut answer = String::new();
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.map_err(|_| broken())?;
            match line.strip_prefix("data: ") {
                Some("[DONE]") => return Ok(answer),
                Some(data) => take_chunk(data, &mut answer, &mut piece)?,
                None => {}
            }
        }
        Err(broken())
    }

    fn lost(&self, error: &ureq::Error) -> anyhow::Error {
        let words = format!(
            "nothing answers at {} ({error}): start it with `mlx-serving up`, or say where it is with --url",
            self.url
        );
        failure(Exit::Unreachable, words)
    }
}

fn take_chunk(data: &str, answer: &mut String, piece: &mut impl FnMut(&str)) -> anyhow::Result<()> {
    let chunk: Chunk = serde_json::from_str(data).context("reading the answer")?;
    if let Some(error) = chunk.error {
        return Err(refused(0, &json!({"error": error})));
    }
    for choice in chunk.choices {
        if let Some(content) = choice.delta.content {
            piece(&content);
            answer.push_str(&content);
        }
    }
    Ok(())
}

fn broken() -> anyhow::Error {
    anyhow::anyhow!("the answer broke off before its end; ask again")
}

fn refused(status: u16, body: &Value) -> anyhow::Error {
    let words = body["error"]["message"].as_str().unwrap_or("the service refused without a reason");
    let exit = match status {
        404 => Exit::NotFound,
        429 | 503 => Exit::Refused,
        _ => return anyhow::anyhow!("{words}"),
    };
    failure(exit, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_adds_its_delta() {
        let (mut answer, mut pieces) = (String::new(), Vec::new());
        for data in [
            r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{"content":"Hi"}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":1}}"#,
        ] {
            take_chunk(data, &mut answer, &mut |piece: &str| pieces.push(piece.to_owned())).expect("taken");
        }
        assert_eq!((answer.as_str(), pieces.concat().as_str()), ("Hi", "Hi"));
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let data = r#"{"error":{"message":"the node was lost","code":"stream_lost"}}"#;
        let error = take_chunk(data, &mut String::new(), &mut |_: &str| {}).expect_err("refused");
        assert_eq!(error.to_string(), "the node was lost");
    }

    #[test]
    fn nobody_there_says_how_to_start_it() {
        let error = Api::new("http://127.0.0.1:1").get("/livez").expect_err("nobody listens on port 1");
        assert!(error.to_string().contains("mlx-serving up"), "{error}");
    }
}
