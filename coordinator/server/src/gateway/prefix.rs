//! A prompt as a chain of hashes: what two prompts have in common shows in their first links.
//!
//! Owns the chain. Each link is the hash of one block of token ids under the link before it as the key, so it stands for its
//! block and for all before. The root stands for the tenant and the model: another tenant's equal prompt has other links, and
//! nobody learns from a cache hit what somebody else asked. Refuses blocks that are not whole: a runtime keeps rows by blocks.

use std::sync::Arc;

use super::hash_keys::HashKey;
use super::limits::{PREFIX_BLOCK_TOKENS, PREFIX_BLOCKS_MAX};

const BLOCK_BYTES: usize = PREFIX_BLOCK_TOKENS * size_of::<u32>();

/// What is left of a prompt when only hashes may be kept.
pub(crate) struct Prefix {
    /// One for each whole block, in order.
    pub(crate) blocks: Arc<[u64]>,
    /// Of every token, whole block or not; the salt does not count.
    pub(crate) prompt: HashKey,
}

impl Prefix {
    /// Prompts under different salts have no block in common.
    pub(crate) fn of(root: HashKey, prompt: &[u32], salt: Option<&str>) -> Self {
        let whole_blocks = prompt.chunks_exact(PREFIX_BLOCK_TOKENS).take(PREFIX_BLOCKS_MAX);
        let mut blocks = Vec::with_capacity(whole_blocks.len());
        let mut link = root;
        for block in whole_blocks {
            link = link.next(&bytes_of(block));
            blocks.push(salt.map_or(link, |salt| link.derived(&[salt.as_bytes()])).as_number());
        }
        let rest = prompt.get(blocks.len() * PREFIX_BLOCK_TOKENS..).unwrap_or_default();
        let rest: Vec<u8> = rest.iter().flat_map(|id| id.to_le_bytes()).collect();
        Self { blocks: blocks.into(), prompt: link.derived(&[b"rest", &rest]) }
    }
}

fn bytes_of(block: &[u32]) -> [u8; BLOCK_BYTES] {
    let mut bytes = [0; BLOCK_BYTES];
    for (out, id) in bytes.chunks_exact_mut(size_of::<u32>()).zip(block) {
        out.copy_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::hash_keys::HashKeys;

    fn root(name: &str) -> HashKey {
        HashKeys::new([7; 32]).prompts.derived(&[name.as_bytes()])
    }

    fn blocks(prompt: &[u32]) -> Vec<u64> {
        Prefix::of(root("a"), prompt, None).blocks.to_vec()
    }

    fn whole(prompt: &[u32]) -> u64 {
        Prefix::of(root("a"), prompt, None).prompt.as_number()
    }

    fn counting(tokens: usize) -> Vec<u32> {
        (0..).take(tokens).collect()
    }

    #[test]
    fn the_chain_is_the_same_in_every_version() {
        // Worked out with another implementation of BLAKE3.
        let links = [3_496_248_877_732_064_277, 16_985_065_113_728_869_933, 14_146_757_257_016_808_206];
        assert_eq!(blocks(&counting(3 * 256)), links);
        let salted = Prefix::of(root("a"), &counting(256), Some("salt")).blocks;
        assert_eq!(salted.as_ref(), [4_950_414_393_807_127_234]);
    }

    #[test]
    fn only_whole_blocks_have_a_link_and_every_token_counts_for_the_whole() {
        for (tokens, links) in [(0, 0), (255, 0), (256, 1), (257, 1), (511, 1), (512, 2)] {
            assert_eq!(blocks(&counting(tokens)).len(), links, "{tokens}");
            assert_ne!(whole(&counting(tokens)), whole(&counting(tokens + 1)), "{tokens}");
        }
    }

    #[test]
    fn a_prompt_beyond_the_bound_has_no_more_links_and_is_still_told_from_others() {
        let most = PREFIX_BLOCKS_MAX * PREFIX_BLOCK_TOKENS;
        let (long, mut other) = (counting(most + 600), counting(most + 600));
        *other.last_mut().unwrap() += 1;
        assert_eq!(blocks(&long).len(), PREFIX_BLOCKS_MAX);
        assert_eq!(blocks(&long), blocks(&other));
        assert_ne!(whole(&long), whole(&other));
    }

    #[test]
    fn a_salt_changes_every_block_and_not_the_whole() {
        let prompt = counting(600);
        let [plain, one, two] =
            [None, Some("one"), Some("two")].map(|salt| Prefix::of(root("a"), &prompt, salt));
        for (left, right) in [(&plain, &one), (&one, &two), (&plain, &two)] {
            assert!(left.blocks.iter().all(|block| !right.blocks.contains(block)));
            assert_eq!(left.prompt.as_number(), right.prompt.as_number());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn equal_tokens_have_equal_links_up_to_the_first_difference(
            prompt in prop::collection::vec(any::<u32>(), 256..1_200),
            at in any::<prop::sample::Index>(),
            bit in 0_u32..32,
        ) {
            let at = at.index(prompt.len());
            let mut other = prompt.clone();
            other[at] ^= 1 << bit;
            let (left, right) = (blocks(&prompt), blocks(&other));
            let same = (at / PREFIX_BLOCK_TOKENS).min(left.len());
            prop_assert_eq!(&left[..same], &right[..same]);
            prop_assert!(left[same..].iter().all(|link| !right.contains(link)));
            prop_assert_ne!(whole(&prompt), whole(&other));
        }

        #[test]
        fn a_longer_prompt_keeps_the_links_of_the_shorter(prompt in prop::collection::vec(any::<u32>(), 0..1_200), cut in any::<prop::sample::Index>()) {
            let shorter = &prompt[..cut.index(prompt.len() + 1)];
            prop_assert!(blocks(&prompt).starts_with(&blocks(shorter)));
        }

        #[test]
        fn under_another_root_every_link_differs(prompt in prop::collection::vec(any::<u32>(), 256..1_200)) {
            let (one, other) = (Prefix::of(root("a"), &prompt, None), Prefix::of(root("b"), &prompt, None));
            prop_assert!(one.blocks.iter().all(|link| !other.blocks.contains(link)));
            prop_assert_ne!(one.prompt.as_number(), other.prompt.as_number());
        }

        #[test]
        fn equal_blocks_at_other_places_have_other_links(block in prop::collection::vec(any::<u32>(), 256)) {
            let links = blocks(&block.repeat(3));
            prop_assert!(links[0] != links[1] && links[1] != links[2] && links[0] != links[2]);
        }
    }
}
