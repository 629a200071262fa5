//! Killed processes and power cuts: nothing acknowledged is ever lost, and no batch is there in part.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are tests")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
};

use support::{
    body,
    disk::{Coin, MemoryDisk},
    hash_of, log, small,
    workload::{self, child_options, start, verify},
};
use tributary_store::{EntryIndex, Reason, Recovery, Retention, Store, StoreError, StoreOptions, WriteBatch};

/// Not a test of its own: what the other tests run and kill.
#[test]
fn child() {
    workload::child();
}

#[test]
fn nothing_acknowledged_is_lost_in_24_kills() {
    let mut coin = Coin(7);
    let mut replays = 0;
    for per_batch in [1, 4, 16] {
        let dir = tempfile::tempdir().unwrap();
        let (mut acked, mut deleted) = (0, 0);
        for kill in 0..8 {
            let mut running = start(dir.path(), per_batch);
            let lines = 1 + coin.below(60);
            assert_eq!(running.read(lines), lines, "the child ended by itself");
            let (now, gone) = running.kill();
            assert!(now > acked, "the child did no work");
            (acked, deleted) = (now, gone.max(deleted));
            if kill % 4 == 3 {
                // Every other time also without the index: the log alone must do.
                std::fs::remove_dir_all(dir.path().join("index")).unwrap();
            }
            let (store, report) = Store::open(dir.path(), &child_options()).unwrap();
            replays += u64::from(report.recovery == Recovery::Replayed);
            verify(&store, &report, per_batch, acked, deleted);
        }
    }
    assert!(replays > 0, "no kill left anything to replay: the fault did not happen");
}

fn on(disk: &MemoryDisk) -> StoreOptions {
    StoreOptions { fs: Arc::new(disk.clone()), ..small() }
}

/// One cut of the drop-unsynced disk, and what must be there after it.
fn cut_once(seed: u64) -> (u64, bool) {
    const PER_BATCH: u64 = 4;
    let mut coin = Coin(seed);
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let (store, _) = Store::open(dir.path(), &on(&disk)).unwrap();
    let rounds = 3 + coin.below(40);
    let (mut acked, mut deleted) = (0, 0);
    let cut_at = disk.faults.syncs.load(Ordering::SeqCst) + rounds;
    for round in 0.. {
        let mut batch = WriteBatch::new();
        for seq in acked..acked + PER_BATCH {
            let chunk = body(seq, 3000);
            batch.put_entry(log(1), seq, seq.to_be_bytes(), EntryIndex::default());
            batch.put_chunk(hash_of(&chunk), chunk);
        }
        if disk.faults.syncs.load(Ordering::SeqCst) >= cut_at {
            // The last batch is written but its fdatasync never ends.
            disk.faults.fail_sync.store(true, Ordering::SeqCst);
            assert!(store.commit(batch).is_err());
            break;
        }
        store.commit(batch).unwrap();
        acked += PER_BATCH;
        if round % 5 == 4 {
            let mut batch = WriteBatch::new();
            for seq in deleted..deleted + PER_BATCH {
                batch.tombstone_chunk(hash_of(&body(seq, 3000)), Reason::Expired);
            }
            batch.set_counter("deleted", deleted + PER_BATCH);
            store.commit(batch).unwrap();
            deleted += PER_BATCH;
        }
        if round % 7 == 6 {
            store.gc(false, &Retention::default()).unwrap();
        }
    }
    disk.power_off();
    assert!(matches!(store.commit(WriteBatch::new()), Err(StoreError::Poisoned { .. })));
    drop(store);
    disk.power_on(seed);
    if seed.is_multiple_of(3) {
        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    }
    let (store, report) = Store::open(dir.path(), &on(&disk)).unwrap();
    verify(&store, &report, PER_BATCH, acked, deleted);
    // And it goes on.
    let mut batch = WriteBatch::new();
    let next = store.head(&log(1)).unwrap().map_or(0, |(seq, _)| seq + 1);
    batch.put_entry(log(1), next, next.to_be_bytes(), EntryIndex::default());
    store.commit(batch).unwrap();
    (disk.faults.lost_sectors.load(Ordering::SeqCst), report.cut_bytes > 0)
}

