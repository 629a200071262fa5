//! Up, watch, kill, restart, verify, down.

use tributary_tests::{node::command, wait::until};

use super::common::{Net, nothing_left, processes};

#[tokio::test(flavor = "multi_thread")]
async fn buyers_get_what_they_bought_and_nothing_else_and_down_leaves_nothing() {
    let net = Net::up(&["--machines", "2", "--buyers", "3", "--speed", "4"]).await;
    let id = net.id();
    assert_eq!(processes(&id).len(), 6, "five nodes and the feeder");
    let again = net.run("up", &[]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("there is a testnet in"), "{again:?}");

    for machine in ["machine-1", "machine-2"] {
        net.closed_datasets(machine, 6).await;
    }
    let verified = net.run("verify", &[]).await.json();
    assert_eq!(verified["ok"], true, "{verified}");
    let buyers = verified["buyers"].as_array().unwrap();
    assert_eq!(buyers.len(), 3);
    for buyer in buyers {
        // The machine log and six streams; five are bought, one is not.
        assert_eq!(buyer["logs"], 7, "{buyer}");
        assert!(buyer["datasets_open"].as_u64().unwrap() >= 5, "{buyer}");
        assert!(buyer["datasets_closed"].as_u64().unwrap() >= 1, "{buyer}");
        assert!(buyer["packages"].as_u64().unwrap() > 0, "{buyer}");
    }

    let log = command(&net.dir(), &["testnet", "logs", "buyer-2", "--dir", net.dir().to_str().unwrap()]).await;
    assert!(log.code == Some(0) && log.stdout.contains("feed followed"), "{log:?}");
    let unknown = net.run("logs", &["buyer-9"]).await;
    assert!(unknown.code == Some(5) && unknown.stderr.contains("buyer-1, buyer-2"), "{unknown:?}");

    let ended = net.run("down", &[]).await.json();
    assert_eq!((ended["processes"].as_u64(), ended["kept"].as_bool()), (Some(6), Some(false)));
    nothing_left(&net.dir(), &id);
    assert_eq!(net.run("status", &[]).await.code, Some(5), "there is no testnet any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_killed_come_back_and_miss_nothing() {
    let net = Net::up(&["--machines", "1", "--buyers", "2", "--speed", "4"]).await;
    for name in ["machine-1", "buyer-1"] {
        let before = net.node(name).await;
        net.packages("buyer-2", 50).await;
        assert_eq!(net.run("kill", &[name]).await.code, Some(0));
        let node = net.node(name).await;
        assert_eq!((node["life"].as_str(), node["pid"].as_i64()), (Some("down"), None), "{node}");
        let twice = net.run("kill", &[name]).await;
        assert!(twice.code == Some(1) && twice.stderr.contains("does not run"), "{twice:?}");
        assert_eq!(net.run("restart", &[name]).await.code, Some(0));
        let node = net.node(name).await;
        assert_eq!(node["life"], "running", "{node}");
        assert_ne!(node["pid"], before["pid"]);
    }
    // The machine is fed again, and what it then publishes arrives.
    let before = net.node("buyer-1").await["packages"].as_u64().unwrap();
    net.packages("buyer-1", before + 100).await;
    net.closed_datasets("machine-1", 6).await;
    let verified = net.run("verify", &[]).await.json();
    assert_eq!(verified["ok"], true, "{verified}");

    // One that runs ends in order before it is started again.
    assert_eq!(net.run("restart", &["buyer-2"]).await.code, Some(0));
    let log = net.run("logs", &["buyer-2"]).await.stdout;
    assert!(log.contains("the node has stopped"), "{log}");
    assert_eq!(net.run("restart", &["feeder"]).await.code, Some(0));
    let before = net.node("buyer-1").await["packages"].as_u64().unwrap();
    net.packages("buyer-1", before + 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_told_and_what_is_wrong_is_refused() {
    let net = Net::up(&["--machines", "1", "--buyers", "1"]).await;
    // Not with `kill`, so the testnet does not expect it.
    let pid = net.node("buyer-1").await["pid"].as_i64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("the crash to be seen", async || (net.node("buyer-1").await["life"] == "crashed").then_some(())).await;
    let verified = net.run("verify", &["--wait", "1"]).await;
    assert_eq!(verified.code, Some(3), "{verified:?}");
    assert!(verified.stdout.contains("no node is running"), "{verified:?}");

    let cut = net.run("partition", &["machine-1|buyer-1"]).await;
    assert!(cut.code == Some(2) && cut.stderr.contains("--namespaces"), "{cut:?}");
    let dir = net.beside("occupied");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("letter"), "mine").unwrap();
    let dir = dir.to_str().unwrap();
    let occupied = command(net.dir().parent().unwrap(), &["testnet", "up", "--dir", dir]).await;
    assert!(occupied.code == Some(2) && occupied.stderr.contains("not empty"), "{occupied:?}");
    let none = command(net.dir().parent().unwrap(), &["testnet", "down", "--dir", dir]).await;
    assert_eq!(none.code, Some(5), "{none:?}");
    for arguments in [["--machines", "0"], ["--buyers", "201"], ["--speed", "0"]] {
        let other = net.beside("other");
        let mut all = vec!["testnet", "up", "--dir", other.to_str().unwrap()];
        all.extend(arguments);
        let refused = command(net.dir().parent().unwrap(), &all).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(!other.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_keeps_what_a_buyer_misses_while_its_machine_is_gone() {
    let net = Net::up(&["--machines", "1", "--buyers", "2", "--mirrors", "1", "--speed", "4"]).await;
    let before = net.entries("buyer-2").await;
    assert_eq!(net.run("kill", &["buyer-2"]).await.code, Some(0));
    until("new entries", async || (net.entries("buyer-1").await >= before + 20).then_some(())).await;
    let wanted = net.entries("buyer-1").await;
    until("the mirror to have them, too", async || (net.entries("mirror-1").await >= wanted).then_some(())).await;
    // Nobody but the mirror can tell of them now.
    for name in ["machine-1", "buyer-1"] {
        assert_eq!(net.run("kill", &[name]).await.code, Some(0));
    }
    assert_eq!(net.run("restart", &["buyer-2"]).await.code, Some(0));
    until("the buyer to hear of them", async || (net.entries("buyer-2").await >= wanted).then_some(())).await;
    let still = [net.node("machine-1").await, net.node("buyer-1").await];
    assert!(still.iter().all(|node| node["life"] == "down"), "{still:?}");

    for name in ["machine-1", "buyer-1"] {
        assert_eq!(net.run("restart", &[name]).await.code, Some(0));
    }
    net.closed_datasets("machine-1", 6).await;
    let verified = net.run("verify", &[]).await.json();
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(verified["mirrors"][0]["logs"], 7, "{verified}");
}
