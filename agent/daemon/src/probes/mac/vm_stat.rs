//! `vm_stat`: the pages of a Mac's memory by what they are used for.
//!
//! Owns the parsing and the sum that Activity Monitor calls "memory used": pages of programs without those they gave up, wired
//! pages, and the store of compressed ones. Pages of files are not counted; they can be dropped.

/// Bytes in use; `None` if the text does not say.
pub(super) fn used_bytes(text: &str) -> Option<u64> {
    let page_bytes = page_bytes(text)?;
    let programs = pages(text, "Anonymous pages")?.saturating_sub(pages(text, "Pages purgeable")?);
    let wired = pages(text, "Pages wired down")?;
    let compressed = pages(text, "Pages occupied by compressor")?;
    programs.checked_add(wired)?.checked_add(compressed)?.checked_mul(page_bytes)
}

/// `Mach Virtual Memory Statistics: (page size of 16384 bytes)`.
fn page_bytes(text: &str) -> Option<u64> {
    let (_, rest) = text.lines().next()?.split_once("page size of ")?;
    rest.split(' ').next()?.parse().ok()
}

/// `Pages wired down:                           300000.`
fn pages(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = include_str!("vm_stat.txt");

    #[test]
    fn used_is_programs_and_wired_and_compressed() {
        assert_eq!(used_bytes(TEXT), Some((400_000 - 20_000 + 300_000 + 50_000) * 16_384));
    }

    #[test]
    fn a_line_that_is_missing_or_odd_gives_no_answer() {
        for name in [
            "page size of",
            "Anonymous pages",
            "Pages purgeable",
            "Pages wired down",
            "Pages occupied by compressor",
        ] {
            assert_eq!(used_bytes(&TEXT.replace(name, "Something else")), None, "{name}");
        }
        assert_eq!(used_bytes(&TEXT.replace("300000.", "many.")), None);
        assert_eq!(used_bytes(&TEXT.replace("300000.", &format!("{}.", u64::MAX))), None);
        assert_eq!(used_bytes(""), None);
    }

    proptest! {
        #[test]
        fn any_numbers_give_a_sum_or_nothing(page in any::<u64>(), anonymous in any::<u64>(), wired in any::<u64>()) {
            let text = TEXT.replace("16384", &page.to_string()).replace("400000.", &format!("{anonymous}."));
            let _ = used_bytes(&text.replace("300000.", &format!("{wired}.")));
        }
    }
}