#[test]
fn nothing_acknowledged_is_lost_in_60_power_cuts_of_a_disk_that_drops_unsynced_sectors() {
    let results: Vec<_> = (0..60).map(cut_once).collect();
    assert!(results.iter().any(|(lost, _)| *lost > 0), "no sector was ever lost: the fault did not happen");
}

#[test]
fn a_torn_group_is_cut_and_its_batches_are_gone_together() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    {
        let (store, _) = Store::open(dir.path(), &on(&disk)).unwrap();
        for seq in 0..4u64 {
            let mut batch = WriteBatch::new();
            batch.put_entry(log(1), seq, vec![seq as u8; 600], EntryIndex::default());
            store.commit(batch).unwrap();
        }
    }
    let name = disk.names().into_iter().find(|name| name.starts_with("state")).unwrap();
    assert!(disk.damage(&name, |bytes| {
        let len = bytes.len();
        bytes[len - 50..].fill(0xee);
    }));
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, report) = Store::open(dir.path(), &on(&disk)).unwrap();
    assert!(report.cut_bytes > 600, "{report:?}");
    assert_eq!(store.head(&log(1)).unwrap().unwrap().0, 2);
    drop(store);
    let (_, report) = Store::open(dir.path(), &on(&disk)).unwrap();
    assert_eq!((report.recovery, report.cut_bytes), (Recovery::Clean, 0));
}

#[test]
fn after_a_failed_fdatasync_the_store_stops_and_a_reopen_has_everything_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let (store, _) = Store::open(dir.path(), &on(&disk)).unwrap();
    let put = |seq: u64| {
        let mut batch = WriteBatch::new();
        batch.put_entry(log(1), seq, *b"entry", EntryIndex::default());
        store.commit(batch)
    };
    put(0).unwrap();
    disk.faults.fail_sync.store(true, Ordering::SeqCst);
    assert!(matches!(put(1), Err(StoreError::Poisoned { .. })));
    assert_eq!(disk.faults.failed_syncs.load(Ordering::SeqCst), 1);
    let syncs = disk.faults.syncs.load(Ordering::SeqCst);
    assert!(matches!(put(2), Err(StoreError::Poisoned { .. })));
    assert_eq!(disk.faults.syncs.load(Ordering::SeqCst), syncs, "a failed fdatasync must never be tried again");
    assert_eq!(store.entry(&log(1), 0).unwrap().as_deref(), Some(b"entry".as_slice()), "reads go on");
    assert_eq!(store.entry(&log(1), 1).unwrap(), None);
    assert!(store.stats().stopped);
    drop(store);
    let (store, _) = Store::open(dir.path(), &on(&disk)).unwrap();
    assert_eq!(store.head(&log(1)).unwrap().unwrap().0, 0);
}

#[test]
fn a_write_that_meets_a_full_disk_is_taken_back_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let (store, _) = Store::open(dir.path(), &on(&disk)).unwrap();
    let put = |seq: u64| {
        let mut batch = WriteBatch::new();
        batch.put_entry(log(1), seq, vec![1; 500], EntryIndex::default());
        batch.put_chunk(hash_of(&body(seq, 3000)), body(seq, 3000));
        store.commit(batch)
    };
    put(0).unwrap();
    disk.faults.room.store(1000, Ordering::SeqCst);
    assert!(matches!(put(1), Err(StoreError::DiskFull { .. })));
    assert_eq!(disk.faults.full.load(Ordering::SeqCst), 1);
    disk.faults.room.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(store.entry(&log(1), 1).unwrap(), None);
    put(1).unwrap();
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, report) = Store::open(dir.path(), &on(&disk)).unwrap();
    assert!(report.damage.is_empty() && report.cut_bytes == 0, "{report:?}");
    assert_eq!(store.head(&log(1)).unwrap().unwrap().0, 1);
}

