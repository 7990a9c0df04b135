//! The seal key of this coordinator: in memory, and in a file beside the registry, mode 0600.
//!
//! Owns the file. Refuses to let a key be used that is not in it, so that whoever is asked for the key tomorrow has it, and to take
//! something else for a key.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use super::key::{SealKey, SealKeyId};
use crate::founding::write_secret;

/// In the data folder.
pub const SEAL_KEY_FILE: &str = "seal-key";

pub(crate) struct Keyring {
    file: PathBuf,
    held: Mutex<Option<SealKey>>,
}

impl Keyring {
    /// # Errors
    /// What is in the file is no key.
    pub(crate) fn open(data_folder: &Path) -> anyhow::Result<Self> {
        let file = data_folder.join(SEAL_KEY_FILE);
        let held = Mutex::new(read(&file)?);
        Ok(Self { file, held })
    }

    #[cfg(test)]
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn key(&self) -> Option<SealKey> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn id(&self) -> Option<SealKeyId> {
        self.key().map(|key| key.id())
    }

    /// Holds this key from now on.
    pub(crate) fn put(&self, key: SealKey) -> anyhow::Result<()> {
        write_secret(&self.file, &key.text())?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        Ok(())
    }

    /// An operator may have put the key there.
    pub(crate) fn look_again(&self) {
        if let Ok(Some(key)) = read(&self.file) {
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        }
    }
}

/// The key in a file, if the file is there.
pub(crate) fn read(file: &Path) -> anyhow::Result<Option<SealKey>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    let no_key = || {
        let file = file.display();
        format!(
            "{file} is not a seal key, which is 64 hexadecimal digits: copy the file of another coordinator there"
        )
    };
    SealKey::from_text(&text).map(Some).with_context(no_key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_kept_for_its_owner_alone_and_found_again() {
        let folder = tempfile::tempdir().expect("scratch");
        let keyring = Keyring::open(folder.path()).expect("opens");
        assert_eq!(keyring.id(), None);
        let key = SealKey::make().expect("randomness");
        keyring.put(key.clone()).expect("kept");
        let mode = std::fs::metadata(keyring.file()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Keyring::open(folder.path()).expect("opens");
        assert_eq!((keyring.id(), again.id()), (Some(key.id()), Some(key.id())));
    }

    #[test]
    fn a_key_that_cannot_be_written_down_is_not_used() {
        let folder = tempfile::tempdir().expect("scratch");
        let keyring = Keyring::open(&folder.path().join("gone")).expect("there is none");
        assert!(keyring.put(SealKey::make().expect("randomness")).is_err());
        assert_eq!(keyring.id(), None);
    }

    #[test]
    fn something_else_is_no_key_and_is_not_shown() {
        let folder = tempfile::tempdir().expect("scratch");
        std::fs::write(folder.path().join(SEAL_KEY_FILE), "secret words").expect("written");
        let refused = format!("{:#}", Keyring::open(folder.path()).err().expect("refused"));
        assert!(refused.contains("of another coordinator") && !refused.contains("secret words"), "{refused}");
    }

    #[test]
    fn a_key_that_an_operator_puts_there_is_taken_up() {
        let folder = tempfile::tempdir().expect("scratch");
        let (keyring, key) = (Keyring::open(folder.path()).expect("opens"), SealKey::make().expect("random"));
        std::fs::write(keyring.file(), "torn").expect("written");
        keyring.look_again();
        assert_eq!(keyring.id(), None);
        std::fs::write(keyring.file(), key.text()).expect("written");
        keyring.look_again();
        assert_eq!(keyring.id(), Some(key.id()));
    }
}
