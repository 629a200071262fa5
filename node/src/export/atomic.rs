//! Files that appear whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// Bytes after which what was written so far begins to go to the disk.
const FLUSH_EVERY: u64 = 8 << 20;

/// A file that is written under a temporary name in the target's directory and gets its name when it is complete and on the
/// disk. Dropped before that, it is removed and the target stays as it was. A large file goes to the disk while it is written, so
/// that little is left to wait for at the end.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    file: Option<BufWriter<File>>,
    /// Bytes written since the disk was last asked to take them.
    unflushed: u64,
    flusher: Option<Flusher>,
}

/// A thread that makes what was written durable, at most once at a time.
#[derive(Debug)]
struct Flusher {
    wanted: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Flusher {
    fn start(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let (wanted, wishes) = sync_channel(1);
        let flush = move || wishes.iter().try_for_each(|()| file.sync_data());
        Ok(Self { wanted, thread: thread::Builder::new().name("flush".to_owned()).spawn(flush)? })
    }

    /// Waits for it. The system tells of a write that failed only once, so what it told this thread counts.
    fn finish(self) -> io::Result<()> {
        drop(self.wanted);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that flushes has stopped")))
    }
}

impl AtomicFile {
    /// Begins to write `target`.
    ///
    /// # Errors
    /// The directory does not exist or cannot be written.
    pub fn create(target: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name =
            target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
        loop {
            let mut temporary = std::ffi::OsString::from(".");
            temporary.push(name);
            temporary.push(format!(".{}-{}.tmp", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            let temporary = target.with_file_name(temporary);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    let file = Some(BufWriter::with_capacity(256 << 10, file));
                    return Ok(Self { target: target.to_owned(), temporary, file, unflushed: 0, flusher: None });
                }
                // Left by a killed process that had our number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Where the file will appear.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Makes the file durable and gives it its name, replacing what had it.
    ///
    /// # Errors
    /// Writing, flushing or renaming failed; the temporary file is removed.
    pub fn commit(mut self) -> io::Result<()> {
        let Some(writer) = self.file.take() else { return Ok(()) };
        let flushed = self.flusher.take().map_or(Ok(()), Flusher::finish);
        let written = writer.into_inner().map_err(io::IntoInnerError::into_error);
        let done = flushed.and(written).and_then(|file| file.sync_all());
        let done = done.and_then(|()| fs::rename(&self.temporary, &self.target));
        if let Err(error) = done {
            let _ = fs::remove_file(&self.temporary);
            return Err(error);
        }
        // The name is durable only when its directory is.
        let directory = self.target.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }

    /// Lets the disk take what was written so far, while more is being written.
    fn flush_behind(&mut self) -> io::Result<()> {
        let flusher = match self.flusher.take() {
            Some(flusher) => flusher,
            None => Flusher::start(self.writer()?.get_ref())?,
        };
        // If it takes no wish it is still at it, or it has failed, which is told at the end.
        let _ = flusher.wanted.try_send(());
        self.flusher = Some(flusher);
        Ok(())
    }

    fn writer(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.file.as_mut().ok_or_else(|| io::Error::other("the file is already complete"))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer()?.write(bytes)?;
        self.unflushed += written as u64;
        if self.unflushed >= FLUSH_EVERY {
            self.unflushed = 0;
            self.flush_behind()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer()?.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.writer()?.seek(to)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_told_the_flushing_thread_is_not_lost() {
        // A device that cannot be made durable says so.
        let device = File::open("/dev/null").unwrap();
        assert!(device.sync_data().is_err());
        let flusher = Flusher::start(&device).unwrap();
        flusher.wanted.send(()).unwrap();
        assert!(flusher.finish().is_err());
        assert!(Flusher::start(&device).unwrap().finish().is_ok(), "nobody asked it");
    }

    #[test]
    fn a_file_that_is_flushed_while_it_is_written_has_all_its_bytes_or_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let piece: Vec<u8> = (0..=u8::MAX).cycle().take(1_000_003).collect();
        let pieces = usize::try_from(3 * FLUSH_EVERY).unwrap() / piece.len();
        for commits in [false, true] {
            let mut file = AtomicFile::create(&path).unwrap();
            for _ in 0..pieces {
                file.write_all(&piece).unwrap();
            }
            assert!(file.flusher.is_some());
            if commits {
                file.commit().unwrap();
            } else {
                drop(file);
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
            }
        }
        assert!(fs::read(&path).unwrap() == piece.repeat(pieces));
    }
}
