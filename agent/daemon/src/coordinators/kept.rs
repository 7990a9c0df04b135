//! `coordinators.json`: the coordinators as they were last known.
//!
//! Owns the file in the data folder, so that an agent comes back while the coordinator of its settings is dead. Refuses a file of
//! another cluster and one that is damaged: it is only a memory, and the settings are there.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::known::Learned;
use crate::whole_file;

const NAME: &str = "coordinators.json";

#[derive(Clone, Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    /// Names the cluster.
    ca_hash: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Page {
    ca_hash: String,
    #[serde(flatten)]
    pub(super) learned: Learned,
}

impl Kept {
    pub(crate) fn of_cluster(data_folder: &Path, ca_certificate_pem: &str) -> Self {
        let ca_hash = blake3::hash(ca_certificate_pem.trim().as_bytes()).to_hex().to_string();
        Self { folder: data_folder.to_owned(), ca_hash }
    }

    /// Nothing, if it is another cluster's or cannot be read.
    pub(crate) fn read(&self) -> Learned {
        let path = self.folder.join(NAME);
        let text = whole_file::read(&path);
        let page =
            text.and_then(|text| Ok(text.map(|text| serde_json::from_str::<Page>(&text)).transpose()?));
        match page {
            Ok(Some(page)) if page.ca_hash == self.ca_hash => page.learned,
            Ok(_) => Learned::default(),
            Err(error) => {
                tracing::warn!("{} is ignored: {error:#}", path.display());
                Learned::default()
            }
        }
    }

    /// Blocks until it is on the disk.
    pub(crate) fn write(&self, learned: Learned) -> anyhow::Result<()> {
        let page = Page { ca_hash: self.ca_hash.clone(), learned };
        whole_file::write(&self.folder, NAME, &serde_json::to_string_pretty(&page)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::coordinators::known::{Known, Member};

    fn learned() -> Learned {
        let mut known = Known::new(Vec::new(), Learned::default());
        let address = Address::parse("mini-01:7443").expect("an address");
        known.tell(vec![Member { replica: 1, address }]);
        known.learned().clone()
    }

    #[test]
    fn what_was_written_is_read_by_the_same_cluster_only() {
        let folder = tempfile::tempdir().expect("scratch");
        let kept = Kept::of_cluster(folder.path(), "one\n");
        assert_eq!(kept.read(), Learned::default(), "there is no file yet");
        kept.write(learned()).expect("written");
        assert_eq!(kept.read(), learned());
        assert_eq!(Kept::of_cluster(folder.path(), "one").read(), learned());
        assert_eq!(Kept::of_cluster(folder.path(), "another").read(), Learned::default());
    }

    #[test]
    fn a_damaged_file_is_ignored_and_replaced() {
        let folder = tempfile::tempdir().expect("scratch");
        let kept = Kept::of_cluster(folder.path(), "one");
        let bad_address = format!(
            r#"{{"ca_hash":"{}","members":[{{"replica":1,"address":"x"}}],"answered":[]}}"#,
            kept.ca_hash
        );
        for text in ["", "{", "[]", &bad_address] {
            std::fs::write(folder.path().join(NAME), text).expect("written");
            assert_eq!(kept.read(), Learned::default(), "{text}");
        }
        std::fs::write(folder.path().join(NAME), [0xff]).expect("written");
        assert_eq!(kept.read(), Learned::default());
        kept.write(learned()).expect("written");
        assert_eq!(kept.read(), learned());
    }
}
