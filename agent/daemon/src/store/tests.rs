//! The store as a whole: the demo model, folders, and downloads by a fake Python; no network.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use super::*;
use crate::environment::Step;

fn silent() -> Progress {
    Progress::new(|_| ())
}

/// A Python whose `mlx_runtime.fetch` is this shell script; `$HUB` is the folder of hub models, `$ID` the id.
fn fake(scratch: &Path, script: &str) -> PythonEnvironment {
    let python = scratch.join("fake-python");
    let script = format!(
        "#!/bin/sh\n[ \"$1 $2 $4\" = '-m mlx_runtime.fetch --into' ] || exit 64\nID=$3 HUB=$5\n{script}\n"
    );
    fs::write(&python, script).expect("written");
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("executable");
    PythonEnvironment { python, python_path: scratch.to_owned() }
}

/// Puts a whole model in place, as a download does.
fn succeeding(scratch: &Path) -> String {
    let ready = scratch.join("ready");
    fs::create_dir_all(&ready).expect("made");
    for file in demo_files() {
        fs::copy(&file, ready.join(file.file_name().expect("a name"))).expect("copied");
    }
    format!(
        "echo '{{\"event\": \"progress\", \"done_bytes\": 1000000, \"total_bytes\": 4000000, \"file\": \"model.safetensors\"}}'\n\
         mkdir -p \"$HUB/$ID\" && cp {}/* \"$HUB/$ID\"\n\
         echo called >> {}/calls\n\
         echo \"{{\\\"event\\\": \\\"done\\\", \\\"path\\\": \\\"$HUB/$ID\\\"}}\"",
        ready.display(),
        scratch.display()
    )
}

fn demo_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/demo_model/weights");
    fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
}

fn hub(id: &str) -> OfferSource {
    OfferSource::Hub(id.to_owned())
}

async fn fetched(script: &str) -> Result<PreparedModel, StoreError> {
    let scratch = tempfile::tempdir().expect("scratch");
    let environment = fake(scratch.path(), script);
    Store::new(&scratch.path().join("data")).resolve(&hub("a/b"), Some(&environment), &silent()).await
}

#[tokio::test]
async fn the_demo_model_is_unpacked_and_its_facts_are_its_own() {
    let data = tempfile::tempdir().expect("scratch");
    let model = Store::new(data.path()).resolve(&OfferSource::Demo, None, &silent()).await.expect("prepared");
    assert!(model.folder.starts_with(data.path().join("models/mlx-serving-demo")));
    let facts = &model.facts;
    assert_eq!((facts.model_type.as_str(), facts.dtype.as_str()), ("llama", "float32"));
    assert_eq!(
        (facts.context_length, facts.vocab_size, facts.eos_ids.as_slice()),
        (32_768, 1_024, [1, 3].as_slice())
    );
    // Four layers of two KV heads of 32 values, keys and values, four bytes each.
    assert_eq!(facts.kv_bytes_per_token, 4 * 2 * 32 * 2 * 4);
    assert_eq!(facts.parameters * 4, facts.weights_bytes);
    let file = fs::metadata(model.folder.join("model.safetensors")).expect("there").len();
    assert!(facts.weights_bytes < file && facts.weights_bytes + 65_536 > file);
    assert!(
        model.footprint.bytes > facts.weights_bytes && model.footprint.bytes < 512 << 20,
        "{:?}",
        model.footprint
    );
    assert_eq!((model.footprint.kv_tokens, model.footprint.prefix_tokens), (4 * 8_192, 32_768));
    assert!(model.card.files.iter().any(|(name, _)| name == "chat_template.jinja"));
}

#[tokio::test]
async fn a_folder_of_the_users_is_read_where_it_is() {
    let data = tempfile::tempdir().expect("scratch");
    let store = Store::new(data.path());
    let demo = store.resolve(&OfferSource::Demo, None, &silent()).await.expect("prepared");
    let path = OfferSource::Path(demo.folder.to_str().expect("utf-8").to_owned());
    assert_eq!(store.resolve(&path, None, &silent()).await.expect("prepared"), demo);
    let relative = OfferSource::Path("models/x".to_owned());
    assert!(matches!(store.resolve(&relative, None, &silent()).await, Err(StoreError::RelativePath { .. })));
}

#[tokio::test]
async fn a_hub_model_is_fetched_once_and_then_used_without_a_network() {
    let scratch = tempfile::tempdir().expect("scratch");
    let environment = fake(scratch.path(), &succeeding(scratch.path()));
    let data = scratch.path().join("data");
    let steps = Arc::new(Mutex::new(Vec::<Step>::new()));
    let kept = Arc::clone(&steps);
    let progress = Progress::new(move |step| kept.lock().expect("not poisoned").push(step));
    let store = Store::new(&data);
    let model = store.resolve(&hub("a/b"), Some(&environment), &progress).await.expect("fetched");
    assert_eq!(model.folder, data.join("models/hub/a/b"));
    let quarter =
        Step { words: "downloading model.safetensors: 1 MB of 4 MB".to_owned(), permille: Some(250) };
    assert!(steps.lock().expect("not poisoned").contains(&quarter));

    let offline = store.resolve(&hub("a/b"), None, &silent()).await.expect("already here");
    assert_eq!(offline, model);
    assert_eq!(fs::read_to_string(scratch.path().join("calls")).expect("called"), "called\n");
}

