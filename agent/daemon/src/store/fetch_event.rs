//! What a download says: one JSON object a line on its standard output.
//!
//! Owns the reading. Refuses to fail on a line it does not know: a later runtime may say more.

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum FetchEvent {
    Progress {
        done_bytes: u64,
        total_bytes: u64,
        #[serde(default)]
        file: String,
    },
    Done {
        path: String,
    },
    Error {
        code: String,
        text: String,
    },
    #[serde(other)]
    Unknown,
}

impl FetchEvent {
    pub(super) fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or(Self::Unknown)
    }
}

/// Bytes for people, in the decimal units disks and hubs use.
pub(super) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two figures")]
    let bytes = bytes as f64;
    match bytes {
        bytes if bytes < 1e6 => format!("{:.0} kB", bytes / 1e3),
        bytes if bytes < 1e9 => format!("{:.0} MB", bytes / 1e6),
        bytes => format!("{:.1} GB", bytes / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_event_is_read() {
        let progress = r#"{"event": "progress", "done_bytes": 5, "total_bytes": 9, "file": "model.safetensors", "later": 1}"#;
        let file = "model.safetensors".to_owned();
        assert_eq!(FetchEvent::parse(progress), FetchEvent::Progress { done_bytes: 5, total_bytes: 9, file });
        let done = r#"{"event": "done", "path": "/m"}"#;
        assert_eq!(FetchEvent::parse(done), FetchEvent::Done { path: "/m".to_owned() });
        let error = r#"{"event": "error", "code": "offline", "text": "words"}"#;
        let expected = FetchEvent::Error { code: "offline".to_owned(), text: "words".to_owned() };
        assert_eq!(FetchEvent::parse(error), expected);
    }

    #[test]
    fn other_lines_are_unknown_and_not_faults() {
        for line in [
            "",
            "{}",
            "warning: x",
            r#"{"event": "resumed", "at": 3}"#,
            r#"{"event": "progress", "done_bytes": -1}"#,
            "[]",
        ] {
            assert_eq!(FetchEvent::parse(line), FetchEvent::Unknown, "{line}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        assert_eq!(
            [size(0), size(12_345), size(78_100_000), size(4_510_000_000)],
            ["0 kB", "12 kB", "78 MB", "4.5 GB"]
        );
    }

    proptest! {
        #[test]
        fn any_line_is_an_event(line in ".{0,100}") {
            let _ = FetchEvent::parse(&line);
        }
    }
}
