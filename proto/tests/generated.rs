//! Keeps the checked-in code in step with the proto files: the build needs no protobuf compiler, and a forgotten regeneration
//! is a red test. `UPDATE=1 cargo test -p proto` writes it anew.

use std::path::Path;

/// Proto file, its package, and the messages whose bytes are shared instead of copied.
const FILES: [(&str, &str, &[&str]); 2] = [
    (
        "cluster.proto",
        "mlx.cluster.v1",
        &[
            ".mlx.cluster.v1.ModelCardChunk",
            ".mlx.cluster.v1.KeepAnswerRequest.answer",
            ".mlx.cluster.v1.FetchAnswerReply.answer",
        ],
    ),
    ("raft.proto", "mlx.raft.v1", &[".mlx.raft.v1.SnapshotChunk"]),
];

#[test]
fn the_generated_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, package, shared) in FILES {
        let descriptors = protox::compile([root.join(file)], [root]).expect("the proto file compiles");
        let out = tempfile::tempdir().expect("a scratch folder");
        let mut builder = tonic_prost_build::configure().out_dir(out.path());
        for message in shared {
            builder = builder.bytes(message);
        }
        builder.compile_fds(descriptors).expect("code is generated");
        let fresh =
            std::fs::read_to_string(out.path().join(format!("{package}.rs"))).expect("the generated file");
        let kept = root.join(format!("src/generated/{package}.rs"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&kept, &fresh).expect("the kept file is writable");
        }
        let kept = std::fs::read_to_string(kept).unwrap_or_default();
        assert!(kept == fresh, "{package} is stale: run UPDATE=1 cargo test -p proto --test generated");
    }
}
