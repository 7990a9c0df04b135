//! Commands for tests: a founded registry with one agent whose wanted models serve as numbered registers.

use registry::{ClusterId, Command, ModelName, ModelSource, NodeId, Registry, Role, TokenId};

/// What makes a fresh registry ready for [`set`].
pub(super) fn founding() -> Vec<Command> {
    let token = TokenId("token".to_owned());
    vec![
        Command::FoundCluster {
            cluster: ClusterId("test".to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "canary-key-material".to_owned(),
            at_unix_ms: 1,
        },
        Command::IssueJoinToken {
            id: token.clone(),
            secret_hash: [7; 32],
            role: Role::Agent,
            expires_at_unix_ms: u64::MAX,
            uses: None,
            name: None,
        },
        Command::AdmitNode {
            token,
            secret_hash: [7; 32],
            name: "mini".to_owned(),
            public_key: "ab".repeat(32),
            at_unix_ms: 2,
        },
    ]
}

/// Registers `value` under `register`, of which there are 64.
pub(super) fn set(register: u64, value: u64) -> Command {
    let model = ModelName::new(&format!("register-{register}")).unwrap();
    Command::WantModel { node: NodeId(1), model, source: ModelSource::Path(format!("/{value}")) }
}

/// The value of a register.
pub(super) fn get(registry: &Registry, register: u64) -> Option<u64> {
    let name = format!("register-{register}");
    registry.wanted_on(NodeId(1)).find_map(|(model, source)| match source {
        ModelSource::Path(path) if model.as_str() == name => path.strip_prefix('/')?.parse().ok(),
        ModelSource::Path(_) | ModelSource::Hub(_) | ModelSource::Demo => None,
    })
}
