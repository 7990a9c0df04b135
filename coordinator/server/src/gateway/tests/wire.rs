//! Over a real connection: what a client's socket sees, and what the cluster sees of a client that goes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::stage::{Act, Stage, dispatched, ids, queued, said, tokens};
use crate::generation::{Event, Failure};

/// A served stage; the server ends with it.
struct Served {
    stage: Stage,
    address: std::net::SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Served {
    async fn new(stage: Stage) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = stage.router.clone();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { stage, address, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// All bytes until the server closes the connection.
    async fn last(&self, path: &str, body: &Value) -> String {
        let mut client = self.connect().await;
        client.write_all(post(path, body, "connection: close\r\n").as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        let _ = client.read_to_end(&mut seen).await;
        String::from_utf8(seen).unwrap()
    }
}

fn post(path: &str, body: &Value, headers: &str) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chat(more: Value) -> Value {
    super::stage::chat_body(more)
}

async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(end) {
        let mut piece = [0; 1_024];
        let count = client.read(&mut piece).await.unwrap();
        assert!(count > 0, "closed before {end:?}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(seen).unwrap()
}

/// The event itself is waited for; the bound only ends a test that would hang.
async fn until(mut reached: impl FnMut() -> bool) {
    let wait = async {
        while !reached() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it never happened");
}

#[tokio::test]
async fn a_whole_stream_ends_with_done_and_the_last_chunk() {
    let served = Served::new(Stage::saying("hello")).await;
    let seen = served.last("/v1/chat/completions", &chat(json!({"stream": true}))).await;
    assert!(seen.starts_with("HTTP/1.1 200"));
    assert!(seen.contains("transfer-encoding: chunked") && seen.contains("data: [DONE]\n\n"));
    assert!(seen.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn of_a_broken_stream_the_error_arrives_and_the_last_chunk_does_not() {
    let lost = || Act::Event(Event::Failed(Failure::NodeLost { began: true }));
    let stage = Stage::playing(move |_, _| {
        vec![queued(0, None), Act::Pause(Duration::from_millis(20)), tokens(&ids("half")), lost()]
    });
    let seen = Served::new(stage).await.last("/v1/chat/completions", &chat(json!({"stream": true}))).await;
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    assert!(seen.contains("\"content\":\"half\"") && seen.contains("\"code\":\"stream_lost\""), "{seen}");
    assert!(!seen.contains("[DONE]") && !seen.ends_with("0\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn what_failed_before_its_first_word_has_a_status() {
    let lost = || Act::Event(Event::Failed(Failure::NodeLost { began: false }));
    let served = Served::new(Stage::playing(move |_, _| vec![dispatched(1), lost()])).await;
    let seen = served.last("/v1/chat/completions", &chat(json!({"stream": true}))).await;
    assert!(seen.starts_with("HTTP/1.1 503"), "{seen}");
}

#[tokio::test]
async fn one_connection_carries_one_request_after_another() {
    let served = Served::new(Stage::playing(|nth, _| said(&format!("answer {nth}")))).await;
    let mut client = served.connect().await;
    for nth in 0..3 {
        client
            .write_all(post("/v1/chat/completions", &chat(json!({"stream": true})), "").as_bytes())
            .await
            .unwrap();
        let seen = read_until(&mut client, "0\r\n\r\n").await;
        assert!(seen.contains(&format!("answer {nth}")), "{seen}");
        client.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        assert!(read_until(&mut client, "\"why\":\"\"}").await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_client_that_closes_its_connection_cancels_its_stream() {
    let stage = Stage::playing(|_, _| vec![dispatched(1), tokens(&ids("hello")), Act::Hang]);
    let served = Served::new(stage).await;
    let mut client = served.connect().await;
    client
        .write_all(post("/v1/chat/completions", &chat(json!({"stream": true, "n": 2})), "").as_bytes())
        .await
        .unwrap();
    read_until(&mut client, "hello").await;
    assert_eq!(served.stage.cancelled(), [false, false]);
    drop(client);
    until(|| served.stage.cancelled() == [true, true]).await;
}

#[tokio::test]
async fn a_client_that_closes_its_connection_cancels_a_whole_answer_it_waits_for() {
    let served = Served::new(Stage::playing(|_, _| vec![dispatched(1), Act::Hang])).await;
    let mut client = served.connect().await;
    client.write_all(post("/v1/chat/completions", &chat(json!({})), "").as_bytes()).await.unwrap();
    until(|| served.stage.cancelled() == [false]).await;
    drop(client);
    until(|| served.stage.cancelled() == [true]).await;
}

#[tokio::test]
async fn a_client_that_never_sends_its_body_starts_nothing() {
    let served = Served::new(Stage::saying("hi")).await;
    let mut client = served.connect().await;
    client
        .write_all(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{\"model\"",
        )
        .await
        .unwrap();
    drop(client);
    let seen = served.last("/v1/chat/completions", &chat(json!({}))).await;
    assert!(seen.starts_with("HTTP/1.1 200"));
    assert_eq!(served.stage.wishes().len(), 1);
}

#[tokio::test]
async fn requests_run_beside_each_other() {
    // More at once than the predecessor's ten; all have begun before any may end.
    let served =
        Served::new(Stage::playing(|_, _| vec![dispatched(1), tokens(&ids("hello")), Act::Hang])).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = served.connect().await;
        client
            .write_all(post("/v1/chat/completions", &chat(json!({"stream": true})), "").as_bytes())
            .await
            .unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        read_until(client, "hello").await;
    }
    assert_eq!(served.stage.cancelled(), [false; 40]);
}

#[tokio::test]
async fn a_request_without_a_host_is_refused() {
    let served = Served::new(Stage::saying("hi")).await;
    let mut client = served.connect().await;
    client.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    client.read_to_string(&mut seen).await.unwrap();
    assert!(seen.contains(" 421 "), "{seen}");
}
