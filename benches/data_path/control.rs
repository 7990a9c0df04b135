//! The control: the same fake runtime, spoken to directly over its socket, with nothing between.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rmpv::Value;

use crate::room::{KNOBS, python, python_path, root};

pub(crate) struct Control {
    stream: UnixStream,
    row: u64,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Control {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("scratch");
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).expect("a socket");
        // The pipe at its standard input ends it with us.
        let child = Command::new(python())
            .args(["-m", "fake_runtime", "--socket"])
            .arg(&path)
            .env("PYTHONPATH", python_path())
            .env("FAKE_RUNTIME", KNOBS)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the fake runtime starts");
        let (stream, _) = listener.accept().expect("it connects");
        let mut control = Self { stream, row: 0, child, _folder: folder };
        let model = root().join("python/demo_model/weights");
        let load = Value::Map(vec![
            ("path".into(), model.to_str().expect("UTF-8").into()),
            ("prefill_chunk".into(), 512.into()),
            ("max_rows".into(), 64.into()),
        ]);
        control.send(&Value::Array(vec!["load".into(), 1.into(), load]));
        while control.receive()[0].as_str() != Some("reply") {}
        control
    }

    /// The median over `requests` one-token requests, in milliseconds.
    pub(crate) fn time_to_first_token(&mut self, requests: usize) -> f64 {
        let times = (0..requests).map(|_| self.ask()).collect();
        crate::load::median_ms(times)
    }

    fn ask(&mut self) -> Duration {
        self.row += 1;
        let ids = Value::Array((0..24).map(|id| Value::from(100 + id)).collect());
        let request = Value::Map(vec![
            ("ids".into(), ids),
            ("max_tokens".into(), 1.into()),
            ("sampling".into(), Value::Map(vec![("temperature".into(), 0.into())])),
            ("stop_ids".into(), Value::Array(Vec::new())),
            ("top_logprobs".into(), Value::Nil),
        ]);
        let started = Instant::now();
        self.send(&Value::Array(vec!["generate".into(), self.row.into(), request]));
        loop {
            let frame = self.receive();
            if frame[0].as_str() == Some("step") && frame[2].as_array().is_some_and(|rows| !rows.is_empty()) {
                return started.elapsed();
            }
        }
    }

    fn send(&mut self, value: &Value) {
        let mut bytes = vec![0; 4];
        rmpv::encode::write_value(&mut bytes, value).expect("to memory");
        let length = u32::try_from(bytes.len() - 4).expect("short").to_le_bytes();
        bytes[..4].copy_from_slice(&length);
        self.stream.write_all(&bytes).expect("the runtime reads");
    }

    fn receive(&mut self) -> Vec<Value> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("a frame");
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut bytes).expect("a frame");
        match rmpv::decode::read_value(&mut bytes.as_slice()) {
            Ok(Value::Array(frame)) => frame,
            other => panic!("not a frame: {other:?}"),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
