//! Every bound of the probes, with its reason.

use std::time::Duration;

/// A tool that describes the machine has answered by then or will not: `system_profiler` takes one to three seconds, the others
/// milliseconds.
pub(super) const TOOL_ANSWER: Duration = Duration::from_secs(10);

/// What a tool may say. Displays of a Mac Pro with eight screens take about 20 kB.
pub(super) const TOOL_BYTES_MAX: u64 = 1 << 20;

/// A file of the kernel. `/proc/cpuinfo` has about 1.5 kB for each of up to some hundred cores.
pub(super) const KERNEL_FILE_BYTES_MAX: u64 = 1 << 20;
