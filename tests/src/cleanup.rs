//! What a test leaves behind when it is terminated: nothing.
//!
//! Test runners end a test that takes too long with SIGTERM, and Ctrl-C is SIGINT; neither runs a destructor. A thread waits for
//! both, kills the nodes that the test started, by their process ids, removes its folders, and ends the process as the signal
//! would have.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Default)]
struct Left {
    folders: Vec<PathBuf>,
    children: Vec<u32>,
    testnets: Vec<PathBuf>,
}

static LEFT: Mutex<Left> = Mutex::new(Left { folders: Vec::new(), children: Vec::new(), testnets: Vec::new() });

fn left() -> MutexGuard<'static, Left> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watched() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| drop(std::thread::spawn(watch)));
}

/// A folder that must not outlive the process.
pub(crate) fn folder(path: &Path) {
    watched();
    left().folders.push(path.to_owned());
}

/// The folder of a testnet that must not outlive the process, and the folder around it.
pub fn testnet(path: &Path) {
    watched();
    left().testnets.push(path.to_owned());
}

/// Takes down a testnet, if there is one, by the program itself.
pub fn end_testnet(path: &Path) {
    if !path.join("testnet.json").exists() {
        return;
    }
    let mut down = std::process::Command::new(crate::node::program());
    down.args(["testnet", "down", "--dir"]).arg(path).stdin(std::process::Stdio::null());
    match down.output() {
        Ok(output) if output.status.success() => {}
        other => eprintln!("the testnet in {} was not taken down: {other:?}", path.display()),
    }
}

/// A folder that was removed.
pub(crate) fn removed(path: &Path) {
    left().folders.retain(|known| known != path);
}

/// A process that must not outlive this one.
pub(crate) fn child(pid: u32) {
    left().children.push(pid);
}

/// A process that was waited for: its id may be another one's soon.
pub(crate) fn ended(pid: u32) {
    left().children.retain(|known| *known != pid);
}

fn watch() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let code = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let mut interrupt = signal(SignalKind::interrupt()).unwrap();
        tokio::select! {
            _ = terminate.recv() => 128 + 15,
            _ = interrupt.recv() => 128 + 2,
        }
    });
    // Held to the end: nothing is started any more.
    let left = left();
    for pid in &left.children {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    for testnet in &left.testnets {
        end_testnet(testnet);
        // The test made it for this testnet alone.
        let _ = testnet.parent().map(std::fs::remove_dir_all);
    }
    for folder in &left.folders {
        // A killed process may still be writing its last file.
        for _ in 0..100 {
            if std::fs::remove_dir_all(folder).is_ok() || !folder.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    std::process::exit(code);
}
