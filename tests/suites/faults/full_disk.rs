//! A disk that fills up under the machine, and has room again later.

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::task::JoinHandle;
use tributary::{
    control::{
        ClientError,
        api::{CloseRequest, Closed, ExportFormat, IngestProgress, IngestResult},
    },
    service::status::WarningCode,
};
use tributary_tests::{
    disk,
    home::{Sandbox, head, make_home, stream},
    lines,
    node::NodeProcess,
    trade,
    wait::until,
};

const TOPICS: &[&str] = &["/imu"];
const TOPIC: &str = TOPICS[0];
const DISK_MIB: u64 = 384;
/// What the node leaves free of its own accord is 8 MiB, so that it can still write what is small.
const RESERVE_MIB: u64 = 6;

/// A small disk of its own, gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let size = format!("size={DISK_MIB}m,mode=700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output().unwrap();
        done.status.success().then_some(Self(path))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves only so much free, about. The node goes on writing meanwhile.
    fn fill(&self, room_mib: u64) {
        let (mut filler, block) = (fs::File::create(self.filler()).unwrap(), vec![1; 1 << 20]);
        loop {
            let disk = rustix::fs::statvfs(&self.0).unwrap();
            if disk.f_bavail * disk.f_frsize <= room_mib << 20 {
                break;
            }
            match filler.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    let len = filler.metadata().unwrap().len();
                    filler.set_len(len.saturating_sub(room_mib << 20)).unwrap();
                    break;
                }
                Err(error) => panic!("the disk cannot be filled: {error}"),
            }
        }
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that still dies has files there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn ingest(machine: &NodeProcess, next: &Arc<AtomicU64>) -> JoinHandle<Result<IngestResult, ClientError>> {
    let (client, source) = (machine.client().clone(), lines::endless(TOPICS, Arc::clone(next)));
    tokio::spawn(async move { client.run_with_lines("/v1/ingest/lines", source, |_: IngestProgress| {}).await })
}

/// Waits until nothing can be stored; returns what is durable.
async fn stalled(machine: &NodeProcess) -> u64 {
    until("the stream to stall", async || {
        let lane = machine.stream(TOPIC).await.lane;
        assert_eq!(lane.stopped, None, "a full disk is no reason to give up");
        lane.stalled.is_some().then_some(())
    })
    .await;
    let status = machine.status().await;
    let warning = status.warnings.iter().find(|warning| warning.code == WarningCode::LaneStalled).unwrap();
    assert!(warning.message.contains(TOPIC), "{warning:?}");
    assert!(!status.store.stopped);
    machine.stream(TOPIC).await.lane.durable_packages
}

async fn goes_on(machine: &NodeProcess, before: u64) {
    until("the stream to go on", async || {
        let lane = machine.stream(TOPIC).await.lane;
        (lane.stalled.is_none() && lane.durable_packages > before + 200).then_some(())
    })
    .await;
}

/// Messages at the buyer, once it has bought everything.
async fn bought(buyer: &NodeProcess, out: &Path) -> BTreeSet<u64> {
    let datasets: Vec<_> = buyer.feeds().await.remove(0).datasets.iter().map(|dataset| dataset.dataset).collect();
    for dataset in &datasets {
        trade::buy(buyer, *dataset).await;
    }
    let exported = trade::export(buyer, &trade::datasets(&datasets), &[ExportFormat::Ndjson], out).await;
    let mut messages = BTreeSet::new();
    for file in &exported.report.files {
        for line in fs::read_to_string(&file.path).unwrap().lines() {
            let package: serde_json::Value = serde_json::from_str(line).unwrap();
            let n = package["payload"]["n"].as_u64().unwrap();
            assert!(messages.insert(n), "message {n} came twice");
        }
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stalls_the_stream_and_loses_nothing() {
    let sandbox = Sandbox::new();
    let Some(disk) = SmallDisk::mount(sandbox.path().join("disk")) else {
        println!("not tested: only root may mount a small disk");
        return;
    };
    let home = disk.0.join("machine");
    let config = head("machine", sandbox.port("machine"), "").replace("ballast: none", "ballast: 2MiB");
    make_home(&home, &format!("{config}streams:\n{}", stream(TOPIC, ", chunk: { bytes: 32KiB, max_age: 200ms }")));
    let mut machine = NodeProcess::start(&home).await;
    let did = machine.status().await.did;
    let buyer = NodeProcess::start(&sandbox.buyer("buyer", "")).await;
    trade::follow(&buyer, &machine).await;

    // Full to the last byte, and room again.
    let next = Arc::new(AtomicU64::new(0));
    disk.fill(0);
    let job = ingest(&machine, &next);
    let durable = stalled(&machine).await;
    assert!(!job.is_finished(), "the source waits");
    disk.free();
    goes_on(&machine, durable).await;

    // Full again but for the node's reserve, and now it dies. It starts on the full disk, with everything that it acknowledged.
    disk.fill(RESERVE_MIB);
    stalled(&machine).await;
    let durable = machine.stream(TOPIC).await.lane.durable_packages;
    machine.kill();
    assert!(job.await.unwrap().is_err());
    let resumed = next.load(Relaxed);
    let machine = NodeProcess::start(&home).await;
    let job = ingest(&machine, &next);
    stalled(&machine).await;
    disk.free();
    goes_on(&machine, machine.stream(TOPIC).await.lane.durable_packages).await;
    job.abort();
    let _ = job.await;
    let lane = until("the end of the ingest", async || {
        let lane = machine.stream(TOPIC).await.lane;
        (lane.queued == 0 && lane.packages == lane.received).then_some(lane)
    })
    .await;
    assert_eq!((lane.dropped, lane.refused), (0, 0));
    let closed: Closed = machine.client().post("/v1/datasets/close", &CloseRequest::default()).await.unwrap();
    trade::follow(&buyer, &machine).await;
    trade::know(&buyer, closed.datasets[0]).await;

    let messages = bought(&buyer, &sandbox.path().join("out")).await;
    for n in (0..durable).chain(resumed..resumed + lane.durable_packages) {
        assert!(messages.contains(&n), "message {n} was acknowledged and is lost");
    }
    machine.stop().await;
    buyer.stop().await;
    let logs = disk::follow(&home, &did);
    logs.assert_all_closed();
    disk::assert_nothing_used_twice([&logs]);
}
