//! A Linux machine: its kernel's files, and the limits of the control group it runs in.
//!
//! Owns their reading; a container's limit counts where it is lower than the machine. MLX runs on the processor here, so there
//! are no GPU cores. Refuses cgroup version 1, whose limits are ignored.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::limits::KERNEL_FILE_BYTES_MAX;
use super::{Hardware, Memory, budget};

/// Where the kernel's files are; tests bring a folder of their own.
pub(super) struct Kernel {
    root: PathBuf,
}

impl Kernel {
    pub(super) fn running() -> Self {
        Self { root: PathBuf::from("/") }
    }

    pub(super) fn hardware(&self) -> Hardware {
        let chip = self.read("proc/cpuinfo").as_deref().and_then(chip);
        let memory_bytes = self.memory_bytes();
        let cores = std::thread::available_parallelism().ok();
        let release = self.read("proc/sys/kernel/osrelease").unwrap_or_default();
        Hardware {
            chip: chip.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            os: format!("Linux {}", release.trim()).trim_end().to_owned(),
            cores: cores.and_then(|cores| u32::try_from(cores.get()).ok()).unwrap_or_default(),
            memory_bytes,
            gpu_budget_bytes: budget::processor(memory_bytes),
            gpu_cores: 0,
        }
    }

    pub(super) fn memory(&self) -> Memory {
        let info = self.read("proc/meminfo").unwrap_or_default();
        let total_bytes = kibibytes(&info, "MemTotal").unwrap_or_default();
        let available_bytes = kibibytes(&info, "MemAvailable").unwrap_or_default();
        let machine = Memory {
            used_bytes: total_bytes.saturating_sub(available_bytes),
            free_bytes: available_bytes.min(total_bytes),
        };
        // The tightest of the groups decides what is free.
        let groups = self.groups().into_iter().filter_map(|group| self.group_memory(&group));
        groups.fold(
            machine,
            |tightest, group| if group.free_bytes < tightest.free_bytes { group } else { tightest },
        )
    }

    fn memory_bytes(&self) -> u64 {
        let info = self.read("proc/meminfo").unwrap_or_default();
        let total_bytes = kibibytes(&info, "MemTotal").unwrap_or_default();
        let limits = self.groups().into_iter().filter_map(|group| self.number(&group.join("memory.max")));
        limits.fold(total_bytes, u64::min)
    }

    /// Memory within a group's limit, if it has one. Files it has read can be dropped and count as free.
    fn group_memory(&self, group: &Path) -> Option<Memory> {
        let limit_bytes = self.number(&group.join("memory.max"))?;
        let current_bytes = self.number(&group.join("memory.current"))?;
        let stat = self.read(group.join("memory.stat")).unwrap_or_default();
        let file_bytes =
            stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
        let used_bytes = current_bytes.saturating_sub(file_bytes.unwrap_or_default());
        Some(Memory { used_bytes, free_bytes: limit_bytes.saturating_sub(used_bytes) })
    }

    /// Our control group (version 2) and all above it, as folders.
    fn groups(&self) -> Vec<PathBuf> {
        let own = self.read("proc/self/cgroup").unwrap_or_default();
        let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
        let below = Path::new(own);
        if below.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Vec::new();
        }
        let top = Path::new("sys/fs/cgroup");
        below.ancestors().map(|group| top.join(group)).collect()
    }

    fn number(&self, path: &Path) -> Option<u64> {
        self.read(path)?.trim().parse().ok()
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut text = Vec::new();
        File::open(self.root.join(path)).ok()?.take(KERNEL_FILE_BYTES_MAX).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// `model name : AMD EPYC` of the first core; ARM kernels have none.
fn chip(cpuinfo: &str) -> Option<String> {
    let names = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let name = names.filter(|(key, _)| key.trim() == "model name").map(|(_, name)| name.trim()).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// `MemTotal:       24586456 kB`, in bytes.
fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let number: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1_024)
}

#[cfg(test)]
#[path = "linux_tests.rs"]
mod tests;
