//! Work that may recurse as deep as somebody else's text says, on a stack that holds it.
//!
//! A stack that overflows ends the process, and no engine here counts how deep it goes. Owns the thread. Refuses to say how much is
//! enough: that follows from the bounds of the work.

use std::thread::{Builder, scope};

/// Runs `work` and waits for it. `None`: there is no room for such a stack, or it panicked.
pub(super) fn on_own_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> Option<T> {
    scope(|scope| {
        let thread = Builder::new().name("template".to_owned()).stack_size(bytes).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep(levels: usize) -> usize {
        let here = std::hint::black_box([levels; 32]);
        if levels == 0 { 0 } else { deep(levels - 1) + here[0] / here[31] }
    }

    #[test]
    fn the_stack_is_as_large_as_it_was_asked_to_be() {
        assert_eq!(on_own_stack(256 << 20, || deep(100_000)), Some(100_000));
    }
}
