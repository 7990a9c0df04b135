//! `mlx-serving explain`: why a request, a model or a node is where it is.
//!
//! Owns the way to the right page. Refuses to interpret: the words are the coordinator's, the same as on every other surface.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;

use crate::api::Api;
use crate::cli::{Explain, Output, Subject};

pub(crate) fn run(options: &Explain) -> anyhow::Result<()> {
    let document = Api::of(&options.api)?.get(&path(options.subject, &options.id))?;
    let text = match options.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&document)?),
        Output::Table => words(&document),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn path(subject: Subject, id: &str) -> String {
    let page = match subject {
        Subject::Request => "request",
        Subject::Model => "model",
        Subject::Node => "node",
    };
    format!("/api/v1/explain/{page}/{}", escaped(id))
}

fn words(document: &Value) -> String {
    format!("{}\n", document["words"].as_str().unwrap_or("the coordinator says nothing about it"))
}

/// Whatever could end or divide a path is escaped; the slashes of a model's name may stay.
fn escaped(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_subject_has_its_page() {
        let org = path(Subject::Model, "mlx-community/Qwen3-4B-4bit");
        assert_eq!(org, "/api/v1/explain/model/mlx-community/Qwen3-4B-4bit");
        assert_eq!(path(Subject::Node, "mini-07"), "/api/v1/explain/node/mini-07");
        assert_eq!(path(Subject::Request, "req_0af3"), "/api/v1/explain/request/req_0af3");
    }

    #[test]
    fn no_name_leads_to_another_page() {
        assert_eq!(escaped("Ada's Mac"), "Ada%27s%20Mac");
        assert_eq!(escaped("a?b#c%d"), "a%3Fb%23c%25d");
        assert_eq!(escaped("日"), "%E6%97%A5");
    }

    #[test]
    fn people_read_the_words_and_nothing_else() {
        assert_eq!(
            words(&json!({"words": "It waits.\n  mini-07: full", "request": 7})),
            "It waits.\n  mini-07: full\n"
        );
        assert_eq!(words(&json!({})), "the coordinator says nothing about it\n");
    }
}
