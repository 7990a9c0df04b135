//! A child process that is measured and surely ended.

use std::process::{Child, Command, Stdio};

pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.expect("the program starts") }
    }

    /// CPU seconds that the kernel charged to the process, user and system, in steps of a clock tick (10 ms).
    pub(crate) fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("Linux");
        let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: f64 =
            [fields[11], fields[12]].iter().map(|field| field.parse::<f64>().expect("a number")).sum();
        ticks / 100.0
    }

    /// Asks it to end and waits.
    pub(crate) fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
