//! The service as the command line sees it: plain HTTP, as any client would.
//!
//! Owns requests, streamed answers and turning the API's errors into exit codes. Refuses anything a foreign client could not
//! do too.

use std::io::BufReader;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use crate::events::{self, NoAnswer};
use crate::exit::{Exit, failure};
use crate::{cli, credentials};

/// The largest document that is taken: a backup of a registry with every collection full, twice over.
const BYTES_MAX: u64 = 512 << 20;

const CONNECT: Duration = Duration::from_secs(5);

pub(crate) struct Api {
    url: String,
    key: Option<String>,
    agent: Agent,
}

/// One message of a conversation.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) role: &'static str,
    pub(crate) content: String,
}

impl Api {
    /// The service that was named, with the key that fits it.
    pub(crate) fn of(options: &cli::Api) -> anyhow::Result<Self> {
        Ok(Self::new(&options.url, credentials::key(options)?))
    }

    pub(crate) fn new(url: &str, key: Option<String>) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_connect(Some(CONNECT)).build();
        Self { url: url.trim_end_matches('/').to_owned(), key, agent: config.into() }
    }

    /// GET a JSON document.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None)
    }

    /// Any call that takes and gives JSON; what administers goes through it.
    pub(crate) fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut response = self.send(method, path, body)?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_json().with_context(|| format!("reading {path}"))?;
        if status < 400 { Ok(body) } else { Err(refused(status, &body)) }
    }

    /// GET a document that is no JSON.
    pub(crate) fn bytes(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut response = self.send(Method::GET, path, None)?;
        let status = response.status().as_u16();
        if status < 400 {
            let body = response.body_mut().with_config().limit(BYTES_MAX);
            return body.read_to_vec().with_context(|| format!("reading {path}"));
        }
        Err(refused(status, &response.body_mut().read_json().unwrap_or_default()))
    }

    fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let text = body.map(Value::to_string);
        if text.is_some() {
            request = request.header("content-type", "application/json");
        }
        // The text of a wrong key or URL is not repeated.
        let wrong = |_| failure(Exit::Usage, "--url or --key has characters that HTTP does not take");
        let answered = match text {
            Some(text) => self.agent.run(request.body(text).map_err(wrong)?),
            None => self.agent.run(request.body(()).map_err(wrong)?),
        };
        answered.map_err(|error| self.lost(&error))
    }

    /// The model to talk to when none was named: the first that is ready.
    pub(crate) fn default_model(&self) -> anyhow::Result<String> {
        // What may be asked, not what there is: a key need not be able to see the cluster.
        let list = self.get("/v1/models")?;
        let models = list["data"].as_array().cloned().unwrap_or_default();
        let ready = models.iter().find(|model| model["ready"] == true);
        let chosen = ready.or(models.first()).and_then(|model| model["id"].as_str());
        chosen.map(str::to_owned).ok_or_else(|| {
            failure(Exit::NotFound, "no model is served here yet: start an agent with --model PATH-or-hub-id")
        })
    }

    /// Streams one chat answer piece by piece; returns the whole of it.
    pub(crate) fn chat(
        &self,
        model: &str,
        messages: &[Message],
        piece: impl FnMut(&str),
    ) -> anyhow::Result<String> {
        let messages: Vec<_> = messages
            .iter()
            .map(|message| json!({"role": message.role, "content": message.content}))
            .collect();
        let body = json!({"model": model, "messages": messages, "stream": true});
        let mut response = self.send(Method::POST, "/v1/chat/completions", Some(&body))?;
        let status = response.status().as_u16();
        if status >= 400 {
            let body = response.body_mut().read_json().unwrap_or_default();
            return Err(refused(status, &body));
        }
        let stream = BufReader::new(response.into_body().into_reader());
        events::read(stream, piece).map_err(|why| match why {
            NoAnswer::Refused(error) => refused(0, &json!({"error": error})),
            NoAnswer::Broken | NoAnswer::Unreadable(_) => why.into(),
        })
    }

    fn lost(&self, error: &ureq::Error) -> anyhow::Error {
        let words = format!(
            "nothing answers at {} ({error}): say where a coordinator's API is with --url or MLX_SERVING_URL, or start one here, \
             with `mlx-serving coordinator`, or with `mlx-serving up` where this machine is to serve alone",
            self.url
        );
        failure(Exit::Unreachable, words)
    }
}

fn refused(status: u16, body: &Value) -> anyhow::Error {
    let words = body["error"]["message"].as_str().unwrap_or("the service refused without a reason");
    let exit = match status {
        401 | 403 => Exit::NotAllowed,
        404 => Exit::NotFound,
        409 | 429 | 503 | 507 => Exit::Refused,
        _ => return anyhow::anyhow!("{words}"),
    };
    failure(exit, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_exit_code() {
        for (status, code) in [
            (400, 1),
            (401, 5),
            (403, 5),
            (404, 4),
            (409, 8),
            (421, 1),
            (429, 8),
            (500, 1),
            (503, 8),
            (507, 8),
        ] {
            let error = refused(status, &json!({"error": {"message": "no"}}));
            let exit = error.downcast_ref::<crate::exit::Failure>().map_or(1, |failure| failure.exit.code());
            assert_eq!((exit, error.to_string().as_str()), (code, "no"), "{status}");
        }
    }

    #[test]
    fn a_key_that_no_header_takes_is_not_repeated() {
        let error =
            Api::new("http://127.0.0.1:1", Some("mlx_\n".to_owned())).get("/livez").expect_err("refused");
        assert!(error.to_string().contains("--key") && !error.to_string().contains("mlx_"), "{error}");
    }

    #[test]
    fn nobody_there_says_how_to_start_it() {
        let error = Api::new("http://127.0.0.1:1", None).get("/livez").expect_err("nobody listens on port 1");
        assert!(error.to_string().contains("mlx-serving up"), "{error}");
    }
}
