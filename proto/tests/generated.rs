//! Keeps the checked-in code in step with `cluster.proto`: the build needs no protobuf compiler, and a forgotten regeneration
//! is a red test. `UPDATE=1 cargo test -p proto` writes it anew.

use std::path::Path;

#[test]
fn the_generated_code_matches_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile([root.join("cluster.proto")], [root]).expect("cluster.proto compiles");
    let out = tempfile::tempdir().expect("a scratch folder");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".mlx.cluster.v1.ModelCardChunk")
        .compile_fds(descriptors)
        .expect("code is generated");
    let fresh = std::fs::read_to_string(out.path().join("mlx.cluster.v1.rs")).expect("the generated file");
    let kept = root.join("src/generated/mlx.cluster.v1.rs");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&kept, &fresh).expect("the kept file is writable");
    }
    let kept = std::fs::read_to_string(kept).unwrap_or_default();
    assert!(kept == fresh, "src/generated is stale: run UPDATE=1 cargo test -p proto --test generated");
}
