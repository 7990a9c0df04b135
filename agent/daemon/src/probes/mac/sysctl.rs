//! `sysctl NAME…`: one line `name: value` for each name it knows.
//!
//! Owns the parsing. Refuses nothing: a name that is not answered is absent.

use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Sysctl<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Sysctl<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(
            pairs
                .map(|(name, value)| (name.trim(), value.trim()))
                .filter(|(_, value)| !value.is_empty())
                .collect(),
        )
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_found_by_name() {
        let sysctl = Sysctl::parse("machdep.cpu.brand_string: Apple M2 Ultra\nhw.memsize: 206158430208\n");
        assert_eq!(sysctl.text("machdep.cpu.brand_string"), Some("Apple M2 Ultra"));
        assert_eq!(sysctl.number("hw.memsize"), Some(192 << 30));
    }

    #[test]
    fn what_is_not_answered_or_no_number_is_absent() {
        let sysctl =
            Sysctl::parse("sysctl: unknown oid 'iogpu.wired_limit_mb'\nempty:\nhw.ncpu: many\nhw.x: -1\n");
        assert_eq!(sysctl.text("iogpu.wired_limit_mb"), None);
        assert_eq!(sysctl.text("empty"), None);
        assert_eq!((sysctl.number("hw.ncpu"), sysctl.number("hw.x")), (None, None));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in ".{0,100}") {
            let sysctl = Sysctl::parse(&text);
            prop_assert!(sysctl.0.values().all(|value| !value.is_empty()));
        }
    }
}
