//! Folders as people point at them: whole, in parts, in other formats, with code.

use std::os::unix::fs::symlink;

use super::*;

const CONFIG_TEXT: &str = r#"{"model_type": "llama", "vocab_size": 8}"#;

/// A safetensors file with one tensor of one byte for each name.
fn weights(names: &[&str]) -> Vec<u8> {
    let entry = |(at, name): (usize, &&str)| {
        format!(r#""{name}": {{"dtype": "U8", "shape": [1], "data_offsets": [{at}, {}]}}"#, at + 1)
    };
    let header = format!("{{{}}}", names.iter().enumerate().map(entry).collect::<Vec<_>>().join(","));
    let mut file = u64::try_from(header.len()).expect("fits").to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + names.len(), 0);
    file
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("scratch");
    for (name, contents) in files {
        fs::write(folder.path().join(name), contents).expect("written");
    }
    folder
}

fn refused(folder: &tempfile::TempDir) -> StoreError {
    ModelFolder::open(folder.path()).expect_err("refused")
}

#[test]
fn all_shards_make_one_model() {
    let folder = folder(&[
        ("config.json", CONFIG_TEXT.as_bytes()),
        ("model-00001-of-00002.safetensors", &weights(&["a", "b"])),
        ("model-00002-of-00002.safetensors", &weights(&["c"])),
        // Mistral publishes the same weights once more under another name; MLX does not load it.
        ("consolidated.safetensors", &weights(&["a", "b", "c"])),
    ]);
    let opened = ModelFolder::open(folder.path()).expect("whole");
    assert_eq!(opened.tensors.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(opened.config.model_type(), "llama");
}

#[test]
fn a_missing_shard_is_named() {
    let index =
        br#"{"metadata": {}, "weight_map": {"a": "model-a.safetensors", "b": "model-b.safetensors"}}"#;
    let by_index = folder(&[
        ("config.json", b"{}"),
        (INDEX, index.as_slice()),
        ("model-a.safetensors", &weights(&["a"])),
    ]);
    assert!(refused(&by_index).to_string().contains("model-b.safetensors is missing"));
    let by_number = folder(&[("config.json", b"{}"), ("model-00002-of-00003.safetensors", &weights(&["a"]))]);
    assert!(refused(&by_number).to_string().contains("model-00001-of-00003.safetensors is missing"));
}

#[test]
fn an_index_that_points_elsewhere_names_a_missing_file() {
    let index = br#"{"weight_map": {"a": "../../etc/passwd"}}"#;
    let folder =
        folder(&[("config.json", b"{}"), (INDEX, index.as_slice()), ("model.safetensors", &weights(&["a"]))]);
    assert!(matches!(refused(&folder), StoreError::Missing { .. }));
}

#[test]
fn absurd_shard_numbers_do_not_count() {
    for name in
        ["model-00009-of-00003.safetensors", "model-00001-of-99999.safetensors", "model-1-of-2.safetensors"]
    {
        let folder = folder(&[("config.json", b"{}"), (name, &weights(&["a"]))]);
        assert!(ModelFolder::open(folder.path()).is_ok(), "{name}");
    }
}

#[test]
fn weights_in_other_formats_are_refused_by_name() {
    for other in ["pytorch_model.bin", "model.gguf", "weights.npz", "consolidated.safetensors"] {
        let folder = folder(&[("config.json", b"{}"), (other, b"")]);
        let error = refused(&folder);
        assert!(
            matches!(&error, StoreError::NoWeights { found: Some(found), .. } if found == other),
            "{error}"
        );
    }
    assert!(matches!(refused(&folder(&[("config.json", b"{}")])), StoreError::NoWeights { found: None, .. }));
}

#[test]
fn a_folder_that_asks_for_code_is_refused() {
    let auto = br#"{"auto_map": {"AutoModel": "modeling.Model"}}"#.as_slice();
    for (file, text) in
        [("config.json", auto), ("config.json", br#"{"model_file": "model.py"}"#), (TOKENIZER, auto)]
    {
        let mut files = vec![("config.json", b"{}".as_slice()), ("model.safetensors", &[])];
        files.push((file, text));
        let error = refused(&folder(&files));
        assert!(matches!(error, StoreError::CustomCode { .. }), "{error}");
        assert!(error.to_string().contains("never run"), "{error}");
    }
    let empty = folder(&[("config.json", br#"{"auto_map": {}}"#), ("model.safetensors", &weights(&["a"]))]);
    assert!(ModelFolder::open(empty.path()).is_ok());
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let folder = folder(&[
        ("config.json", b"{}"),
        ("model-a.safetensors", &weights(&["x"])),
        ("model-b.safetensors", &weights(&["x"])),
    ]);
    let words = refused(&folder).to_string();
    assert!(words.contains("tensor x") && words.contains("model-a.safetensors"), "{words}");
}

#[test]
fn a_damaged_file_is_named() {
    let folder = folder(&[("config.json", b"{}"), ("model.safetensors", b"not at all safetensors")]);
    assert!(refused(&folder).to_string().contains("model.safetensors: its header would take"));
}

#[test]
fn links_are_followed_and_broken_ones_named() {
    let blobs = folder(&[("c0ffee", &weights(&["a"])), ("beef", CONFIG_TEXT.as_bytes())]);
    let snapshot = folder(&[]);
    symlink(blobs.path().join("c0ffee"), snapshot.path().join("model.safetensors")).expect("linked");
    symlink(blobs.path().join("beef"), snapshot.path().join("config.json")).expect("linked");
    assert!(ModelFolder::open(snapshot.path()).is_ok());
    fs::remove_file(blobs.path().join("c0ffee")).expect("removed");
    let error = refused(&snapshot);
    assert!(
        matches!(&error, StoreError::BrokenLink { path } if path.ends_with("model.safetensors")),
        "{error}"
    );
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_block() {
    let folder = folder(&[("config.json", b"{}")]);
    let pipe = folder.path().join("model.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    assert!(refused(&folder).to_string().contains("not a regular file"));
}

#[test]
fn what_is_no_folder_or_has_no_config_says_so() {
    let empty = folder(&[]);
    assert!(matches!(refused(&empty), StoreError::NoConfig { .. }));
    let missing = empty.path().join("missing");
    assert!(matches!(ModelFolder::open(&missing), Err(StoreError::NotAFolder { .. })));
    assert!(matches!(refused(&folder(&[("config.json", b"[]")])), StoreError::BadConfig { .. }));
}

#[test]
fn a_config_is_bounded() {
    let folder = folder(&[]);
    let file = File::create(folder.path().join("config.json")).expect("made");
    file.set_len(CONFIG_BYTES_MAX + 1).expect("grown");
    assert!(matches!(refused(&folder), StoreError::BadConfig { .. }));
}