/// An ext4 file system in a file, unmounted and removed whatever happens.
struct LoopDisk {
    _image: tempfile::TempDir,
    image: PathBuf,
    mount: PathBuf,
}

fn run(program: &str, args: &[&std::ffi::OsStr]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

impl LoopDisk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
        if !run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()]) {
            return None;
        }
        let disk = Self { _image: dir, image, mount };
        disk.mount().then_some(disk)
    }

    fn mount(&self) -> bool {
        run("mount", &["-o".as_ref(), "loop".as_ref(), self.image.as_ref(), self.mount.as_ref()])
    }

    fn unmount(&self) -> bool {
        run("umount", &[self.mount.as_ref()])
    }

    /// Gets ready to cut the power with `EXT4_IOC_SHUTDOWN` and `NOLOGFLUSH`: from then on nothing reaches the disk, the
    /// journal included. The cut itself comes when a line is written to the helper.
    fn scissors(&self) -> Child {
        let script = "import fcntl,os,struct,sys\n\
                      fd=os.open(sys.argv[1],os.O_RDONLY)\n\
                      print('ready',flush=True)\n\
                      sys.stdin.readline()\n\
                      fcntl.ioctl(fd,0x8004587d,struct.pack('I',2))";
        let mut helper = Command::new("python3")
            .args(["-c", script])
            .arg(&self.mount)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(helper.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        helper
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if !self.unmount() {
            run("umount", &["-l".as_ref(), self.mount.as_ref()]);
        }
    }
}

fn is_dead(mount: &Path) -> bool {
    std::fs::write(mount.join("probe"), b"x").and_then(|()| std::fs::File::open(mount)?.sync_all()).is_err()
}

#[test]
fn nothing_acknowledged_is_lost_in_power_cuts_of_an_ext4_disk() {
    let required = std::env::var_os("TRIBUTARY_REQUIRE_LOOP").is_some_and(|value| value == "1");
    let Some(disk) = LoopDisk::new() else {
        assert!(
            !required,
            "TRIBUTARY_REQUIRE_LOOP=1, but no ext4 image can be mounted here (root and loop devices needed)"
        );
        println!("no loop device or no right to mount: the cuts of the drop-unsynced disk stand in");
        for seed in 1000..1010 {
            cut_once(seed);
        }
        return;
    };
    println!("cutting the power of an ext4 disk on a loop device");
    let mut coin = Coin(3);
    let dir = disk.mount.join("store");
    let (mut acked, mut deleted) = (0, 0);
    for cut in 0..6 {
        let mut running = start(&dir, 4);
        let lines = 20 + coin.below(200);
        assert_eq!(running.read(lines), lines, "the child ended by itself");
        let mut scissors = disk.scissors();
        // What was printed before the cut was acknowledged before it. What is printed after it does not count, as it could
        // not at a real power cut: an fdatasync that is under way when the journal is aborted can return success.
        let (now, gone) = running.now();
        scissors.stdin.take().unwrap().write_all(b"cut\n").unwrap();
        assert!(scissors.wait().unwrap().success(), "the ioctl failed");
        assert!(is_dead(&disk.mount), "the file system still works: the fault did not happen");
        let (last, _) = running.kill();
        assert!(last - now <= 4 * 200, "the child went on for {} entries on a dead disk", last - now);
        assert!(now > acked, "the child did no work");
        (acked, deleted) = (now, gone.max(deleted));
        assert!(disk.unmount() && disk.mount(), "cannot remount");
        let (store, report) = Store::open(&dir, &child_options()).unwrap();
        let count = verify(&store, &report, 4, acked, deleted);
        println!("cut {cut}: {acked} acknowledged, {count} there, {:?}", report.recovery);
    }
}
