//! Whether anything of a runtime is still there.
//!
//! Owns the answer for a process group. A process that hangs in the kernel, as in a GPU driver, outlives SIGKILL and the guard
//! that led it, and keeps its memory. Refuses to count the dead: in a container whose first process collects nobody, they stay
//! listed for ever.

use rustix::process::{Pid, test_kill_process_group};
use tokio::time::sleep;

use crate::limits;

/// Waits until nothing in the group lives. Without an end of its own: until then the memory is not free.
pub(super) async fn gone(group: Pid) {
    while alive(group) {
        sleep(limits::GROUP_POLL).await;
    }
}

pub(super) fn alive(group: Pid) -> bool {
    // macOS does not count the dead here, and its launchd collects them.
    test_kill_process_group(group).is_ok() && listed_alive(group)
}

#[cfg(not(target_os = "linux"))]
fn listed_alive(_: Pid) -> bool {
    true
}

#[cfg(target_os = "linux")]
fn listed_alive(group: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat"));
        stat.is_ok_and(|stat| lives_in(&stat, group.as_raw_nonzero().get()))
    })
}

/// By `/proc/<pid>/stat`, see proc(5). The name of a process may hold anything; what follows its last bracket is plain.
#[cfg(target_os = "linux")]
fn lives_in(stat: &str, group: i32) -> bool {
    let Some((_, facts)) = stat.rsplit_once(") ") else { return false };
    let facts: Vec<_> = facts.split_ascii_whitespace().collect();
    let number = |at: usize| facts.get(at).and_then(|fact| fact.parse::<i32>().ok());
    let dead = facts.first().is_none_or(|state| matches!(*state, "Z" | "X"));
    // The first thread may be dead while another one hangs.
    number(2) == Some(group) && (!dead || number(17).is_some_and(|threads| threads > 1))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn stat(state: &str, group: i32, threads: i32) -> String {
        format!("7 (a) Z 1 5 (b)) {state} 1 {group} 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 0 0")
    }

    #[test]
    fn who_hangs_in_the_kernel_lives_and_a_corpse_does_not() {
        for (state, threads, lives) in
            [("S", 1, true), ("D", 1, true), ("T", 3, true), ("Z", 1, false), ("Z", 2, true), ("X", 1, false)]
        {
            assert_eq!(lives_in(&stat(state, 5, threads), 5), lives, "{state} {threads}");
        }
    }

    #[test]
    fn others_and_what_cannot_be_read_do_not_count() {
        assert!(!lives_in(&stat("S", 6, 1), 5));
        assert!(!lives_in("", 5) && !lives_in("7 (a) S 1", 5));
    }
}
