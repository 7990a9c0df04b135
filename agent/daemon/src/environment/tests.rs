//! Environments made with a fake Python that records its calls; no network. What the real one does is tried by hand.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::progress::recorded;
use super::*;

/// Answers like Python with venv and pip. `$0.calls` gets a line for each call; the environment variable-free knobs are files
/// beside the script: `pip-fails` (its contents go to standard error), `broken` (imports fail).
const FAKE: &str = r#"#!/bin/sh
home=@HOME@
case "$*" in
  *ensurepip*) echo 3 12 @ARCH@ ;;
  *"-m venv"*) echo venv >> "$home/calls"
      for target; do :; done
      mkdir -p "$target/bin" && cp "$0" "$target/bin/python" ;;
  *"-m pip install"*) echo "pip $*" >> "$home/calls"
      echo "Collecting a==1 (from -r requirements.txt (line 1))"
      echo "  Downloading a-1-py3-none-any.whl (18.2 MB)"
      if [ -e "$home/pip-fails" ]; then cat "$home/pip-fails" >&2; exit 1; fi
      echo "Successfully installed a-1" ;;
  *mlx_lm*) if [ -e "$home/broken" ]; then echo "ImportError: no MLX here" >&2; exit 1; fi
      echo 3.12.1 ;;
  *) echo "unexpected call: $*" >&2; exit 64 ;;
esac
"#;

struct Room {
    scratch: tempfile::TempDir,
    python: PathBuf,
}

