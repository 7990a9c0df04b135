//! What the pages on the queue and the explanations are made of.
//!
//! Owns what the leader loop, the fleet and the catalogue can tell, in words and in numbers. Refuses to guess: a request is
//! explained by the log of decisions or not at all.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use proto::v1::ModelState;
use serde_json::{Value, json};

use crate::catalogue::Model;
use crate::fleet::Node;
use crate::gateway::{Document, Views};
use crate::leader::{QueueView, Subject, Waiter};
use crate::status::Sources;

/// Looks inside the running coordinator.
pub(crate) struct Inside {
    pub(crate) sources: Sources,
}

impl Views for Inside {
    fn queue(&self) -> BoxFuture<'_, Document> {
        Box::pin(async { queue(&self.sources.looking.queue().await) })
    }

    fn explain_request(&self, request: u64) -> BoxFuture<'_, Option<Document>> {
        Box::pin(async move {
            let words = self.sources.looking.explain(Subject::Request(request)).await?;
            Some(keys(json!({"words": words, "request": request})))
        })
    }

    fn explain_model<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Option<Document>> {
        Box::pin(async {
            let model = self.sources.catalogue.get(model)?;
            let words = self.sources.looking.explain(Subject::Model(model.name.clone())).await?;
            Some(explain_model(&model, &self.sources.looking.queue().await, &words))
        })
    }

    fn explain_node(&self, node: u64) -> BoxFuture<'_, Option<Document>> {
        Box::pin(async move {
            let (known, connected) = self.sources.fleet.nodes().await.remove(&node)?;
            let running = self.sources.looking.queue().await.running_on.get(&node).copied().unwrap_or(0);
            let words = self.sources.looking.explain(Subject::Node(node)).await?;
            Some(explain_node(node, &known, connected, running, &words))
        })
    }

    fn nodes(&self) -> BoxFuture<'_, BTreeMap<u64, String>> {
        Box::pin(async {
            let nodes = self.sources.fleet.nodes().await;
            nodes.into_iter().map(|(number, (node, _))| (number, node.hello.name)).collect()
        })
    }
}

fn queue(view: &QueueView) -> Document {
    let models = view.waiting.keys().chain(view.running.keys());
    let by_model: Document = models.map(|model| (model.clone(), counts(view, model))).collect();
    let waiting: Vec<Value> = view.line.iter().map(waiter).collect();
    keys(json!({"waiting": waiting, "by_model": by_model, "seconds_of_work": view.seconds_of_work}))
}

fn waiter(waiter: &Waiter) -> Value {
    json!({
        "request": waiter.request, "model": waiter.model, "tenant": waiter.tenant, "class": waiter.class,
        "waited_s": waiter.waited_s, "position": waiter.position, "eta_s": waiter.eta_s, "loading": waiter.loading
    })
}

/// `told` is what the scheduler says of it.
fn explain_model(model: &Model, view: &QueueView, told: &str) -> Document {
    let nodes = match model.nodes_ready {
        0 => format!("no node can run it: {}", model.status),
        1 => "1 node can run it".to_owned(),
        several => format!("{several} nodes can run it"),
    };
    let mut document = keys(counts(view, &model.name));
    let words = format!(
        "{}: {nodes}; {} running, {} waiting.\n{told}",
        model.name, document["running"], document["waiting"]
    );
    document.extend(keys(json!({"words": words, "model": model.name, "nodes_ready": model.nodes_ready})));
    document
}

fn explain_node(number: u64, node: &Node, connected: bool, running: usize, told: &str) -> Document {
    let state = if connected { "connected" } else { "not connected" };
    let held = node.report.models.iter().filter(|model| model.state() == ModelState::Ready);
    let models: Vec<_> = held.map(|model| model.model.clone()).collect();
    let holds = if models.is_empty() { "no model".to_owned() } else { models.join(", ") };
    let name = &node.hello.name;
    let words = format!("{name} (node {number}) is {state} and holds {holds}; {running} running.\n{told}");
    keys(json!({
        "words": words, "node": number, "name": name, "connected": connected, "running": running, "models": models
    }))
}

fn counts(view: &QueueView, model: &str) -> Value {
    let count = |counts: &BTreeMap<String, usize>| counts.get(model).copied().unwrap_or(0);
    json!({"waiting": count(&view.waiting), "running": count(&view.running)})
}

fn keys(value: Value) -> Document {
    match value {
        Value::Object(keys) => keys,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Document::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> QueueView {
        QueueView {
            waiting: [("demo".to_owned(), 2)].into(),
            running: [("demo".to_owned(), 1), ("other".to_owned(), 4)].into(),
            ..QueueView::default()
        }
    }

    #[test]
    fn the_queue_counts_every_model_that_waits_or_runs() {
        let by_model = json!({"demo": {"waiting": 2, "running": 1}, "other": {"waiting": 0, "running": 4}});
        assert_eq!(queue(&view())["by_model"], by_model);
    }

    #[test]
    fn a_model_is_explained_by_its_nodes_and_its_line() {
        let words = |nodes_ready| {
            let model = Model { nodes_ready, ..Model::unseen("demo") };
            explain_model(&model, &view(), "told")["words"].clone()
        };
        assert_eq!(words(1), "demo: 1 node can run it; 1 running, 2 waiting.\ntold");
        assert_eq!(words(3), "demo: 3 nodes can run it; 1 running, 2 waiting.\ntold");
        let none = "demo: no node can run it: no connected node holds it yet; 1 running, 2 waiting.\ntold";
        assert_eq!(words(0), none);
    }
}