#[tokio::test]
async fn of_two_downloads_the_second_waits_and_says_so() {
    let scratch = tempfile::tempdir().expect("scratch");
    let (running, gate) = (scratch.path().join("running"), scratch.path().join("gate"));
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().expect("runs").success());
    // Open at both ends, so that neither side waits for the other; each download takes one line.
    let mut pass = fs::File::options().read(true).write(true).open(&gate).expect("opened");
    let script = format!(
        "mkdir {running} || exit 1\nread pass < {gate}\nrmdir {running}\n{}",
        succeeding(scratch.path()),
        running = running.display(),
        gate = gate.display()
    );
    let (environment, store) = (fake(scratch.path(), &script), Store::new(&scratch.path().join("data")));
    let (words, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut both = tokio::task::JoinSet::new();
    for id in ["a/b", "a/c"] {
        let (store, environment, words) = (store.clone(), environment.clone(), words.clone());
        let progress = Progress::new(move |step| words.send(step.words).expect("heard"));
        both.spawn(async move { store.resolve(&hub(id), Some(&environment), &progress).await });
    }
    let waits =
        async { while heard.recv().await.is_some_and(|words| !words.starts_with("waiting until")) {} };
    tokio::select! {
        () = waits => {}
        ended = both.join_next() => panic!("{ended:?}"),
    }
    pass.write_all(b"\n\n").expect("written");
    while let Some(ended) = both.join_next().await {
        ended.expect("no panic").expect("fetched");
    }
    assert_eq!(fs::read_to_string(scratch.path().join("calls")).expect("called"), "called\ncalled\n");
}

#[tokio::test]
async fn an_unreachable_hub_is_told_in_the_downloads_own_words() {
    let script = "echo '{\"event\": \"error\", \"code\": \"unreachable\", \"text\": \"no hub; give a local folder\"}'; exit 1";
    let error = fetched(script).await.expect_err("refused");
    assert_eq!(error.to_string(), "no hub; give a local folder (a/b: unreachable)");
    assert!(error.may_pass());
}

#[tokio::test]
async fn a_download_that_breaks_is_not_a_model() {
    for script in [
        "echo 'ModuleNotFoundError: mlx_runtime' >&2; exit 1",
        "echo 'ModuleNotFoundError: mlx_runtime'; kill -9 $$",
        "echo '{\"event\": \"done\", \"path\": \"/nowhere\"}'; echo 'ModuleNotFoundError: mlx_runtime' >&2",
        "echo \"{\\\"event\\\": \\\"done\\\", \\\"path\\\": \\\"$HUB\\\"}\"; echo 'ModuleNotFoundError: mlx_runtime' >&2; exit 1",
    ] {
        let error = fetched(script).await.expect_err("refused");
        assert!(matches!(error, StoreError::HubBroken { .. }), "{script}: {error}");
        assert!(error.to_string().starts_with("the download of a/b ended unexpectedly: "), "{error}");
    }
}

#[tokio::test]
async fn a_dropped_wait_ends_the_download() {
    let scratch = tempfile::tempdir().expect("scratch");
    let environment =
        fake(scratch.path(), &format!("echo $$ > {}/pid; exec sleep 600", scratch.path().display()));
    let store = Store::new(&scratch.path().join("data"));
    let waiting =
        tokio::spawn(async move { store.resolve(&hub("a/b"), Some(&environment), &silent()).await });
    let pid_file = scratch.path().join("pid");
    let pid = loop {
        let text = fs::read_to_string(&pid_file).unwrap_or_default();
        if let Ok(pid) = text.trim().parse() {
            break rustix::process::Pid::from_raw(pid).expect("not zero");
        }
        tokio::task::yield_now().await;
    };
    waiting.abort();
    assert!(waiting.await.expect_err("aborted").is_cancelled());
    while rustix::process::test_kill_process(pid).is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_id_that_is_none_starts_nothing() {
    let scratch = tempfile::tempdir().expect("scratch");
    let environment = fake(scratch.path(), "touch started");
    let store = Store::new(&scratch.path().join("data"));
    for id in ["..", "a/..", "--help/x", "bare"] {
        let error = store.resolve(&hub(id), Some(&environment), &silent()).await.expect_err("refused");
        assert!(matches!(error, StoreError::BadId { .. }), "{error}");
    }
    assert!(!scratch.path().join("data").exists());
    let error = store.resolve(&hub("a/b"), None, &silent()).await.expect_err("refused");
    assert!(matches!(error, StoreError::NoEnvironment { .. }), "{error}");
}

/// By hand: each folder in MLX_SERVING_TEST_MODELS holds a model, and beside it in `facts.json` what the runtime said of it after
/// loading.
#[test]
#[ignore = "needs models and what a runtime measured of them"]
fn facts_agree_with_what_a_runtime_measured() {
    let models = std::env::var_os("MLX_SERVING_TEST_MODELS").expect("a folder of models");
    let mut seen = 0;
    for entry in fs::read_dir(models).expect("a folder") {
        let folder = entry.expect("an entry").path();
        let Ok(measured) = fs::read_to_string(folder.join("facts.json")) else { continue };
        let measured: serde_json::Value = serde_json::from_str(&measured).expect("JSON");
        let facts = Known::of(&ModelFolder::open(&folder).expect("a model")).facts;
        let ours = serde_json::json!({
            "model_type": facts.model_type, "context_length": facts.context_length,
            "dtype": facts.dtype, "weights_bytes": facts.weights_bytes, "kv_bytes_per_token": facts.kv_bytes_per_token,
            "eos_ids": facts.eos_ids, "vocab_size": facts.vocab_size,
        });
        // MLX leaves parameters out that belong to no layer of its own, such as gpt-oss's attention sinks.
        let parameters = measured["parameters"].as_u64().expect("a number");
        assert!(
            facts.parameters.abs_diff(parameters) < parameters / 1_000,
            "{} of {}",
            facts.parameters,
            folder.display()
        );
        for (key, ours) in ours.as_object().expect("an object") {
            assert_eq!(ours, &measured[key], "{key} of {}", folder.display());
        }
        seen += 1;
    }
    assert!(seen > 0, "no model was compared");
}
