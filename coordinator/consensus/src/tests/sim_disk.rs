//! A disk in memory that can lose power, fail one operation, and be edited byte by byte.
//!
//! It keeps what a real one keeps apart: what the process sees, and what the medium holds. When power is lost, of the
//! writes since a file's last flush any subset of sectors has reached the medium, and of the name changes since the
//! last flush of names any prefix.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::generator::Generator;
use crate::wal::disk::{Disk, DiskFile};

const SECTOR: u64 = 512;

#[derive(Clone, Default)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Flushes wait for this.
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    held: Mutex<bool>,
    released: Condvar,
}

impl Gate {
    fn pass(&self) {
        let held = self.held.lock().unwrap();
        drop(self.released.wait_while(held, |held| *held).unwrap());
    }
}

#[derive(Clone, Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    /// Writes, flushes and name changes so far.
    operations: u64,
    flushes: u64,
    fault: Option<Fault>,
    /// Bytes that all files together may have.
    room: Option<u64>,
}

/// What goes wrong, and at which operation (counted from 1).
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// This operation and all later ones fail: the process is dead.
    DeadFrom(u64),
    /// The first flush at or after this operation fails, once.
    FlushFails(u64),
    /// The first write at or after this operation finds the disk full; half of it is written.
    Full(u64),
}

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Cut(u64),
}

#[derive(Clone)]
enum NameChange {
    Link(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(PartialEq)]
enum Operation {
    Write,
    Flush,
    Name,
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Flushes of file contents so far.
    pub(crate) fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// Flushes hang until [`SimDisk::release`].
    pub(crate) fn hold(&self) {
        *self.gate.held.lock().unwrap() = true;
    }

    pub(crate) fn release(&self) {
        *self.gate.held.lock().unwrap() = false;
        self.gate.released.notify_all();
    }

    /// All files together; beyond, writes find the disk full.
    pub(crate) fn hold_at_most(&self, room: u64) {
        self.state().room = Some(room);
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// It dies at one of the next operations: between a write and its flush, or half-way through a replacement.
    pub(crate) fn die_soon(&self, generator: &mut Generator) {
        let at = self.operations() + 1 + generator.below(8);
        self.fail(Fault::DeadFrom(at));
    }

    /// What has not gone wrong yet does not, and there is room without end.
    pub(crate) fn mend(&self) {
        let mut state = self.state();
        (state.fault, state.room) = (None, None);
    }

    /// The disk as the next process finds it when only the process died.
    pub(crate) fn after_kill(&self) -> SimDisk {
        let mut state = self.state().clone();
        state.fault = None;
        SimDisk { state: Arc::new(Mutex::new(state)), gate: Arc::default() }
    }

    /// The disk as it comes back after a power loss.
    pub(crate) fn after_power_loss(&self, generator: &mut Generator) -> SimDisk {
        let old = self.state();
        let mut names = old.durable_names.clone();
        let kept = generator.below(old.pending_names.len() as u64 + 1) as usize;
        old.pending_names.iter().take(kept).for_each(|change| change.apply(&mut names));
        let mut files = Vec::new();
        for file in &old.files {
            let bytes = file.after_power_loss(generator);
            files.push(Content { seen: bytes.clone(), durable: bytes, pending: Vec::new() });
        }
        let state = State { files, durable_names: names.clone(), names, ..State::default() };
        SimDisk { state: Arc::new(Mutex::new(state)), gate: Arc::default() }
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        Disk::read(self, name).unwrap().unwrap()
    }

    /// Replaces a file's bytes, on the medium too.
    pub(crate) fn edit(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.names[name];
        state.files[file] = Content { seen: bytes.clone(), durable: bytes, pending: Vec::new() };
    }
}

impl State {
    fn operation(&mut self, operation: Operation) -> io::Result<()> {
        self.operations += 1;
        match self.fault {
            Some(Fault::DeadFrom(at)) if self.operations >= at => {
                Err(io::Error::other("the process is dead"))
            }
            Some(Fault::FlushFails(at)) if self.operations >= at && operation == Operation::Flush => {
                self.fault = None;
                Err(io::Error::from_raw_os_error(5))
            }
            Some(Fault::Full(at)) if self.operations >= at && operation == Operation::Write => {
                Err(io::Error::from_raw_os_error(28))
            }
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].seen.len() as u64).sum()
    }

    fn fits(&self, file: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let grown = (offset + bytes.len() as u64).saturating_sub(self.files[file].seen.len() as u64);
        let fits = self.room.is_none_or(|room| self.used() + grown <= room);
        if fits { Ok(()) } else { Err(io::Error::from_raw_os_error(28)) }
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Link(name, file) => drop(names.insert(name.clone(), *file)),
            NameChange::Rename(from, to) => {
                let file = names.remove(from).unwrap();
                names.insert(to.clone(), file);
            }
            NameChange::Remove(name) => drop(names.remove(name)),
        }
    }
}

impl Content {
    fn after_power_loss(&self, generator: &mut Generator) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            match change {
                Change::Cut(length) if generator.chance(50) => bytes.truncate(*length as usize),
                Change::Cut(_) => {}
                Change::Write(offset, written) => {
                    let mut at = 0;
                    while at < written.len() {
                        let sector_end = ((offset + at as u64) / SECTOR + 1) * SECTOR - offset;
                        let end = written.len().min(sector_end as usize);
                        if generator.chance(50) {
                            put(&mut bytes, offset + at as u64, &written[at..end]);
                        }
                        at = end;
                    }
                }
            }
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    let offset = offset as usize;
    if bytes.len() < offset + written.len() {
        bytes.resize(offset + written.len(), 0);
    }
    bytes[offset..offset + written.len()].copy_from_slice(written);
}

struct SimFile {
    gate: Arc<Gate>,
    state: Arc<Mutex<State>>,
    file: usize,
}

impl DiskFile for SimFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let full = state.operation(Operation::Write).and_then(|()| state.fits(self.file, offset, bytes));
        let fits = if full.is_ok() { bytes.len() } else { bytes.len() / 2 };
        let dead = matches!(state.fault, Some(Fault::DeadFrom(_))) && full.is_err();
        if !dead {
            let file = &mut state.files[self.file];
            put(&mut file.seen, offset, &bytes[..fits]);
            file.pending.push(Change::Write(offset, bytes[..fits].to_vec()));
        }
        full
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.operation(Operation::Write)?;
        let file = &mut state.files[self.file];
        file.seen.truncate(length as usize);
        file.pending.push(Change::Cut(length));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.gate.pass();
        let mut state = self.state.lock().unwrap();
        state.operation(Operation::Flush)?;
        state.flushes += 1;
        let file = &mut state.files[self.file];
        file.durable = file.seen.clone();
        file.pending.clear();
        Ok(())
    }
}

impl Disk for SimDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let state = self.state();
        Ok(state.names.get(name).map(|file| state.files[*file].seen.clone()))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.operation(Operation::Name)?;
        let file = state.files.len();
        state.files.push(Content::default());
        state.rename(NameChange::Link(name.to_owned(), file));
        Ok(Box::new(SimFile { gate: Arc::clone(&self.gate), state: Arc::clone(&self.state), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.state().names[name];
        Ok(Box::new(SimFile { gate: Arc::clone(&self.gate), state: Arc::clone(&self.state), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Operation::Name)?;
        state.rename(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Operation::Name)?;
        state.rename(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Operation::Flush)?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }

    /// An unbounded disk does not say.
    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        let room = state.room.ok_or(io::ErrorKind::Unsupported)?;
        Ok(room.saturating_sub(state.used()))
    }
}