impl Room {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("scratch");
        let python = scratch.path().join("fake-python");
        let script = FAKE.replace("@HOME@", &scratch.path().display().to_string());
        fs::write(&python, script.replace("@ARCH@", std::env::consts::ARCH)).expect("written");
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("executable");
        Self { scratch, python }
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn knob(&self, name: &str, contents: &str) {
        fs::write(self.scratch.path().join(name), contents).expect("written");
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.scratch.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    async fn ensure(&self, progress: &Progress) -> Result<PythonEnvironment, EnvironmentError> {
        ensure_with(self.settings(), &self.data(), progress).await
    }

    fn settings(&self) -> Settings {
        Settings { given: None, candidates: vec![self.python.clone()], requirements: Ok(requirements()) }
    }
}

fn requirements() -> Requirements {
    Requirements { text: "a==1 \\\n    --hash=sha256:00\n".to_owned() }
}

fn silent() -> Progress {
    Progress::new(|_| ())
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("utf-8")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_environment_is_made_once_under_the_name_of_its_lock() {
    let room = Room::new();
    let (progress, steps) = recorded();
    let environment = room.ensure(&progress).await.expect("made");
    let digest = requirements().digest();
    assert_eq!(environment.python, room.data().join("python").join(&digest).join("bin/python"));
    assert!(environment.python_path.join("mlx_runtime/__main__.py").is_file());
    assert_eq!(entries(&room.data().join("python")), [".lock".to_owned(), digest]);
    assert_eq!(room.calls().len(), 2, "one venv, one pip");
    let words: Vec<_> = steps.lock().expect("not poisoned").iter().map(|step| step.words.clone()).collect();
    let expected = [
        "package 1 of 1: a 1",
        "package 1 of 1: downloading a 1 (18.2 MB)",
        "installed 1 packages",
        "importing MLX for the first time",
    ];
    assert_eq!(words[1..], expected);

    assert_eq!(room.ensure(&silent()).await.expect("still there"), environment);
    assert_eq!(room.calls().len(), 2, "nothing was made again");
}

#[tokio::test]
async fn pip_gets_hashes_only_and_built_packages_only() {
    let room = Room::new();
    room.ensure(&silent()).await.expect("made");
    let pip = room.calls().pop().expect("called");
    for option in ["-I -u -m pip install", "--require-hashes", "--only-binary :all:", "--no-input"] {
        assert!(pip.contains(option), "{option} is not in {pip}");
    }
    let stamp = fs::read_to_string(room.data().join("python").join(requirements().digest()).join(STAMP))
        .expect("stamped");
    assert!(stamp.contains("Python 3.12.1 from"), "{stamp}");
}

#[tokio::test]
async fn what_a_crash_left_half_made_is_thrown_away() {
    let room = Room::new();
    let digest = requirements().digest();
    let folder = room.data().join("python");
    for left in [folder.join(format!(".making-{digest}")), folder.join(&digest)] {
        fs::create_dir_all(left.join("bin")).expect("made");
        fs::write(left.join("leftover"), "half").expect("written");
    }
    let environment = room.ensure(&silent()).await.expect("made");
    assert!(environment.python.is_file());
    assert_eq!(entries(&folder), [".lock".to_owned(), digest.clone()]);
    assert!(!folder.join(digest).join("leftover").exists());
}

#[tokio::test]
async fn an_environment_whose_python_vanished_is_made_anew() {
    let room = Room::new();
    let environment = room.ensure(&silent()).await.expect("made");
    fs::remove_file(&environment.python).expect("removed");
    assert_eq!(room.ensure(&silent()).await.expect("made anew"), environment);
    assert!(environment.python.is_file());
}

#[tokio::test]
async fn two_at_once_make_one_environment() {
    let room = Room::new();
    let progress = silent();
    let (first, second) = tokio::join!(room.ensure(&progress), room.ensure(&progress));
    assert_eq!(first.expect("made"), second.expect("made"));
    assert_eq!(room.calls().len(), 2, "{:?}", room.calls());
}

#[tokio::test]
async fn an_offline_machine_is_told_what_to_do_and_nothing_half_made_counts() {
    let room = Room::new();
    room.knob("pip-fails", "WARNING: NewConnectionError\nERROR: No matching distribution found for a==1\n");
    let words = room.ensure(&silent()).await.expect_err("offline").to_string();
    assert!(words.contains("did not answer") && words.contains("PIP_INDEX_URL"), "{words}");
    // Its two pipes are read beside each other: which of them said the last line is chance.
    assert!(words.contains("\n  ERROR: No matching distribution found for a==1"), "{words}");
    assert!(!room.data().join("python").join(requirements().digest()).exists());

    fs::remove_file(room.scratch.path().join("pip-fails")).expect("back online");
    room.ensure(&silent()).await.expect("the next try succeeds");
}

#[tokio::test]
async fn a_build_that_cannot_be_imported_is_not_taken() {
    let room = Room::new();
    room.knob("broken", "");
    let error = room.ensure(&silent()).await.expect_err("broken");
    let EnvironmentError::Import { last_lines } = error else { panic!("{error}") };
    assert_eq!(last_lines, ["ImportError: no MLX here"]);
    assert!(!room.data().join("python").join(requirements().digest()).exists());
}

#[tokio::test]
async fn a_given_environment_is_checked_and_nothing_is_made() {
    let room = Room::new();
    let given = room.scratch.path().join("given");
    fs::create_dir_all(given.join("bin")).expect("made");
    fs::copy(&room.python, given.join("bin/python")).expect("copied");
    let settings = |given: &Path| Settings { given: Some(given.to_owned()), ..room.settings() };
    let environment = ensure_with(settings(&given), &room.data(), &silent()).await.expect("taken");
    assert_eq!(environment.python, given.join("bin/python"));
    assert_eq!(room.calls(), Vec::<String>::new());

    room.knob("broken", "");
    let words =
        ensure_with(settings(&given), &room.data(), &silent()).await.expect_err("refused").to_string();
    assert!(words.contains("ImportError: no MLX here") && words.contains("Unset it"), "{words}");
    let nowhere = room.scratch.path().join("nowhere");
    let words =
        ensure_with(settings(&nowhere), &room.data(), &silent()).await.expect_err("refused").to_string();
    assert!(words.contains("bin/python does not exist"), "{words}");
}

#[tokio::test]
async fn an_unsupported_platform_is_refused_unless_an_environment_is_given() {
    let room = Room::new();
    let unsupported = || Settings { requirements: Requirements::of("macos", "x86_64"), ..room.settings() };
    let error = ensure_with(unsupported(), &room.data(), &silent()).await.expect_err("refused");
    assert!(matches!(error, EnvironmentError::Unsupported { .. }), "{error}");

    let given = room.scratch.path().join("given");
    fs::create_dir_all(given.join("bin")).expect("made");
    fs::copy(&room.python, given.join("bin/python")).expect("copied");
    let settings = Settings { given: Some(given), ..unsupported() };
    ensure_with(settings, &room.data(), &silent()).await.expect("taken");
}

/// By hand: `MLX_SERVING_TEST_DATA=DIR cargo nextest run -p daemon --run-ignored only a_real`; twice, to see the second start.
#[tokio::test]
#[ignore = "downloads some 150 MB and makes an environment of 350 MB"]
async fn a_real_environment_runs_the_runtime() {
    let scratch = tempfile::tempdir().expect("scratch");
    let kept = std::env::var_os("MLX_SERVING_TEST_DATA").map(PathBuf::from);
    let (progress, steps) = recorded();
    let environment = ensure(kept.as_deref().unwrap_or(scratch.path()), &progress).await.expect("made");
    let help = environment.module("mlx_runtime").arg("--help").output().await.expect("started");
    assert!(String::from_utf8_lossy(&help.stdout).contains("--socket"), "{help:?}");
    let permilles: Vec<_> =
        steps.lock().expect("not poisoned").iter().filter_map(|step| step.permille).collect();
    assert!(permilles.is_sorted(), "{permilles:?}");
}
