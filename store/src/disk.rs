//! The file operations the segment log needs, as a trait, so that tests can put a failing disk below the store.
//!
//! Offsets are explicit and files have no position, so any number of readers share one handle. The index (sled) does its own
//! I/O and is not below this layer; nothing acknowledged depends on it.

use std::{
    borrow::Cow,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, IoSlice},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::FallocateFlags;

/// One open segment file.
pub trait SegmentFile: Send + Sync + fmt::Debug {
    /// Writes all of `bufs`, one after the other, at `offset`.
    ///
    /// # Errors
    /// As the operating system reports; a part may have been written.
    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// `fdatasync`.
    ///
    /// # Errors
    /// As the operating system reports; what is on the disk is then unknown.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system reports.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As the operating system reports.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As the operating system reports.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Allocates and extends to `offset + len`, with zeros; a file system that cannot is not an error.
    ///
    /// # Errors
    /// `StorageFull` when there is no room.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Gives the blocks of a range back; it reads as zeros from then on. A file system that cannot is not an error.
    ///
    /// # Errors
    /// As the operating system reports.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Bytes on the disk (allocated blocks).
    ///
    /// # Errors
    /// As the operating system reports.
    fn allocated(&self) -> io::Result<u64>;
}

/// The directory operations.
pub trait SegmentFs: Send + Sync + fmt::Debug {
    /// Creates a file that must not exist, mode 0600.
    ///
    /// # Errors
    /// As the operating system reports.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>>;
    /// Opens a file that must exist, to read and write.
    ///
    /// # Errors
    /// As the operating system reports.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file within its directory.
    ///
    /// # Errors
    /// As the operating system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    ///
    /// # Errors
    /// As the operating system reports.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names of the files in `dir`.
    ///
    /// # Errors
    /// As the operating system reports.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Bytes an unprivileged process can still write on the file system of `dir`.
    ///
    /// # Errors
    /// As the operating system reports.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

/// `IOV_MAX` on Linux.
const MAX_VECTORS: usize = 1024;
/// Bytes given to the kernel in one call. For a longer write ext4 takes page-cache folios of up to 2 MiB; in a virtual machine these
/// are the ones whose memory the host has taken back, and getting it again made writes of 4 MiB six times slower than the
/// same bytes in pieces of this length (see docs/benchmarks.md). A chunk of the default size fits with its header and entry.
const MAX_WRITE: usize = 288 << 10;

/// What goes into one call: whole buffers as long as they fit, or the beginning of one that does not fit alone. `bufs` is not empty.
fn piece<'a>(bufs: &'a [IoSlice<'a>]) -> Cow<'a, [IoSlice<'a>]> {
    let mut bytes = 0;
    let fits = |buf: &&IoSlice<'_>| {
        bytes += buf.len();
        bytes <= MAX_WRITE
    };
    match bufs.iter().take(MAX_VECTORS).take_while(fits).count() {
        0 => Cow::Owned(vec![IoSlice::new(&bufs[0][..MAX_WRITE])]),
        count => Cow::Borrowed(&bufs[..count]),
    }
}

impl SegmentFile for RealFile {
    fn write_all_at(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut copy = bufs.to_vec();
        let mut rest = copy.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = rustix::io::pwritev(&self.0, &piece(rest), offset);
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        unsupported_is_fine(rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        unsupported_is_fine(rustix::fs::fallocate(&self.0, flags, offset, len))
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.blocks() * 512)
    }
}

fn unsupported_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl SegmentFs for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_length_arrive_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let lens = [0, 1, 300, MAX_WRITE, 7, MAX_WRITE + 1, 3 * MAX_WRITE, 0, MAX_WRITE - 1, 2, 5];
        let bufs: Vec<Vec<u8>> = (1u8..).zip(lens).map(|(byte, len)| vec![byte; len]).collect();
        let slices: Vec<IoSlice<'_>> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        let path = dir.path().join("file");
        RealDisk.create(&path).unwrap().write_all_at(&slices, 10).unwrap();
        let mut expected = vec![0; 10];
        expected.extend(bufs.concat());
        assert!(fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn a_call_takes_what_fits_and_never_nothing() {
        let (small, large) = (vec![1; 1000], vec![2; MAX_WRITE]);
        let of = |bufs: &[&Vec<u8>]| {
            let slices: Vec<IoSlice<'_>> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
            piece(&slices).iter().map(|slice| slice.len()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[&small, &small]), [1000, 1000]);
        assert_eq!(of(&[&small, &large]), [1000]);
        assert_eq!(of(&[&large, &small]), [MAX_WRITE]);
        assert_eq!(of(&[&vec![3; 5 * MAX_WRITE]]), [MAX_WRITE]);
        assert_eq!(of(&vec![&vec![4; 1]; MAX_VECTORS + 1]).len(), MAX_VECTORS);
    }
}
