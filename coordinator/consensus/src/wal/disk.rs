//! The seam between the write-ahead log and the operating system: one folder of flat names. Tests put a simulated
//! disk here that loses unflushed bytes, fails the n-th flush, or is full.
//!
//! Names are made durable apart from contents: a created, renamed or removed file is only certain after
//! [`Disk::sync_names`]. File contents are only certain after [`DiskFile::sync`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// A folder.
pub(crate) trait Disk: Send + Sync + 'static {
    /// All names in the folder, in any order.
    fn names(&self) -> io::Result<Vec<String>>;
    /// The whole file, or `None` if there is none of that name.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// A file of that name, made empty if it exists.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// An existing file, to be written at any offset.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives `from` the name `to`, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes the file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Flushes creations, renames and removals.
    fn sync_names(&self) -> io::Result<()>;
    /// Bytes that this user may still write.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// A file open for writing.
pub(crate) trait DiskFile: Send {
    /// Writes all bytes at the offset, growing the file if need be.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to this length.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Flushes contents and length to the medium, not only to the drive's cache (std asks macOS for F_FULLFSYNC).
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of the file system.
pub(crate) struct RealDisk {
    folder: PathBuf,
}

impl RealDisk {
    pub(crate) fn new(folder: PathBuf) -> RealDisk {
        RealDisk { folder }
    }
}

impl Disk for RealDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        // The registry holds the key of the cluster's authority: nobody else reads these files.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        Ok(Box::new(options.open(self.folder.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(self.folder.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::statvfs(&self.folder)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

impl DiskFile for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
