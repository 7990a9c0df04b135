//! The laws of the settings that are read back: addresses, and the file of the coordinators.

use super::kept::Page;
use super::known::Known;
use crate::address::Address;
use crate::limits::{COORDINATORS_MAX, REVOKED_MAX};

/// A line for each address of the settings, and after an empty line the file. An address is printed as it is read; whatever the
/// file says, no more coordinators are talked to than the bound, none of them at the
/// address of another, and the file is written as it is read again.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (lines, file) = text.split_once("\n\n").unwrap_or((text, ""));
    let seeds: Vec<Address> = lines.lines().filter_map(|line| Address::parse(line).ok()).collect();
    for seed in &seeds {
        assert_eq!(Address::parse(&seed.to_string()).ok().as_ref(), Some(seed), "{seed} is another address");
    }
    let learned = serde_json::from_str::<Page>(file).map(|page| page.learned).unwrap_or_default();
    let known = Known::new(seeds, learned);
    let coordinators = known.coordinators();
    assert!(coordinators.len() <= COORDINATORS_MAX && known.learned().revoked().len() <= REVOKED_MAX);
    for (key, addresses) in &coordinators {
        let elsewhere =
            coordinators.iter().filter(|(other, _)| *other != key).flat_map(|(_, addresses)| addresses);
        assert!(
            elsewhere.into_iter().all(|other| !addresses.contains(other)),
            "one address, two coordinators"
        );
    }
    let written = serde_json::to_string(known.learned()).unwrap_or_default();
    let again = serde_json::from_str(&written).map(|learned| Known::new(Vec::new(), learned));
    assert_eq!(again.ok().map(|again| again.learned().clone()).as_ref(), Some(known.learned()));
}
