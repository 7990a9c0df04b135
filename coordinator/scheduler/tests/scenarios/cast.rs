//! The names in a scenario and the numbers the scheduler knows them by. Nodes are `mini-<number>`; models get their numbers in
//! the order in which the story mentions them.

use scheduler::{ModelId, Names, NodeId, RequestId};

#[derive(Default)]
pub(crate) struct Cast {
    models: Vec<String>,
}

impl Cast {
    pub(crate) fn model(&mut self, name: &str) -> ModelId {
        let known = self.models.iter().position(|model| model == name);
        let index = known.unwrap_or_else(|| {
            self.models.push(name.to_owned());
            self.models.len() - 1
        });
        ModelId(u32::try_from(index).expect("few models"))
    }
}

pub(crate) fn node(name: &str) -> Result<NodeId, String> {
    let number = name.strip_prefix("mini-").and_then(|number| number.parse().ok());
    number.map(NodeId).ok_or_else(|| format!("`{name}` is not a node like mini-1"))
}

pub(crate) fn request(number: &str) -> Result<RequestId, String> {
    number.parse().map(RequestId).map_err(|_| format!("`{number}` is not the number of a request"))
}

impl Names for Cast {
    fn model(&self, model: ModelId) -> String {
        self.models.get(model.0 as usize).cloned().unwrap_or_else(|| format!("model {}", model.0))
    }

    fn node(&self, node: NodeId) -> String {
        format!("mini-{}", node.0)
    }
}
