//! A coordinator and an agent with a fake runtime, on loopback, from the binary that was just built.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::Process;

pub(crate) const MODEL: &str = "mlx-serving-demo";
/// A runtime that never makes anyone wait: what is measured is the path.
pub(crate) const KNOBS: &str = "t1_s=0.0005,max_rows=64";

pub(crate) struct Room {
    pub(crate) coordinator: Process,
    pub(crate) agent: Process,
    pub(crate) api: String,
    _home: tempfile::TempDir,
}

impl Room {
    /// `before`: words put before the coordinator's command, a profiler for example.
    pub(crate) fn start(before: &[String]) -> Self {
        let home = tempfile::tempdir().expect("scratch");
        let (api, cluster) = (free_port(), free_port());
        let binary = env!("CARGO_BIN_EXE_mlx-serving");
        let words: Vec<String> = before.iter().cloned().chain([binary.to_owned()]).collect();
        let coordinator = Process::start(
            Command::new(&words[0])
                .args(&words[1..])
                .args([
                    "coordinator",
                    "--api",
                    &format!("127.0.0.1:{api}"),
                    "--listen",
                    &format!("127.0.0.1:{cluster}"),
                ])
                .arg("--home")
                .arg(home.path())
                .env("RUST_LOG", "error"),
        );
        let token = home.path().join("coordinator/join-token");
        let token = wait("the join token", || std::fs::read_to_string(&token).ok());
        let agent = Process::start(
            Command::new(binary)
                .args(["agent", "--coordinator", &format!("127.0.0.1:{cluster}"), "--token", token.trim()])
                .args(["--name", "bench", "--model", "demo", "--slots", "64", "--home"])
                .arg(home.path())
                .env("RUST_LOG", "error")
                .env("MLX_SERVING_PYTHON_ENV", python_env())
                .env("MLX_SERVING_RUNTIME_PROGRAM", format!("{} -m fake_runtime", python().display()))
                .env("PYTHONPATH", python_path())
                .env("FAKE_RUNTIME", KNOBS),
        );
        let room = Self { coordinator, agent, api: format!("127.0.0.1:{api}"), _home: home };
        wait("the model is ready", || crate::load::once(&room.api, 1).is_ok().then_some(()));
        room
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn python() -> PathBuf {
    python_env().join("bin/python")
}

pub(crate) fn python_path() -> String {
    format!("{}:{}", root().join("python").display(), root().join("tests").display())
}

fn python_env() -> PathBuf {
    std::env::var_os("MLX_SERVING_PYTHON_ENV").map_or_else(|| root().join(".cache/python"), PathBuf::from)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(300), "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
