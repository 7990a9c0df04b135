//! The stage: a router over a scripted cluster.
//!
//! Owns the script (which events each wish meets), the requests, and reading what comes back to the last byte. The tokenizer,
//! the template and everything above them are the real ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use proto::v1::{AttemptUsage, ModelFacts, TokenLogprobs};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::cards;
use super::drawer::Drawer;
use super::facts::{Facts, OneRoom};
use super::grouping::Alone;
use super::passing::Judge;
use super::viewing::Scripted;
use crate::catalogue::{Catalogue, Model};
use crate::gateway::text::rendering::Here;
use crate::gateway::{GatewayState, LocalKey, Minders, Ready, open};
use crate::generation::{Event, Failure, FinishReason, Generation, StartGeneration, Wish};

pub(super) const CONTEXT: u64 = 512;

/// The number of a stage's first wish; the next one is one higher.
pub(super) const FIRST_REQUEST: u64 = 41;

/// One step of a script.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Event(Event),
    /// Time passes; the clock of the tests is paused and jumps.
    Pause(Duration),
    /// Nothing more ever comes.
    Hang,
}

type Script = dyn Fn(usize, &Wish) -> Vec<Act> + Send + Sync;

/// A cluster that answers each wish by the script, and remembers what it was asked.
pub(super) struct Cluster {
    script: Box<Script>,
    seen: Mutex<Vec<(Wish, CancellationToken)>>,
}

impl StartGeneration for Cluster {
    fn start(&self, wish: Wish) -> Generation {
        let cancel = CancellationToken::new();
        let mut seen = self.seen.lock().unwrap();
        let acts = (self.script)(seen.len(), &wish);
        let request = FIRST_REQUEST + seen.len() as u64;
        seen.push((wish, cancel.clone()));
        let (sender, events) = mpsc::channel(1_024);
        tokio::spawn(play(acts, sender));
        Generation { request, events, enough: CancellationToken::new(), _cancel: cancel.drop_guard() }
    }
}

async fn play(acts: Vec<Act>, sender: mpsc::Sender<Event>) {
    for act in acts {
        match act {
            Act::Event(event) => {
                let _ = sender.send(event).await;
            }
            Act::Pause(pause) => tokio::time::sleep(pause).await,
            Act::Hang => sender.closed().await,
        }
    }
}

pub(super) struct Stage {
    pub(super) router: Router,
    /// Until somebody has it run.
    pub(super) minder: Mutex<Option<Minders>>,
    cluster: Arc<Cluster>,
    pub(super) catalogue: Catalogue,
    pub(super) facts: Arc<Facts>,
    pub(super) drawer: Arc<Drawer>,
    pub(super) judge: Arc<Judge>,
    /// The text of the coordinator's own key.
    pub(super) local_key: String,
    /// Nobody leads, for longer than an election takes.
    pub(super) outage: Arc<AtomicBool>,
}

/// A response, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
    /// The body broke off instead of ending.
    pub(super) broke: bool,
}

/// The cluster's secret.
pub(super) const HASH_KEY: [u8; 32] = [7; 32];

impl Stage {
    /// A cluster that says `text` to everything.
    pub(super) fn saying(text: &str) -> Self {
        let text = text.to_owned();
        Self::playing(move |_, _| said(&text))
    }

    pub(super) fn failing(failure: Failure) -> Self {
        Self::playing(move |_, _| vec![Act::Event(Event::Failed(failure.clone()))])
    }

    pub(super) fn playing(script: impl Fn(usize, &Wish) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::with(script, vec![model("demo", Some(cards::chatting()))])
    }

    pub(super) fn with(
        script: impl Fn(usize, &Wish) -> Vec<Act> + Send + Sync + 'static,
        models: Vec<Model>,
    ) -> Self {
        Self::at("127.0.0.1:7440", script, models)
    }

