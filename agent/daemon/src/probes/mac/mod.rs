//! A Mac: its own tools as child processes, their words parsed.
//!
//! Owns what only macOS has: `sysctl`, `vm_stat`, `system_profiler`. No root, no private interfaces. The parsing is tested on
//! text in the form these tools print; it was not run on Apple hardware.

mod sysctl;
mod vm_stat;
mod displays;

use super::tool::Tools;
use super::{Hardware, Memory, budget};
use sysctl::Sysctl;

const SYSCTL: &str = "/usr/sbin/sysctl";
const VM_STAT: &str = "/usr/bin/vm_stat";
const SYSTEM_PROFILER: &str = "/usr/sbin/system_profiler";

const MEMORY_BYTES: &str = "hw.memsize";
const CHIP: &str = "machdep.cpu.brand_string";
const CORES: &str = "hw.ncpu";
const VERSION: &str = "kern.osproductversion";
const WIRED_LIMIT_MB: &str = "iogpu.wired_limit_mb";

pub(super) fn hardware(tools: Tools<'_>) -> Hardware {
    let answers = tools(SYSCTL, &[CHIP, MEMORY_BYTES, CORES, VERSION, WIRED_LIMIT_MB]).unwrap_or_default();
    let sysctl = Sysctl::parse(&answers);
    let gpu =
        tools(SYSTEM_PROFILER, &["SPDisplaysDataType", "-json"]).and_then(|text| displays::parse(&text));
    let gpu = gpu.unwrap_or_default();
    let memory_bytes = sysctl.number(MEMORY_BYTES).unwrap_or_default();
    Hardware {
        chip: sysctl.text(CHIP).map_or(gpu.chip, str::to_owned),
        os: format!("macOS {}", sysctl.text(VERSION).unwrap_or_default()).trim_end().to_owned(),
        cores: sysctl.number(CORES).and_then(|cores| u32::try_from(cores).ok()).unwrap_or_default(),
        memory_bytes,
        gpu_budget_bytes: budget::mac(memory_bytes, sysctl.number(WIRED_LIMIT_MB).unwrap_or_default()),
        gpu_cores: gpu.cores,
    }
}

pub(super) fn memory(tools: Tools<'_>) -> Memory {
    let total_bytes =
        tools(SYSCTL, &[MEMORY_BYTES]).and_then(|text| Sysctl::parse(&text).number(MEMORY_BYTES));
    let used_bytes = tools(VM_STAT, &[]).and_then(|text| vm_stat::used_bytes(&text));
    match total_bytes.zip(used_bytes) {
        Some((total_bytes, used_bytes)) => {
            let used_bytes = used_bytes.min(total_bytes);
            Memory { used_bytes, free_bytes: total_bytes.saturating_sub(used_bytes) }
        }
        // Half an answer would claim that everything is free.
        None => Memory::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tool;
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A Mac Studio's tools, with the wired limit given.
    fn studio(wired_limit: &'static str) -> impl Fn(&str, &[&str]) -> Option<String> {
        move |program, arguments| match (program, arguments) {
            (SYSCTL, [MEMORY_BYTES]) => Some("hw.memsize: 68719476736\n".to_owned()),
            (SYSCTL, _) => Some(format!(
                "machdep.cpu.brand_string: Apple M4 Max\nhw.memsize: 68719476736\nhw.ncpu: 16\n\
                 kern.osproductversion: 26.1\n{wired_limit}"
            )),
            (VM_STAT, []) => Some(include_str!("vm_stat.txt").to_owned()),
            (SYSTEM_PROFILER, ["SPDisplaysDataType", "-json"]) => {
                Some(include_str!("displays.json").to_owned())
            }
            other => panic!("unexpected question {other:?}"),
        }
    }

    #[test]
    fn a_mac_is_described_by_its_tools() {
        let expected = Hardware {
            chip: "Apple M4 Max".to_owned(),
            os: "macOS 26.1".to_owned(),
            cores: 16,
            memory_bytes: 64 * GIB,
            gpu_budget_bytes: 48 * GIB,
            gpu_cores: 40,
        };
        assert_eq!(hardware(&studio("iogpu.wired_limit_mb: 0\n")), expected);
        // Older systems do not know the name: sysctl says the rest all the same.
        assert_eq!(hardware(&studio("")), expected);
    }

    #[test]
    fn a_wired_limit_is_the_budget() {
        assert_eq!(hardware(&studio("iogpu.wired_limit_mb: 57344\n")).gpu_budget_bytes, 56 * GIB);
    }

    #[test]
    fn used_and_free_memory_are_the_whole() {
        let memory = memory(&studio(""));
        assert_eq!(memory.used_bytes + memory.free_bytes, 64 * GIB);
        assert_eq!(memory.used_bytes, (400_000 - 20_000 + 300_000 + 50_000) * 16_384);
    }

    #[test]
    fn a_mac_whose_tools_do_not_answer_has_no_budget() {
        let silent = |_: &str, _: &[&str]| None;
        assert_eq!(hardware(&silent), Hardware { os: "macOS".to_owned(), ..Hardware::default() });
        assert_eq!(memory(&silent), Memory::default());
        let half =
            |program: &str, _: &[&str]| (program == SYSCTL).then(|| "hw.memsize: 68719476736".to_owned());
        assert_eq!(memory(&half), Memory::default());
    }

    #[test]
    fn the_tools_are_named_by_their_full_paths() {
        for program in [SYSCTL, VM_STAT, SYSTEM_PROFILER] {
            assert!(program.starts_with("/usr/"), "{program}");
        }
        let _: Tools<'_> = &tool::run;
    }
}
