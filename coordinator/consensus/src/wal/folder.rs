//! A replica's folder: private, and held by one process at a time.
//!
//! The lock is `flock` on a file of its own, which the kernel releases when the process ends however it ends, so
//! there is no stale lock to clean up. The process id inside is only for the error message.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;

use crate::error::OpenError;
use crate::wal::ballast::Ballasted;
use crate::wal::disk::{Disk, RealDisk};
use crate::wal::hands::Hands;

const LOCK: &str = "lock";

/// The locked folder. Whoever writes into it holds a clone; the lock ends with the last one.
#[derive(Clone)]
pub(crate) struct Folder {
    disk: Arc<dyn Disk>,
    hands: Hands,
    _lock: Arc<Lock>,
}

struct Lock {
    _file: Option<File>,
    released: watch::Sender<bool>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file closes right after this, in the same drop; waiters are woken by the channel's end.
        self._file = None;
        self.released.send_replace(true);
    }
}

impl Folder {
    /// Creates the folder if it is missing, makes it private, and locks it. The receiver turns `true` when the
    /// lock has been released.
    pub(crate) fn lock(path: &Path) -> Result<(Folder, watch::Receiver<bool>), OpenError> {
        let failed = |doing: &str| {
            let doing = format!("{doing} {}", path.display());
            move |source: io::Error| OpenError::Io { doing, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("creating the folder"))?;
        let private = Permissions::from_mode(0o700);
        std::fs::set_permissions(path, private).map_err(failed("making private the folder"))?;
        let file = lock_file(path)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(path.to_path_buf()));
        Ok(Folder::holding(disk, Some(file)))
    }

    /// A folder on another disk, without a lock file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn on(disk: Arc<dyn Disk>) -> (Folder, watch::Receiver<bool>) {
        Folder::holding(disk, None)
    }

    /// As [`Folder::on`], where all that blocks takes its time by a clock.
    #[cfg(test)]
    pub(crate) fn worked_by(disk: Arc<dyn Disk>, hands: Hands) -> (Folder, watch::Receiver<bool>) {
        let (folder, released) = Folder::holding(disk, None);
        (Folder { hands, ..folder }, released)
    }

    fn holding(disk: Arc<dyn Disk>, file: Option<File>) -> (Folder, watch::Receiver<bool>) {
        let (released, on_release) = watch::channel(false);
        (
            Folder { disk, hands: Hands::default(), _lock: Arc::new(Lock { _file: file, released }) },
            on_release,
        )
    }

    /// The folder with a ballast of so many bytes, and the disk to look after it. The lock is not held by that.
    pub(crate) fn ballasted(self, bytes: u64) -> (Folder, Ballasted) {
        let disk = Ballasted::new(Arc::clone(&self.disk), bytes);
        (Folder { disk: Arc::new(disk.clone()), ..self }, disk)
    }

    /// Who works on it.
    pub(crate) fn hands(&self) -> Hands {
        self.hands.clone()
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }
}

fn lock_file(folder: &Path) -> Result<File, OpenError> {
    let path: PathBuf = folder.join(LOCK);
    let failed = |source: io::Error| OpenError::Io { doing: format!("locking {}", path.display()), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    if let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if errno != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(errno.into()));
        }
        let mut pid = String::new();
        let holder = file.read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
        return Err(OpenError::Locked { folder: folder.to_path_buf(), holder });
    }
    file.set_len(0).map_err(failed)?;
    write!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}
