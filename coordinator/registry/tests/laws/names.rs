//! The law of model names: one rule, wherever a name comes from.

use proptest::prelude::*;
use registry::ModelName;

use crate::generator::config;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_text_is_a_model_name_or_not_alike_everywhere(text in "[a-c./_ -]{0,8}") {
        let name = ModelName::new(&text);
        let json = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(serde_json::from_str::<ModelName>(&json).ok(), name.clone().ok());
        // The rule said another way: a relative path that goes down at every step.
        let path = std::path::Path::new(&text);
        let steps = path.components().filter(|step| matches!(step, std::path::Component::Normal(_))).count();
        let down_only = !text.is_empty() && steps == text.split('/').count() && !text.contains(' ');
        prop_assert_eq!(name.is_ok(), down_only);
    }
}
