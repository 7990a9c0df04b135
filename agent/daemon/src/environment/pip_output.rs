//! What pip says, read: how far it is, and why it failed.
//!
//! Pure. Owns the phrases of pip 22 to 26 that matter here. Refuses to fail on a line it does not know: an unknown phrase
//! costs a progress step or a kinder error, nothing else.

use super::progress::Progress;

/// Installing copies files and is told as one line; downloads are nine tenths of the wait.
const DOWNLOADS_PERMILLE: u64 = 900;

/// Counts packages as pip reaches them.
#[derive(Debug)]
pub(super) struct PipOutput {
    packages: u64,
    reached: u64,
}

/// Why an installation failed, as far as pip's words tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PipFailure {
    Unreachable,
    HashMismatch,
    NoBuild,
    DiskFull,
    Other,
}

impl PipOutput {
    pub(super) fn new(packages: usize) -> Self {
        Self { packages: u64::try_from(packages).unwrap_or(u64::MAX), reached: 0 }
    }

    /// Reads one line of pip's standard output and tells what it means.
    pub(super) fn hear(&mut self, line: &str, progress: &Progress) {
        let line = line.trim();
        if let Some(rest) =
            line.strip_prefix("Collecting ").or_else(|| line.strip_prefix("Requirement already satisfied: "))
        {
            self.reached = self.reached.saturating_add(1).min(self.packages);
            let package = rest.split_whitespace().next().unwrap_or_default().replace("==", " ");
            self.tell(progress, format!("package {} of {}: {package}", self.reached, self.packages));
        } else if let Some(rest) = line.strip_prefix("Downloading ") {
            self.tell(
                progress,
                format!("package {} of {}: downloading {}", self.reached, self.packages, download(rest)),
            );
        } else if line.starts_with("Installing collected packages") {
            progress.part(format!("installing {} packages", self.packages), DOWNLOADS_PERMILLE, 1_000);
        } else if line.starts_with("Successfully installed") {
            progress.part(format!("installed {} packages", self.packages), 1, 1);
        }
    }

    fn tell(&self, progress: &Progress, words: String) {
        progress.part(
            words,
            self.reached.saturating_mul(DOWNLOADS_PERMILLE),
            self.packages.saturating_mul(1_000),
        );
    }
}

/// `numpy-2.4.6-cp311-….whl (18.2 MB)`, possibly with a folder or an address before it → `numpy 2.4.6 (18.2 MB)`.
fn download(rest: &str) -> String {
    let (file, size) = rest.split_once(" (").map_or((rest, None), |(file, size)| (file, Some(size)));
    let file = file.rsplit('/').next().unwrap_or(file);
    let mut parts = file.split('-');
    let name = parts.next().unwrap_or_default();
    let version = parts.next().map(|version| format!(" {version}")).unwrap_or_default();
    let size = size.map(|size| format!(" ({size}")).unwrap_or_default();
    format!("{name}{version}{size}")
}

/// Judges by all lines pip wrote. A connection fault comes first: it makes pip claim that no version exists.
pub(super) fn failure<'a>(lines: impl Iterator<Item = &'a str> + Clone) -> PipFailure {
    let says =
        |phrases: &[&str]| lines.clone().any(|line| phrases.iter().any(|phrase| line.contains(phrase)));
    if says(&["No space left on device", "Errno 28"]) {
        PipFailure::DiskFull
    } else if says(&["DO NOT MATCH THE HASHES", "Can't verify hashes", "hash mismatch"]) {
        PipFailure::HashMismatch
    } else if says(&UNREACHABLE) {
        PipFailure::Unreachable
    } else if says(&["No matching distribution found", "Could not find a version", "not a supported wheel"]) {
        PipFailure::NoBuild
    } else {
        PipFailure::Other
    }
}

const UNREACHABLE: [&str; 14] = [
    "Failed to establish a new connection",
    "NewConnectionError",
    "NameResolutionError",
    "Name or service not known",
    "nodename nor servname",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Read timed out",
    "ProxyError",
    "RemoteDisconnected",
    "SSLError",
];

#[cfg(test)]
mod tests {
    use super::super::progress::{Step, recorded};
    use super::*;

    fn heard(packages: usize, lines: &[&str]) -> Vec<Step> {
        let (progress, steps) = recorded();
        let mut output = PipOutput::new(packages);
        for line in lines {
            output.hear(line, &progress);
        }
        steps.lock().expect("not poisoned").clone()
    }

    fn step(words: &str, permille: u16) -> Step {
        Step { words: words.to_owned(), permille: Some(permille) }
    }

    #[test]
    fn packages_are_counted_against_the_lock() {
        let steps = heard(
            2,
            &[
                "Looking in indexes: https://index.example/simple",
                "Collecting mlx==0.32.4 (from -r requirements.txt (line 1))",
                "  Downloading https://index.example/mlx-0.32.4-cp312-cp312-macosx_14_0_arm64.whl (78.1 MB)",
                "Collecting numpy==2.4.6 (from -r requirements.txt (line 9))",
                "  Using cached numpy-2.4.6-cp312-cp312-macosx_14_0_arm64.whl (5.1 MB)",
                "Installing collected packages: numpy, mlx",
                "Successfully installed mlx-0.32.4 numpy-2.4.6",
            ],
        );
        let expected = [
            step("package 1 of 2: mlx 0.32.4", 450),
            step("package 1 of 2: downloading mlx 0.32.4 (78.1 MB)", 450),
            step("package 2 of 2: numpy 2.4.6", 900),
            step("installing 2 packages", 900),
            step("installed 2 packages", 1_000),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn more_lines_than_packages_do_not_exceed_the_lock() {
        let steps =
            heard(1, &["Collecting a==1", "Collecting a==1", "Requirement already satisfied: b==2 in x"]);
        assert_eq!(steps.last(), Some(&step("package 1 of 1: b 2", 900)));
    }

    #[test]
    fn unknown_phrases_are_passed_over() {
        assert_eq!(heard(3, &["", "Downloadin", "WARNING: something new", "Collectingx"]), []);
        assert_eq!(heard(1, &["Downloading x"]), [step("package 0 of 1: downloading x", 0)]);
    }

    #[test]
    fn an_offline_machine_is_told_from_a_missing_package() {
        let offline = [
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...): Failed to establish a new \
             connection: [Errno 111] Connection refused'",
            "ERROR: Could not find a version that satisfies the requirement mlx==0.32.4 (from versions: none)",
            "ERROR: No matching distribution found for mlx==0.32.4",
        ];
        assert_eq!(failure(offline.into_iter()), PipFailure::Unreachable);
        assert_eq!(failure(offline.into_iter().skip(1)), PipFailure::NoBuild);
    }

    #[test]
    fn a_changed_file_and_a_full_disk_are_recognised() {
        let changed = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.";
        assert_eq!(failure([changed].into_iter()), PipFailure::HashMismatch);
        let full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device";
        assert_eq!(failure([full].into_iter()), PipFailure::DiskFull);
        assert_eq!(failure(["Killed"].into_iter()), PipFailure::Other);
    }
}
