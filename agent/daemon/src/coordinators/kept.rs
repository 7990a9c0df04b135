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
    cluster: String,
    /// By which releases know the cluster that knew of one authority only.
    ca_hash: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Page {
    ca_hash: String,
    /// Absent: written by such a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(flatten)]
    pub(super) learned: Learned,
}

impl Kept {
    pub(crate) fn of_cluster(data_folder: &Path, cluster: &str, ca_certificate_pem: &str) -> Self {
        let ca_hash = blake3::hash(ca_certificate_pem.trim().as_bytes()).to_hex().to_string();
        Self { folder: data_folder.to_owned(), cluster: cluster.to_owned(), ca_hash }
    }

    /// Nothing, if it is another cluster's or cannot be read.
    pub(crate) fn read(&self) -> Learned {
        let path = self.folder.join(NAME);
        let text = whole_file::read(&path);
        let page =
            text.and_then(|text| Ok(text.map(|text| serde_json::from_str::<Page>(&text)).transpose()?));
        match page {
            Ok(Some(page)) if self.is_of(&page) => page.learned,
            Ok(_) => Learned::default(),
            Err(error) => {
                tracing::warn!("{} is ignored: {error:#}", path.display());
                Learned::default()
            }
        }
    }

    /// Blocks until it is on the disk.
    pub(crate) fn write(&self, learned: Learned) -> anyhow::Result<()> {
        let page = Page { ca_hash: self.ca_hash.clone(), cluster: Some(self.cluster.clone()), learned };
        whole_file::write(&self.folder, NAME, &serde_json::to_string_pretty(&page)?)
    }

    fn is_of(&self, page: &Page) -> bool {
        page.cluster.as_ref().map_or(page.ca_hash == self.ca_hash, |cluster| *cluster == self.cluster)
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
        let kept = Kept::of_cluster(folder.path(), "room", "one\n");
        assert_eq!(kept.read(), Learned::default(), "there is no file yet");
        kept.write(learned()).expect("written");
        assert_eq!(kept.read(), learned());
        assert_eq!(Kept::of_cluster(folder.path(), "room", "another").read(), learned(), "it was rotated");
        assert_eq!(Kept::of_cluster(folder.path(), "other", "one").read(), Learned::default());
    }

    #[test]
    fn what_an_earlier_release_wrote_is_read_under_the_same_authority() {
        let folder = tempfile::tempdir().expect("scratch");
        let kept = Kept::of_cluster(folder.path(), "room", "one");
        let page = Page { ca_hash: kept.ca_hash.clone(), cluster: None, learned: learned() };
        std::fs::write(folder.path().join(NAME), serde_json::to_string(&page).expect("JSON"))
            .expect("written");
        assert_eq!(kept.read(), learned());
        assert_eq!(Kept::of_cluster(folder.path(), "room", "another").read(), Learned::default());
    }

    #[test]
    fn a_damaged_file_is_ignored_and_replaced() {
        let folder = tempfile::tempdir().expect("scratch");
        let kept = Kept::of_cluster(folder.path(), "room", "one");
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