    /// Bound to this address.
    pub(super) fn at(
        api: &str,
        script: impl Fn(usize, &Wish) -> Vec<Act> + Send + Sync + 'static,
        models: Vec<Model>,
    ) -> Self {
        let cluster = Arc::new(Cluster { script: Box::new(script), seen: Mutex::default() });
        let catalogue = Catalogue::default();
        catalogue.replace(
            models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect::<BTreeMap<_, _>>(),
        );
        Self::gateway(api, 1, cluster, catalogue, Facts::founded(), Arc::default())
    }

    /// Another gateway of the same cluster: its facts and kept answers are the same, its script is its own.
    pub(super) fn beside(
        &self,
        replica: u64,
        script: impl Fn(usize, &Wish) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let cluster = Arc::new(Cluster { script: Box::new(script), seen: Mutex::default() });
        let (facts, drawer) = (self.facts.clone(), self.drawer.clone());
        Self::gateway("127.0.0.1:7440", replica, cluster, self.catalogue.clone(), facts, drawer)
    }

    fn gateway(
        api: &str,
        replica: u64,
        cluster: Arc<Cluster>,
        catalogue: Catalogue,
        facts: Arc<Facts>,
        drawer: Arc<Drawer>,
    ) -> Self {
        let judge = Arc::new(Judge::default());
        let (local_key, local_text) = LocalKey::make(1).expect("randomness");
        let outage = Arc::new(AtomicBool::new(false));
        let without = outage.clone();
        let state = GatewayState {
            catalogue: catalogue.clone(),
            renderers: Arc::new(Here),
            generations: cluster.clone(),
            readiness: Arc::new(move || {
                let soon = !without.load(Ordering::Relaxed);
                Ready { leader: false, soon, why: "no leader is elected yet".to_owned() }
            }),
            status: Arc::new(|| Box::pin(async { json!({"schema": "test/1"}) })),
            views: Arc::new(Scripted),
            registry: facts.registry(),
            local_key: Arc::new(local_key),
            facts: facts.clone(),
            claims: judge.clone(),
            tally: judge.tally.clone(),
            room: Arc::new(OneRoom),
            group: Arc::new(Alone),
            jobs: drawer.jobs(replica),
            hash_key: HASH_KEY,
            api: api.parse().unwrap(),
        };
        let (router, minder) = open(state);
        Self {
            router,
            minder: Mutex::new(Some(minder)),
            cluster,
            catalogue,
            facts,
            drawer,
            judge,
            local_key: local_text,
            outage,
        }
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(request("POST", path).body(Body::from(body.to_string())).unwrap()).await
    }

    /// A chat whose request has these headers.
    pub(super) async fn chat_with(&self, headers: &[(&str, &str)], more: Value) -> Reply {
        let chat = request("POST", "/v1/chat/completions");
        let chat = headers.iter().fold(chat, |chat, (name, value)| chat.header(*name, *value));
        self.send(chat.body(Body::from(chat_body(more).to_string())).unwrap()).await
    }

    pub(super) async fn chat(&self, more: Value) -> Reply {
        self.post("/v1/chat/completions", &chat_body(more)).await
    }

    pub(super) async fn complete(&self, more: Value) -> Reply {
        self.post("/v1/completions", &merged(json!({"model": "demo", "prompt": "hello"}), more)).await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.send(request("GET", path).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.expect("the router answers");
        let (parts, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        let mut broke = false;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => broke = true,
            }
        }
        let text = String::from_utf8(bytes).expect("UTF-8");
        Reply { status: parts.status, headers: parts.headers, text, broke }
    }

    pub(super) fn wishes(&self) -> Vec<Wish> {
        self.cluster.seen.lock().unwrap().iter().map(|(wish, _)| wish.clone()).collect()
    }

