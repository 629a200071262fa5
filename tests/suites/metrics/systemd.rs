//! What systemd hears of a node, and what it says to the unit.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use tokio::net::UnixDatagram;
use tributary_tests::{
    home::{Sandbox, stream},
    node::{NodeProcess, program},
    wait::until,
};

/// A unit's worst mark that is let pass, of 10: 1.3 when it was written, with access to the network.
const EXPOSURE: &str = "--threshold=15";

/// Takes what a node says, line by line, as soon as it says it.
async fn listen(manager: UnixDatagram, heard: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 4096];
    while let Ok(len) = manager.recv(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..len]);
        heard.lock().unwrap().extend(text.lines().map(str::to_owned));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_of_the_start_of_life_and_of_the_end() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path().join("notify");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listening = tokio::spawn(listen(UnixDatagram::bind(&socket).unwrap(), Arc::clone(&heard)));
    let count = |line: &str| heard.lock().unwrap().iter().filter(|said| *said == line).count();
    let home = sandbox.machine("machine", &[stream("/imu", "")]);
    let mut command = Command::new(program());
    command.args(["run", "-v"]).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "300000");
    let node = NodeProcess::try_start_by(command, &home).await.unwrap();
    until("ready, and three signs of life", async || {
        (count("WATCHDOG=1") >= 3 && count("READY=1") == 1 && count("STATUS=ready") > 0).then_some(())
    })
    .await;
    assert_eq!(count("STOPPING=1"), 0);
    node.stop().await;
    until("the end", async || (count("STOPPING=1") == 1).then_some(())).await;
    listening.abort();
    // Without a manager nothing is told, and nothing is wrong.
    let node = NodeProcess::start(&home).await;
    assert!(!node.log().contains("service manager"), "{}", node.log());
}

/// `systemd-analyze`, where it is.
fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(_) => {
            println!("not tested: systemd-analyze is not installed");
            None
        }
    }
}

#[test]
fn the_unit_is_sound_and_hardened() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("node/systemd/tributary.service");
    let text = fs::read_to_string(source).unwrap();
    let keys: BTreeSet<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(key, _)| key).collect();
    for key in
        ["DynamicUser", "StateDirectory", "WatchdogSec", "NotifyAccess", "ProtectSystem", "RestartPreventExitStatus"]
    {
        assert!(keys.contains(key), "the unit lacks {key}");
    }
    let sandbox = Sandbox::new();
    let unit = sandbox.path().join("tributary.service");
    let installed = text.replace("/usr/local/bin/tributary", program().to_str().unwrap());
    assert_ne!(installed, text, "the program is where the documentation puts it");
    fs::write(&unit, installed).unwrap();
    let Some(verified) = analyze(&["verify", "--man=no"], &unit) else { return };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    let Some(marked) = analyze(&["security", "--offline=yes", "--no-pager", EXPOSURE], &unit) else { return };
    assert!(marked.status.success(), "{}", String::from_utf8_lossy(&marked.stdout));
}
