//! The language of the scenarios: one command a line.
//!
//! Owns its parsing. Refuses a line it does not understand, so that a typing error is no silent success.
//!
//! ```text
//! found room at=1000
//! token t1 secret=a role=agent expires=100 uses=1
//! admit mini-07 key=07 token=t1 secret=a at=50
//! want 1 qwen3-4b hub:mlx-community/Qwen3-4B-4bit
//! unwant 1 qwen3-4b
//! revoke 1
//! ```

use std::collections::BTreeMap;

use registry::{ClusterId, Command, ModelName, ModelSource, NodeId, Role, TokenId};

/// Reads one line of a scenario.
pub(crate) fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let verb = words.next().unwrap();
    let (settings, names): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
    let settings: BTreeMap<&str, &str> = settings.iter().filter_map(|word| word.split_once('=')).collect();
    let set = |key: &str| *settings.get(key).unwrap_or_else(|| panic!("no {key}= in: {line}"));
    let number = |key: &str| set(key).parse::<u64>().unwrap();
    let name = |index: usize| (*names.get(index).unwrap_or_else(|| panic!("too short: {line}"))).to_owned();
    let node = || NodeId(name(0).parse().unwrap());
    match verb {
        "found" => Command::FoundCluster {
            cluster: ClusterId(name(0)),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "key".to_owned(),
            at_unix_ms: number("at"),
        },
        "token" => Command::IssueJoinToken {
            id: TokenId(name(0)),
            secret_hash: hash(set("secret")),
            role: role(set("role")),
            expires_at_unix_ms: number("expires"),
            uses: settings.get("uses").map(|uses| uses.parse().unwrap()),
        },
        "admit" => Command::AdmitNode {
            token: TokenId(set("token").to_owned()),
            secret_hash: hash(set("secret")),
            name: name(0),
            public_key: set("key").to_owned(),
            at_unix_ms: number("at"),
        },
        "revoke" => Command::RevokeNode { node: node() },
        "want" => Command::WantModel { node: node(), model: model(&name(1)), source: source(&name(2)) },
        "unwant" => Command::UnwantModel { node: node(), model: model(&name(1)) },
        _ => panic!("not a command: {line}"),
    }
}

/// A hash that is as good as any: the word, repeated.
fn hash(word: &str) -> [u8; 32] {
    let mut bytes = word.bytes().cycle();
    std::array::from_fn(|_| bytes.next().unwrap())
}

fn role(word: &str) -> Role {
    match word {
        "agent" => Role::Agent,
        "coordinator" => Role::Coordinator,
        "client" => Role::Client,
        _ => panic!("not a role: {word}"),
    }
}

fn model(name: &str) -> ModelName {
    ModelName::new(name).unwrap()
}

fn source(word: &str) -> ModelSource {
    match word.split_once(':') {
        Some(("path", path)) => ModelSource::Path(path.to_owned()),
        Some(("hub", id)) => ModelSource::Hub(id.to_owned()),
        Some(_) => panic!("not a source: {word}"),
        None if word == "demo" => ModelSource::Demo,
        None => panic!("not a source: {word}"),
    }
}
