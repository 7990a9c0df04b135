//! Where the wire's words become the registry's, and back.
//!
//! Owns the translation of model sources and wishes. Refuses names and sources the registry would not take, before anything
//! is proposed.

use std::collections::BTreeMap;

use proto::v1::model_source::Source;
use proto::v1::{ModelSource as WireSource, WantedModel};
use registry::{Command, ModelName, ModelSource, NodeId, Registry};

/// An agent offered something that cannot be wanted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum OfferError {
    #[error("{0:?} is no model name: letters, digits, '.', '_', '-' in parts divided by '/'")]
    Name(String),
    #[error("the offer of {0} names no source")]
    Source(String),
}

pub(crate) fn offers(models: &[WantedModel]) -> Result<BTreeMap<ModelName, ModelSource>, OfferError> {
    models.iter().map(offer).collect()
}

fn offer(model: &WantedModel) -> Result<(ModelName, ModelSource), OfferError> {
    let name = ModelName::new(&model.model).map_err(|_| OfferError::Name(model.model.clone()))?;
    let source = match model.source.as_ref().and_then(|source| source.source.as_ref()) {
        Some(Source::Path(path)) => ModelSource::Path(path.clone()),
        Some(Source::Hub(id)) => ModelSource::Hub(id.clone()),
        Some(Source::Demo(_)) => ModelSource::Demo,
        None => return Err(OfferError::Source(model.model.clone())),
    };
    Ok((name, source))
}

/// The commands that make exactly the offered models wanted on this node.
pub(crate) fn adoption(
    registry: &Registry,
    node: NodeId,
    offers: &BTreeMap<ModelName, ModelSource>,
) -> Vec<Command> {
    let current: BTreeMap<_, _> =
        registry.wanted_on(node).map(|(name, source)| (name.clone(), source.clone())).collect();
    let gone = current.keys().filter(|name| !offers.contains_key(*name));
    let unwant = gone.map(|name| Command::UnwantModel { node, model: name.clone() });
    let fresh = offers.iter().filter(|(name, source)| current.get(*name) != Some(*source));
    let want =
        fresh.map(|(name, source)| Command::WantModel { node, model: name.clone(), source: source.clone() });
    unwant.chain(want).collect()
}

/// What the registry knows this node to offer, as the agent is told: held where memory is reserved for it, else prepared.
pub(crate) fn wanted(registry: &Registry, node: NodeId) -> Vec<WantedModel> {
    let wanted = registry.wanted_on(node);
    wanted
        .map(|(name, source)| {
            let source = match source {
                ModelSource::Path(path) => Source::Path(path.clone()),
                ModelSource::Hub(id) => Source::Hub(id.clone()),
                ModelSource::Demo => Source::Demo(true),
            };
            let offered_only = !registry.is_placed(node, name);
            let source = Some(WireSource { source: Some(source) });
            WantedModel { model: name.to_string(), source, offered_only }
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use registry::{Reply, Role, TokenId};

    pub(crate) fn founded() -> (Registry, NodeId) {
        let mut registry = Registry::default();
        let found = Command::FoundCluster {
            cluster: registry::ClusterId("c".to_owned()),
            ca_certificate_pem: "ca".to_owned(),
            ca_key_pem: "key".to_owned(),
            at_unix_ms: 1,
        };
        assert_eq!(registry.apply(&found), Reply::Done);
        let token = TokenId("t".to_owned());
        let issue = Command::IssueJoinToken {
            id: token.clone(),
            secret_hash: [1; 32],
            role: Role::Agent,
            expires_at_unix_ms: 1_000,
            uses: None,
            name: None,
        };
        assert_eq!(registry.apply(&issue), Reply::Done);
        let admit = Command::AdmitNode {
            token,
            secret_hash: [1; 32],
            name: "mini".to_owned(),
            public_key: "ab".repeat(32),
            at_unix_ms: 2,
        };
        let Reply::NodeAdmitted { node, .. } = registry.apply(&admit) else { panic!("not admitted") };
        (registry, node)
    }

    fn offered(name: &str, source: Option<Source>) -> WantedModel {
        WantedModel {
            model: name.to_owned(),
            source: source.map(|source| WireSource { source: Some(source) }),
            offered_only: true,
        }
    }

    #[test]
    fn offers_replace_what_the_node_was_started_with_before() {
        let (mut registry, node) = founded();
        let first = offers(&[
            offered("a", Some(Source::Demo(true))),
            offered("b/c", Some(Source::Hub("b/c".to_owned()))),
        ]);
        for command in adoption(&registry, node, &first.expect("fine")) {
            assert_eq!(registry.apply(&command), Reply::Done);
        }
        assert_eq!(wanted(&registry, node).len(), 2);
        let second = offers(&[offered("a", Some(Source::Path("/m/a".to_owned())))]).expect("fine");
        for command in adoption(&registry, node, &second) {
            assert_eq!(registry.apply(&command), Reply::Done);
        }
        assert_eq!(wanted(&registry, node), [offered("a", Some(Source::Path("/m/a".to_owned())))]);
        assert_eq!(adoption(&registry, node, &second), [], "nothing is proposed when nothing changes");
    }

    #[test]
    fn a_model_is_held_once_memory_is_reserved_for_it() {
        let (mut registry, node) = founded();
        let offers = offers(&[offered("a", Some(Source::Demo(true)))]).expect("fine");
        let mut commands = adoption(&registry, node, &offers);
        let model = ModelName::new("a").expect("a name");
        commands.push(Command::SetBudget { node, bytes: 10 });
        commands.push(Command::PlaceModel { node, model: model.clone(), bytes: 10 });
        for command in commands {
            assert_eq!(registry.apply(&command), Reply::Done);
        }
        assert!(!wanted(&registry, node)[0].offered_only);
        registry.apply(&Command::UnplaceModel { node, model });
        assert!(wanted(&registry, node)[0].offered_only);
    }

    #[test]
    fn a_name_that_is_a_path_is_refused() {
        for name in ["..", "a/../b", "/etc", "", "a b"] {
            let refused = offers(&[offered(name, Some(Source::Demo(true)))]);
            assert_eq!(refused, Err(OfferError::Name(name.to_owned())));
        }
        assert_eq!(offers(&[offered("a", None)]), Err(OfferError::Source("a".to_owned())));
    }
}
