//! A Linux machine as its kernel's files describe it, in folders made up here.

use std::fs;

use proptest::prelude::*;

use super::*;

const MEMINFO: &str =
    "MemTotal:       24586456 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\nBuffers: 1 kB\n";

struct Machine(tempfile::TempDir);

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().expect("scratch");
        for (path, text) in files {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().expect("a parent")).expect("made");
            fs::write(file, text).expect("written");
        }
        Self(root)
    }

    fn kernel(&self) -> Kernel {
        Kernel { root: self.0.path().to_owned() }
    }
}

#[test]
fn a_machine_is_described_by_its_kernel() {
    let machine = Machine::new(&[
        (
            "proc/cpuinfo",
            "processor\t: 0\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: other\n",
        ),
        ("proc/meminfo", MEMINFO),
        ("proc/sys/kernel/osrelease", "6.8.0-generic\n"),
    ]);
    let hardware = machine.kernel().hardware();
    assert_eq!((hardware.chip.as_str(), hardware.os.as_str()), ("AMD EPYC", "Linux 6.8.0-generic"));
    assert_eq!(hardware.memory_bytes, 24_586_456 * 1_024);
    assert_eq!(hardware.gpu_budget_bytes, 24_586_456 * 1_024 / 2);
    assert_eq!(hardware.gpu_cores, 0);
}

#[test]
fn free_memory_is_what_the_kernel_calls_available() {
    let machine = Machine::new(&[("proc/meminfo", MEMINFO)]);
    let expected = Memory { used_bytes: 4_586_456 * 1_024, free_bytes: 20_000_000 * 1_024 };
    assert_eq!(machine.kernel().memory(), expected);
}

#[test]
fn a_containers_limit_counts_where_it_is_lower() {
    let machine = Machine::new(&[
        ("proc/meminfo", MEMINFO),
        ("proc/self/cgroup", "0::/\n"),
        ("sys/fs/cgroup/memory.max", "8000000000\n"),
        ("sys/fs/cgroup/memory.current", "3000000000\n"),
        ("sys/fs/cgroup/memory.stat", "anon 5\ninactive_file 1000000000\nactive_file 7\n"),
    ]);
    assert_eq!(machine.kernel().hardware().memory_bytes, 8_000_000_000);
    assert_eq!(machine.kernel().hardware().gpu_budget_bytes, 4_000_000_000);
    assert_eq!(machine.kernel().memory(), Memory { used_bytes: 2_000_000_000, free_bytes: 6_000_000_000 });
}

#[test]
fn the_tightest_group_on_the_way_up_decides() {
    let machine = Machine::new(&[
        ("proc/meminfo", MEMINFO),
        ("proc/self/cgroup", "1:name=systemd:/x\n0::/system.slice/agent.service\n"),
        ("sys/fs/cgroup/system.slice/memory.max", "5000000000\n"),
        ("sys/fs/cgroup/system.slice/memory.current", "4000000000\n"),
        ("sys/fs/cgroup/system.slice/agent.service/memory.max", "max\n"),
        ("sys/fs/cgroup/system.slice/agent.service/memory.current", "1\n"),
    ]);
    assert_eq!(machine.kernel().hardware().memory_bytes, 5_000_000_000);
    assert_eq!(machine.kernel().memory().free_bytes, 1_000_000_000);
}

#[test]
fn limits_that_say_nothing_change_nothing() {
    for cgroup in ["", "0::/", "0::/../../etc", "4:memory:/docker/1", "0::/gone"] {
        let machine = Machine::new(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", cgroup),
            ("sys/fs/cgroup/memory.max", "max"),
        ]);
        assert_eq!(machine.kernel().hardware().memory_bytes, 24_586_456 * 1_024, "{cgroup}");
    }
}

#[test]
fn a_machine_that_says_nothing_has_a_name_and_no_memory() {
    let machine = Machine::new(&[]);
    let hardware = machine.kernel().hardware();
    assert_eq!((hardware.chip.as_str(), hardware.os.as_str()), (std::env::consts::ARCH, "Linux"));
    assert_eq!(machine.kernel().memory(), Memory::default());
}

proptest! {
    #[test]
    fn any_text_is_read_or_passed_over(text in "(MemTotal|MemAvailable|model name|[ :0-9a-zA-Z\n]){0,40}") {
        let _ = (chip(&text), kibibytes(&text, "MemTotal"));
    }

    #[test]
    fn free_memory_never_exceeds_the_total(total in any::<u32>(), available in any::<u32>()) {
        let machine = Machine::new(&[("proc/meminfo", &format!("MemTotal: {total} kB\nMemAvailable: {available} kB\n"))]);
        let memory = machine.kernel().memory();
        prop_assert_eq!(memory.used_bytes + memory.free_bytes, u64::from(total) * 1_024);
    }
}
