//! Which files there are: from their upload until they are dropped or forgotten.
//!
//! Owns how many there may be and how large they may be together, for each tenant and for all. Refuses to forget or to drop what a
//! batch that is not over still has to read.

use alloc::collections::BTreeMap;
use alloc::string::String;

use crate::batch_field::BatchField;
use crate::batch_refusal::BatchRefusal;
use crate::field::{Field, check_id, check_line};
use crate::file::{FileChange, FileId, Purpose, StoredFile, bytes};
use crate::job::{KeptAnswer, Tenant};
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Bounded, Refusal, Reply};

pub(crate) type Files = BTreeMap<FileId, StoredFile>;

/// What counts against the bounds.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

impl Registry {
    pub(crate) fn change_file(&mut self, id: &FileId, change: &FileChange) -> Result<Reply, Refusal> {
        match change {
            FileChange::Add { tenant, name, pieces, at_unix_ms, until_unix_ms } => {
                let added = StoredFile {
                    tenant: *tenant,
                    name: String::from(name),
                    purpose: Purpose::Batch,
                    pieces: pieces.clone(),
                    made_at_unix_ms: *at_unix_ms,
                    until_unix_ms: *until_unix_ms,
                };
                self.add_file(id, added)
            }
            FileChange::Drop => self.drop_file(id),
        }
    }

    fn add_file(&mut self, id: &FileId, added: StoredFile) -> Result<Reply, Refusal> {
        check_id(&id.0, Field::Batch(BatchField::FileId))?;
        check_line(&added.name, limits::FILE_NAME_BYTES_MAX, Field::Batch(BatchField::FileName))?;
        let life_fits = added.until_unix_ms > added.made_at_unix_ms;
        let pieces_fit = (1..=limits::UPLOAD_PIECES_MAX).contains(&added.pieces.len());
        if !life_fits || !pieces_fit || !added.pieces.iter().all(is_held) {
            return Err(Refusal::Malformed { what: Field::Batch(BatchField::Pieces) });
        }
        match self.files.get(id) {
            Some(known) if *known == added => return Ok(Reply::AlreadySo),
            Some(_) => return Err(Refusal::Batch(BatchRefusal::FileIdTaken { file: id.clone() })),
            None => {}
        }
        self.place_for_files(added.tenant, 1, added.bytes(), added.made_at_unix_ms)?;
        self.files.insert(id.clone(), added);
        Ok(Reply::Done)
    }

    fn drop_file(&mut self, id: &FileId) -> Result<Reply, Refusal> {
        if self.is_read(id) {
            return Err(Refusal::Batch(BatchRefusal::FileInUse { file: id.clone() }));
        }
        Ok(if self.files.remove(id).is_some() { Reply::Done } else { Reply::AlreadySo })
    }

    /// Files and batches whose time is over.
    pub(crate) fn forget_files(&mut self, at: u64) -> Reply {
        let batches = self.batches.len();
        self.batches.retain(|_, batch| !batch.is_over(at));
        let over = self.files.iter().filter(|(id, file)| file.is_over(at) && !self.is_read(id));
        let over: alloc::vec::Vec<FileId> = over.map(|(id, _)| id.clone()).collect();
        over.iter().for_each(|id| drop(self.files.remove(id)));
        if self.batches.len() < batches || !over.is_empty() { Reply::Done } else { Reply::AlreadySo }
    }

    /// There is something to be forgotten at this moment.
    #[must_use]
    pub fn has_files_over(&self, now_unix_ms: u64) -> bool {
        self.batches.values().any(|batch| batch.is_over(now_unix_ms))
            || self.files.iter().any(|(id, file)| file.is_over(now_unix_ms) && !self.is_read(id))
    }

    /// A file, also one whose time is over.
    #[must_use]
    pub fn file(&self, id: &FileId) -> Option<&StoredFile> {
        self.files.get(id)
    }

    /// All remembered files, by id.
    pub fn files(&self) -> impl Iterator<Item = (&FileId, &StoredFile)> {
        self.files.iter()
    }

    /// Everything that is kept in pieces and shall stay: of files, of batches that are not over, and of responses that run.
    pub fn pieces(&self) -> impl Iterator<Item = &KeptAnswer> {
        let of_batches = self.batches.values().flat_map(|batch| batch.output.iter().chain(&batch.errors));
        let deferred = self.jobs.values().filter_map(|job| job.deferred.as_ref());
        let of_responses =
            deferred.flat_map(|deferred| core::iter::once(&deferred.question).chain(&deferred.progress));
        self.files.values().flat_map(|file| &file.pieces).chain(of_batches).chain(of_responses)
    }

    /// Room for so many more files of so many bytes together. What is over counts no more, and a batch that is not over counts with
    /// what it will make.
    pub(crate) fn place_for_files(
        &self,
        tenant: Tenant,
        files: usize,
        bytes: u64,
        at: u64,
    ) -> Result<(), Refusal> {
        let full = |what, limit| Err(Refusal::TooMany { what, limit });
        let (all, own) = (self.held(None, at), self.held(Some(tenant), at));
        if own.files + files > limits::FILES_PER_TENANT_MAX {
            return full(Bounded::FilesOfTenant, limits::FILES_PER_TENANT_MAX);
        }
        if all.files + files > limits::FILES_MAX {
            return full(Bounded::Files, limits::FILES_MAX);
        }
        if own.bytes.saturating_add(bytes) > limits::FILE_BYTES_PER_TENANT_MAX {
            return full(Bounded::FileMibOfTenant, mib(limits::FILE_BYTES_PER_TENANT_MAX));
        }
        if all.bytes.saturating_add(bytes) > limits::FILE_BYTES_MAX {
            return full(Bounded::FileMib, mib(limits::FILE_BYTES_MAX));
        }
        Ok(())
    }

    fn held(&self, of: Option<Tenant>, at: u64) -> Held {
        let is_his = |tenant: Tenant| of.is_none_or(|of| of == tenant);
        let mut held = Held::default();
        for file in self.files.values().filter(|file| is_his(file.tenant) && !file.is_over(at)) {
            held.files += 1;
            held.bytes = held.bytes.saturating_add(file.bytes());
        }
        for batch in self.batches.values().filter(|batch| is_his(batch.tenant) && batch.ended.is_none()) {
            held.files += limits::FILES_OF_BATCH;
            held.bytes = held.bytes.saturating_add(bytes(&batch.output)).saturating_add(bytes(&batch.errors));
        }
        held
    }

    fn is_read(&self, id: &FileId) -> bool {
        self.batches.values().any(|batch| batch.ended.is_none() && batch.input == *id)
    }
}

/// Somebody has it.
pub(crate) fn is_held(piece: &KeptAnswer) -> bool {
    (1..=limits::REPLICAS_MAX).contains(&piece.holders.len())
}

fn mib(bytes: u64) -> usize {
    usize::try_from(bytes >> 20).unwrap_or(usize::MAX)
}
