//! `system_profiler SPDisplaysDataType -json`: the GPU and its cores.
//!
//! Owns the parsing. The first entry with cores is the chip's own GPU; screens and foreign cards have none.

use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gpu {
    pub(super) chip: String,
    pub(super) cores: u32,
}

/// `None` if no entry has cores.
pub(super) fn parse(text: &str) -> Option<Gpu> {
    let root: Value = serde_json::from_str(text).ok()?;
    root.get("SPDisplaysDataType")?.as_array()?.iter().find_map(gpu)
}

fn gpu(entry: &Value) -> Option<Gpu> {
    // A number in quotes.
    let cores = entry.get("sppci_cores")?.as_str()?.trim().parse().ok()?;
    let chip = entry.get("sppci_model").or_else(|| entry.get("_name")).and_then(Value::as_str);
    Some(Gpu { chip: chip.unwrap_or_default().to_owned(), cores })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_chips_gpu_is_found_beside_screens() {
        let expected = Gpu { chip: "Apple M4 Max".to_owned(), cores: 40 };
        assert_eq!(parse(include_str!("displays.json")), Some(expected));
    }

    #[test]
    fn an_entry_without_cores_is_passed_over() {
        let foreign =
            r#"{"SPDisplaysDataType": [{"_name": "AMD Radeon"}, {"_name": "Apple M1", "sppci_cores": "8"}]}"#;
        assert_eq!(parse(foreign), Some(Gpu { chip: "Apple M1".to_owned(), cores: 8 }));
        for text in [
            "",
            "[]",
            "{}",
            r#"{"SPDisplaysDataType": []}"#,
            r#"{"SPDisplaysDataType": [{"sppci_cores": "many"}]}"#,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_passed_over(text in ".{0,100}") {
            let _ = parse(&text);
        }
    }
}
