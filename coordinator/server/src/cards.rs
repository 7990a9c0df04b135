//! Model cards: tokenizers and chat templates, by digest, on disk and in memory.
//!
//! Owns the folder where they are kept, so that a restarted coordinator can speak for a model before its agent is back.
//! Refuses files whose contents do not have the digest they came under, names outside the known set, and cards above the
//! size bound.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use proto::CARD_BYTES_MAX;

use crate::gateway::text::card::Card;
use crate::gateway::text::chat_template::ChatTemplate;
use crate::gateway::text::rendering::{Render, RenderError, Task};

/// What a card may consist of; anything else on the wire is refused, so no path can be smuggled in.
const FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "special_tokens_map.json",
    "config.json",
];

#[derive(Clone)]
pub(crate) struct Cards {
    folder: PathBuf,
    /// Who says whether a new card's template compiles.
    renderers: Arc<dyn Render>,
    loaded: Arc<Mutex<BTreeMap<String, Arc<Card>>>>,
    /// Numbers the unfinished ones.
    parts: Arc<AtomicU64>,
}

impl Cards {
    pub(crate) fn open(folder: PathBuf, renderers: Arc<dyn Render>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder, renderers, loaded: Arc::default(), parts: Arc::default() })
    }

    /// The card under this digest, if it is here.
    pub(crate) fn get(&self, digest: &str) -> Option<Arc<Card>> {
        if !is_digest(digest) {
            return None;
        }
        if let Some(card) = self.loaded().get(digest) {
            return Some(card.clone());
        }
        let card = read_folder(&self.folder.join(digest))
            .and_then(|files| Card::from_files(&files).map_err(anyhow::Error::from))
            .inspect_err(|error| tracing::debug!(%digest, %error, "no card on disk"))
            .ok()?;
        let card = Arc::new(card);
        self.loaded().insert(digest.to_owned(), card.clone());
        Some(card)
    }

    /// Takes in a card that an agent sent.
    pub(crate) async fn put(&self, digest: String, files: BTreeMap<String, Bytes>) -> anyhow::Result<()> {
        let named = digest.clone();
        // Reading a large tokenizer takes a second of CPU: not on a thread that serves others.
        let read = tokio::task::spawn_blocking(move || read_card(&named, &files).map(|card| (card, files)));
        let (card, files) = read.await.context("reading the model card")??;
        if let Some(template) = &card.template {
            self.check(&digest, template).await.context("reading the model card")?;
        }
        let cards = self.clone();
        tokio::task::spawn_blocking(move || cards.keep(&digest, &files, card))
            .await
            .context("keeping the card")
    }

    /// A template that does not compile makes a card that is none. Where nobody can tell, each request says it.
    async fn check(&self, digest: &str, template: &Arc<ChatTemplate>) -> Result<(), RenderError> {
        let checked = match Task::compiling(template, digest) {
            Ok(task) => self.renderers.render(task).await,
            Err(error) => Err(error),
        };
        match checked {
            Ok(_) | Err(RenderError::NotStarted | RenderError::Lost | RenderError::Busy) => Ok(()),
            Err(
                error @ (RenderError::Raised(_)
                | RenderError::OutOfBounds
                | RenderError::Failed(_)
                | RenderError::Refused { .. }),
            ) => Err(error),
        }
    }

    fn keep(&self, digest: &str, files: &BTreeMap<String, Bytes>, card: Card) {
        // The folder spares an upload after a restart; without room in it the card serves from memory.
        if let Err(error) = self.write(digest, files) {
            tracing::warn!(%digest, error = format!("{error:#}"), "a model card could not be kept on disk");
        }
        self.loaded().insert(digest.to_owned(), Arc::new(card));
    }

    /// Written beside and renamed, so that a crash leaves a whole card or none.
    fn write(&self, digest: &str, files: &BTreeMap<String, Bytes>) -> anyhow::Result<()> {
        let whole = self.folder.join(digest);
        if whole.exists() {
            return Ok(());
        }
        // Several agents may bring the same card at once.
        let number = self.parts.fetch_add(1, Ordering::Relaxed);
        let part = self.folder.join(format!("{digest}.{number}.part"));
        let _ = std::fs::remove_dir_all(&part);
        std::fs::create_dir_all(&part).with_context(|| format!("making {}", part.display()))?;
        for (name, bytes) in files {
            std::fs::write(part.join(name), bytes).with_context(|| format!("keeping the card's {name}"))?;
        }
        let kept = std::fs::rename(&part, &whole);
        let _ = std::fs::remove_dir_all(&part);
        if whole.exists() { Ok(()) } else { kept.with_context(|| format!("keeping card {digest}")) }
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Card>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects the pieces of one card as they arrive.
#[derive(Default)]
pub(crate) struct CardUpload {
    digest: String,
    files: BTreeMap<String, BytesMut>,
    bytes: usize,
}

impl CardUpload {
    pub(crate) fn push(&mut self, chunk: proto::v1::ModelCardChunk) -> anyhow::Result<()> {
        anyhow::ensure!(is_digest(&chunk.card_digest), "not a card digest");
        if self.digest.is_empty() {
            self.digest = chunk.card_digest.clone();
        }
        anyhow::ensure!(self.digest == chunk.card_digest, "two cards in one upload");
        anyhow::ensure!(FILES.contains(&chunk.file.as_str()), "a card has no such file");
        self.bytes += chunk.data.len();
        anyhow::ensure!(self.bytes <= CARD_BYTES_MAX, "the card is larger than {CARD_BYTES_MAX} bytes");
        self.files.entry(chunk.file).or_default().extend_from_slice(&chunk.data);
        Ok(())
    }

    pub(crate) fn finish(self) -> (String, BTreeMap<String, Bytes>) {
        (self.digest, self.files.into_iter().map(|(name, bytes)| (name, bytes.freeze())).collect())
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn read_card(digest: &str, files: &BTreeMap<String, Bytes>) -> anyhow::Result<Card> {
    let actual = proto::card::digest(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_ref())));
    anyhow::ensure!(actual == digest, "the card's contents do not match its digest");
    Card::from_files(files).context("reading the model card")
}

fn read_folder(folder: &Path) -> anyhow::Result<BTreeMap<String, Bytes>> {
    let mut files = BTreeMap::new();
    for name in FILES {
        match std::fs::read(folder.join(name)) {
            Ok(bytes) => {
                files.insert(name.to_owned(), Bytes::from(bytes));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading the card's {name}")),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::cards::{byte_level, files};
    use crate::gateway::text::rendering::{Here, Renderers};
    use proto::v1::ModelCardChunk;

    fn chunk(digest: &str, file: &str, data: &[u8]) -> ModelCardChunk {
        ModelCardChunk {
            card_digest: digest.to_owned(),
            file: file.to_owned(),
            data: Bytes::copy_from_slice(data),
        }
    }

    fn open(folder: &tempfile::TempDir) -> Cards {
        Cards::open(folder.path().to_owned(), Arc::new(Here)).expect("opens")
    }

    fn with_template(source: &str) -> (String, BTreeMap<String, Bytes>) {
        let files = files(&byte_level(), &[("chat_template.jinja", source.to_owned())]);
        let digest = proto::card::digest(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_ref())));
        (digest, files)
    }

    #[tokio::test]
    async fn a_card_is_kept_only_if_its_template_compiles() {
        let folder = tempfile::tempdir().expect("scratch");
        let cards = open(&folder);
        let (digest, files) = with_template("{% if %}");
        let error = cards.put(digest.clone(), files).await.expect_err("refused");
        let words = format!("{error:#}");
        assert!(words.starts_with("reading the model card: the chat template does not compile: "), "{words}");
        assert!(cards.get(&digest).is_none() && open(&folder).get(&digest).is_none());
        let (digest, files) = with_template("{{ messages }}");
        cards.put(digest.clone(), files).await.expect("kept");
        assert!(cards.get(&digest).is_some() && open(&folder).get(&digest).is_some());
    }

    #[tokio::test]
    async fn a_card_is_kept_where_nobody_can_say_whether_its_template_compiles() {
        let folder = tempfile::tempdir().expect("scratch");
        let program = crate::RendererProgram { program: "/no/such/program".into(), arguments: Vec::new() };
        let renderers = Arc::new(Renderers::new(program));
        let cards = Cards::open(folder.path().to_owned(), renderers).expect("opens");
        let (digest, files) = with_template("{% if %}");
        cards.put(digest.clone(), files).await.expect("kept");
        assert!(cards.get(&digest).is_some());
    }

    #[test]
    fn an_upload_joins_its_pieces_and_refuses_foreign_files() {
        let digest = "a".repeat(64);
        let mut upload = CardUpload::default();
        upload.push(chunk(&digest, "tokenizer.json", b"{")).expect("taken");
        upload.push(chunk(&digest, "tokenizer.json", b"}")).expect("taken");
        for file in ["../../authorized_keys", "model.safetensors", ""] {
            assert!(upload.push(chunk(&digest, file, b"x")).is_err(), "{file}");
        }
        assert!(upload.push(chunk(&"b".repeat(64), "config.json", b"x")).is_err());
        let (named, files) = upload.finish();
        assert_eq!((named, files["tokenizer.json"].as_ref()), (digest, b"{}".as_slice()));
    }

    #[tokio::test]
    async fn a_card_that_does_not_match_its_digest_is_not_kept() {
        let folder = tempfile::tempdir().expect("scratch");
        let cards = open(&folder);
        let files = BTreeMap::from([("tokenizer.json".to_owned(), Bytes::from_static(b"{}"))]);
        assert!(cards.put("a".repeat(64), files).await.is_err());
        assert!(cards.get(&"a".repeat(64)).is_none());
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_digest_cannot_be_a_path() {
        let folder = tempfile::tempdir().expect("scratch");
        let cards = open(&folder);
        assert!(cards.get("../../etc").is_none());
        let mut upload = CardUpload::default();
        assert!(upload.push(chunk("../x", "config.json", b"")).is_err());
    }
}
