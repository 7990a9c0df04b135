//! Model cards to the coordinator: tokenizer, chat template and their settings.
//!
//! Owns cutting a card into pieces and sending one upload of a card at a time, however often it is asked for. Refuses to hold up
//! the session: an upload runs beside it, and ends with it.

use std::sync::Arc;

use proto::CARD_CHUNK_BYTES;
use proto::v1::ModelCardChunk;
use proto::v1::cluster_client::ClusterClient;
use tokio_stream::iter;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;

use crate::preparing::CardFiles;

/// The uploads of one session.
pub(crate) struct Cards {
    channel: Channel,
    uploads: Vec<(String, AbortOnDropHandle<()>)>,
}

impl Cards {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, uploads: Vec::new() }
    }

    /// Sends the card, unless it is on its way already. `None`: the card asked for is not here any more.
    pub(crate) fn put(&mut self, card: Option<Arc<CardFiles>>) {
        self.uploads.retain(|(_, upload)| !upload.is_finished());
        let Some(card) = card else { return };
        if self.uploads.iter().all(|(digest, _)| *digest != card.digest) {
            let upload = upload(ClusterClient::new(self.channel.clone()), Arc::clone(&card));
            self.uploads.push((card.digest.clone(), AbortOnDropHandle::new(tokio::spawn(upload))));
        }
    }
}

async fn upload(mut client: ClusterClient<Channel>, card: Arc<CardFiles>) {
    let digest = card.digest.clone();
    match client.put_model_card(iter(chunks(card))).await {
        Ok(_) => tracing::info!(digest, "model card sent"),
        // The coordinator asks again.
        Err(error) => tracing::warn!(digest, %error, "sending a model card failed"),
    }
}

/// Files one after another, cut to pieces; an empty file is one empty piece.
fn chunks(card: Arc<CardFiles>) -> impl Iterator<Item = ModelCardChunk> {
    (0..card.files.len()).flat_map(move |file| {
        let card = Arc::clone(&card);
        let pieces = card.files.get(file).map_or(0, |(_, data)| data.len().div_ceil(CARD_CHUNK_BYTES).max(1));
        (0..pieces).filter_map(move |piece| {
            let (name, data) = card.files.get(file)?;
            let start = piece * CARD_CHUNK_BYTES;
            let data = data.slice(start..data.len().min(start + CARD_CHUNK_BYTES));
            Some(ModelCardChunk { card_digest: card.digest.clone(), file: name.clone(), data })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_card_is_cut_into_pieces_that_join_to_the_same_files() {
        let big: Vec<u8> =
            (0..CARD_CHUNK_BYTES * 2 + 5).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let files = vec![
            ("tokenizer.json".to_owned(), Bytes::from(big.clone())),
            ("empty.json".to_owned(), Bytes::new()),
            ("config.json".to_owned(), Bytes::from_static(b"{}")),
        ];
        let card = Arc::new(CardFiles { digest: "d".to_owned(), files });
        let pieces: Vec<_> = chunks(card).collect();
        let sizes: Vec<_> = pieces.iter().map(|piece| (piece.file.as_str(), piece.data.len())).collect();
        let expected = [CARD_CHUNK_BYTES, CARD_CHUNK_BYTES, 5].map(|size| ("tokenizer.json", size));
        assert_eq!(sizes[..3], expected);
        assert_eq!(sizes[3..], [("empty.json", 0), ("config.json", 2)]);
        let joined: Vec<u8> = pieces[..3].iter().flat_map(|piece| piece.data.to_vec()).collect();
        assert!(joined == big && pieces.iter().all(|piece| piece.card_digest == "d"));
    }
}