    /// For each wish: whether its generation was dropped.
    pub(super) fn cancelled(&self) -> Vec<bool> {
        self.cluster.seen.lock().unwrap().iter().map(|(_, cancel)| cancel.is_cancelled()).collect()
    }
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("plain"))
    }

    /// The data of each server-sent event; comments left out, and ids.
    pub(super) fn events(&self) -> Vec<String> {
        let without_id = |event| match str::split_once(event, '\n') {
            Some((id, rest)) if id.starts_with("id: ") => rest,
            _ => event,
        };
        let events = self.text.split("\n\n").map(without_id);
        events.filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    pub(super) fn comments(&self) -> Vec<&str> {
        self.text.split("\n\n").filter(|event| event.starts_with(": ")).collect()
    }

    /// All chunks but `[DONE]`.
    pub(super) fn chunks(&self) -> Vec<Value> {
        let data = self.events().into_iter().filter(|data| data != "[DONE]");
        data.map(|data| serde_json::from_str(&data).expect("a chunk")).collect()
    }

    /// The content of one choice, put together again.
    pub(super) fn content(&self, index: u64) -> String {
        let chunks = self.chunks();
        let choices =
            chunks.iter().flat_map(|chunk| chunk["choices"].as_array().cloned().unwrap_or_default());
        let of_index = choices.filter(|choice| choice["index"] == index);
        of_index
            .filter_map(|choice| {
                Some(choice["delta"]["content"].as_str().or(choice["text"].as_str())?.to_owned())
            })
            .collect()
    }

    pub(super) fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("a code").to_owned()
    }
}

pub(super) fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:7440")
}

pub(super) fn chat_body(more: Value) -> Value {
    merged(json!({"model": "demo", "messages": [{"role": "user", "content": "hello"}]}), more)
}

fn merged(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("an object") };
    body.as_object_mut().unwrap().extend(more);
    body
}

pub(super) fn model(name: &str, card: Option<Arc<crate::gateway::text::card::Card>>) -> Model {
    let facts = ModelFacts {
        context_length: CONTEXT,
        vocab_size: 320,
        eos_ids: vec![cards::END_OF_TEXT],
        ..ModelFacts::default()
    };
    Model {
        created_unix_s: 1_700_000_000,
        facts: card.is_some().then_some(facts),
        card_digest: card.is_some().then(|| "0123456789abcdef".repeat(4)),
        nodes_ready: usize::from(card.is_some()),
        status: if card.is_some() { String::new() } else { "loading, 40 %".to_owned() },
        card,
        ..Model::unseen(name)
    }
}

/// The ids of `text` with the stage's tokenizer.
pub(super) fn ids(text: &str) -> Vec<u32> {
    cards::chatting().encode(text, false).expect("encodes")
}

pub(super) fn tokens(ids: &[u32]) -> Act {
    Act::Event(Event::Tokens { ids: ids.to_vec(), logprobs: Vec::new() })
}

pub(super) fn scored(id: u32, logprob: f32, top: &[(u32, f32)]) -> Act {
    let top = top
        .iter()
        .map(|(token, logprob)| proto::v1::TopLogprob { token: *token, logprob: *logprob })
        .collect();
    Act::Event(Event::Tokens { ids: vec![id], logprobs: vec![TokenLogprobs { logprob, top }] })
}

pub(super) fn dispatched(node: u64) -> Act {
    drawn(node, None)
}

pub(super) fn queued(ahead: u32, eta_ms: Option<u64>) -> Act {
    waiting(ahead, eta_ms, false)
}

pub(super) fn drawn(node: u64, affinity: Option<&'static str>) -> Act {
    Act::Event(Event::Dispatched { node, attempt: 1, affinity })
}

pub(super) fn waiting(ahead: u32, eta_ms: Option<u64>, loading: bool) -> Act {
    Act::Event(Event::Queued { ahead, eta: eta_ms.map(Duration::from_millis), loading })
}

pub(super) fn finished(reason: FinishReason, generated: u32) -> Act {
    let usage =
        AttemptUsage { prompt_tokens: 999, cached_tokens: 3, generated_tokens: generated, prefill_ms: 1 };
    Act::Event(Event::Finished { reason, usage })
}

/// On node 7, one token an event, then the end that the model chose.
pub(super) fn said(text: &str) -> Vec<Act> {
    let ids = ids(text);
    let generated = u32::try_from(ids.len()).unwrap() + 1;
    let each = ids.into_iter().map(|id| tokens(&[id]));
    std::iter::once(dispatched(7)).chain(each).chain([finished(FinishReason::Stop, generated)]).collect()
}
