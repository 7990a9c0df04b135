//! The runtime that a test plays, frame by frame.

use std::time::Duration;

use rmpv::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::room::soon;

/// One incarnation: a real process that only copies bytes, and its far end.
pub(crate) struct Runtime {
    pub(crate) pid: u32,
    socket: UnixStream,
}

impl Runtime {
    /// The next process that the agent starts.
    pub(crate) async fn started(listener: &UnixListener) -> Self {
        let (mut socket, _) = soon("a runtime starts", listener.accept()).await.expect("accepted");
        let pid = soon("its number", socket.read_u32_le()).await.expect("a number");
        Self { pid, socket }
    }

    /// Started, greeted and loaded.
    pub(crate) async fn ready(listener: &UnixListener) -> Self {
        let mut runtime = Self::started(listener).await;
        runtime.hello(1).await;
        runtime.load().await;
        runtime
    }

    pub(crate) async fn hello(&mut self, protocol: u32) {
        let body =
            map(vec![("protocol", protocol.into()), ("pid", self.pid.into()), ("runtime", "double".into())]);
        self.send(vec!["hello".into(), body]).await;
    }

    /// Answers the load; returns what was asked for.
    pub(crate) async fn load(&mut self) -> Value {
        let frame = self.heard("load").await;
        let body = map(vec![("weights_bytes", 1_000.into()), ("load_s", 0.5.into())]);
        self.send(vec!["reply".into(), frame[1].clone(), body]).await;
        frame[2].clone()
    }

    /// The next frame, which must have this verb.
    pub(crate) async fn heard(&mut self, verb: &str) -> Value {
        let frame = soon(verb, self.frame()).await.expect("an open socket");
        assert_eq!(frame[0].as_str(), Some(verb), "{frame}");
        frame
    }

    /// The row of the next `generate`.
    pub(crate) async fn asked(&mut self) -> u64 {
        self.heard("generate").await[1].as_u64().expect("a row")
    }

    /// Lives, with nothing to do, for ever.
    pub(crate) async fn idle(&mut self) {
        loop {
            let body = map(vec![("phase", "idle".into()), ("fraction", Value::Nil)]);
            self.send(vec!["progress".into(), body]).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// One step with one row.
    pub(crate) async fn step(&mut self, row: u64, ids: &[u32], finish: Option<&str>) {
        self.step_with(row, ids, finish, Value::Nil).await;
    }

    pub(crate) async fn step_with(&mut self, row: u64, ids: &[u32], finish: Option<&str>, extra: Value) {
        let ids = Value::Array(ids.iter().map(|id| (*id).into()).collect());
        let row = Value::Array(vec![row.into(), ids, finish.map_or(Value::Nil, Value::from), extra]);
        self.stepped(vec![row], (0.0, 0), (0.02, 1, 100)).await;
    }

    /// One step that produced nothing to tell but its figures: seconds and tokens of prefill; seconds, rows and tokens in the
    /// KV cache of decode.
    pub(crate) async fn measured(&mut self, prefill: (f64, u64), decode: (f64, u32, u64)) {
        self.stepped(Vec::new(), prefill, decode).await;
    }

    async fn stepped(&mut self, rows: Vec<Value>, prefill: (f64, u64), decode: (f64, u32, u64)) {
        let ((prefill_s, prefill_tokens), (decode_s, batch, kv_tokens)) = (prefill, decode);
        let stats =
            vec![prefill_s.into(), prefill_tokens.into(), decode_s.into(), batch.into(), kv_tokens.into()];
        self.send(vec!["step".into(), 1.into(), Value::Array(rows), Value::Array(stats)]).await;
    }

    pub(crate) async fn send(&mut self, frame: Vec<Value>) {
        let mut body = Vec::new();
        rmpv::encode::write_value(&mut body, &Value::Array(frame)).expect("a vector takes anything");
        let length = u32::try_from(body.len()).expect("short");
        self.send_raw(&[length.to_le_bytes().as_slice(), &body].concat()).await;
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("an open socket");
    }

    /// Returns when the agent has ended this process.
    pub(crate) async fn is_gone(&mut self) {
        let gone = async { while self.frame().await.is_ok() {} };
        soon("the runtime is gone", gone).await;
    }

    pub(crate) fn kill(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    }

    async fn frame(&mut self) -> std::io::Result<Value> {
        let length = self.socket.read_u32_le().await?;
        let mut body = vec![0; usize::try_from(length).expect("fits")];
        self.socket.read_exact(&mut body).await?;
        Ok(rmpv::decode::read_value(&mut body.as_slice()).expect("the agent writes msgpack"))
    }
}

/// What a map holds under this key.
pub(crate) fn value<'a>(map: &'a Value, key: &str) -> Option<&'a Value> {
    let pairs = map.as_map().expect("a map");
    pairs.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
}

pub(crate) fn map(pairs: Vec<(&str, Value)>) -> Value {
    Value::Map(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
}
