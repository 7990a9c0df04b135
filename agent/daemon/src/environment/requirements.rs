//! What a Python environment must hold: the hash-locked requirements inside this binary.
//!
//! Owns the choice by platform and the name an environment gets from its lock. Refuses platforms without an MLX build: there
//! is nothing to install there, and saying so at once beats a failure of pip.

use super::error::EnvironmentError;
use super::limits::DIGEST_CHARS;

const LINUX_X86_64: &str = include_str!("../../../../python/requirements/linux-x86_64.txt");
const LINUX_AARCH64: &str = include_str!("../../../../python/requirements/linux-aarch64.txt");
const MACOS_ARM64: &str = include_str!("../../../../python/requirements/macos-arm64.txt");

/// Part of every environment's name. Grows when the way of making one changes, so that old ones are not taken for new.
const RECIPE: &[u8] = b"1";

/// Locked requirements as pip reads them.
#[derive(Clone, Debug)]
pub(super) struct Requirements {
    pub(super) text: String,
}

impl Requirements {
    /// Those of a platform, named as `std::env::consts` does.
    pub(super) fn of(os: &str, arch: &str) -> Result<Self, EnvironmentError> {
        let text = match (os, arch) {
            ("linux", "x86_64") => LINUX_X86_64,
            ("linux", "aarch64") => LINUX_AARCH64,
            ("macos", "aarch64") => MACOS_ARM64,
            _ => return Err(EnvironmentError::Unsupported { os: os.to_owned(), arch: arch.to_owned() }),
        };
        Ok(Self { text: text.to_owned() })
    }

    /// Number of locked packages.
    pub(super) fn packages(&self) -> usize {
        let pins =
            self.text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric()));
        pins.filter(|line| line.contains("==")).count()
    }

    /// The name of an environment that holds exactly these.
    pub(super) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(RECIPE).update(self.text.as_bytes());
        hasher.finalize().to_hex().chars().take(DIGEST_CHARS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLATFORMS: [(&str, &str); 3] = [("linux", "x86_64"), ("linux", "aarch64"), ("macos", "aarch64")];

    #[test]
    fn every_lock_pins_the_runtime_with_hashes() {
        for (os, arch) in PLATFORMS {
            let requirements = Requirements::of(os, arch).expect("supported");
            for package in ["mlx==", "mlx-lm==", "msgpack==", "huggingface-hub=="] {
                assert!(
                    requirements.text.lines().any(|line| line.starts_with(package)),
                    "{os} {arch}: {package}"
                );
            }
            let hashes = requirements.text.matches("--hash=sha256:").count();
            assert!(hashes >= requirements.packages(), "{os} {arch}: {hashes} hashes");
        }
    }

    #[test]
    fn no_lock_names_an_index_or_a_folder() {
        for (os, arch) in PLATFORMS {
            let text = Requirements::of(os, arch).expect("supported").text;
            let options: Vec<_> = text.lines().filter(|line| line.trim_start().starts_with("-")).collect();
            assert!(
                options.iter().all(|line| line.trim_start().starts_with("--hash=")),
                "{os} {arch}: {options:?}"
            );
        }
    }

    #[test]
    fn packages_are_counted_without_their_hashes_and_comments() {
        let text = "# a==1\na==1 \\\n    --hash=sha256:00\nb==2 ; sys_platform == 'linux'\n".to_owned();
        assert_eq!(Requirements { text }.packages(), 2);
    }

    #[test]
    fn another_lock_is_another_environment() {
        let digest = |text: &str| Requirements { text: text.to_owned() }.digest();
        assert_ne!(digest("a==1"), digest("a==2"));
        assert_eq!(digest("a==1"), digest("a==1"));
        assert_eq!(digest("a==1").len(), DIGEST_CHARS);
    }

    #[test]
    fn a_platform_without_mlx_is_refused_by_name() {
        let words = Requirements::of("macos", "x86_64").expect_err("refused").to_string();
        assert!(words.contains("macos on x86_64") && words.contains("Apple Silicon"), "{words}");
    }
}
