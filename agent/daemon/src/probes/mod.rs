//! What this machine is and how much of its memory is free.
//!
//! Owns the questions and their answers for Linux and for macOS. Everything compiles everywhere: the Mac's facts come from its
//! own tools as child processes, so that only running them needs a Mac, and their parsing is tested on text. Refuses to fail: a
//! question without an answer is a zero or an empty word, and the report says so.

mod linux;
mod mac;
mod budget;
mod chips;
mod seeds;
mod tool;
mod limits;

pub(crate) use seeds::{SeedRates, seed_rates};

/// The machine as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hardware {
    pub(crate) chip: String,
    pub(crate) os: String,
    pub(crate) cores: u32,
    pub(crate) memory_bytes: u64,
    /// What models may take in all; an estimate, see `budget`.
    pub(crate) gpu_budget_bytes: u64,
    /// Zero on machines without a GPU that MLX uses.
    pub(crate) gpu_cores: u32,
}

/// The machine's memory at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) used_bytes: u64,
    /// What a new process could get without pushing others out.
    pub(crate) free_bytes: u64,
}

/// Describes the machine. Blocks for some seconds on a Mac: call it once.
pub(crate) fn hardware() -> Hardware {
    if cfg!(target_os = "macos") { mac::hardware(&tool::run) } else { linux::Kernel::running().hardware() }
}

/// Asks for the memory. Blocks for some milliseconds on a Mac.
pub(crate) fn memory() -> Memory {
    if cfg!(target_os = "macos") { mac::memory(&tool::run) } else { linux::Kernel::running().memory() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_a_budget_within_it() {
        let (hardware, memory) = (hardware(), memory());
        assert!(hardware.cores > 0 && !hardware.os.is_empty(), "{hardware:?}");
        assert!(
            0 < hardware.gpu_budget_bytes && hardware.gpu_budget_bytes <= hardware.memory_bytes,
            "{hardware:?}"
        );
        assert!(memory.used_bytes > 0 && memory.free_bytes <= hardware.memory_bytes, "{memory:?}");
    }
}
