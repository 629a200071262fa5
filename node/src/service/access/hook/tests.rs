use std::{fs, path::Path};

use super::{super::OrderState, *};

fn notice(number: u8) -> Notice {
    let order = Order {
        id: Hash::from_bytes([number; 32]),
        buyer: Did::from_bytes([7; 20]),
        ranges: Vec::new(),
        streams: Vec::new(),
        received_ms: 1,
        expires_ms: 2,
        state: OrderState::Pending,
    };
    Notice { machine: Did::from_bytes([1; 20]), stream_names: vec!["imu".to_owned()], order }
}

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Runs what was told until all of it has ended.
async fn finish(hooks: Hooks, runner: HookRunner) -> HookStatus {
    let counts = Arc::clone(&hooks.counts);
    let queue = hooks.queue.clone();
    drop(hooks);
    drop(queue);
    timeout(Duration::from_secs(60), runner.run()).await.expect("ends");
    let Counts { done, failed, dropped } = &*counts;
    HookStatus { done: done.load(Relaxed), failed: failed.load(Relaxed), dropped: dropped.load(Relaxed) }
}

#[tokio::test]
async fn a_program_gets_the_request_and_no_shell_reads_its_arguments() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out $(touch broken); x");
    let (hooks, runner) = hooks(folder.path());
    hooks.tell(&command(&["/usr/bin/tee", &out.display().to_string()]), notice(3));
    assert_eq!(finish(hooks, runner).await, HookStatus { done: 1, failed: 0, dropped: 0 });
    let told: serde_json::Value = serde_json::from_slice(&fs::read(out).expect("written")).expect("JSON");
    assert_eq!((&told["id"], &told["state"]), (&"03".repeat(32).into(), &"pending".into()), "{told}");
    assert_eq!(told["stream_names"][0], "imu");
    assert!(!folder.path().join("broken").exists() && !Path::new("broken").exists());
}

#[tokio::test]
async fn a_program_that_fails_is_counted() {
    let (hooks, runner) = hooks(Path::new("/"));
    hooks.tell(&command(&["/usr/bin/false"]), notice(1));
    hooks.tell(&command(&["/nothing/here"]), notice(2));
    hooks.tell(&command(&["/usr/bin/true"]), notice(3));
    assert_eq!(finish(hooks, runner).await, HookStatus { done: 1, failed: 2, dropped: 0 });
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let pid_file = folder.path().join("pid");
    let (hooks, mut runner) = hooks(folder.path());
    runner.limit = Duration::from_millis(300);
    // The outer one waits for an inner one, which a kill of the outer one alone would leave.
    let script = format!("sleep 600 & echo $! > {0}.new && mv {0}.new {0}; wait", pid_file.display());
    hooks.tell(&command(&["/bin/sh", "-c", &script]), notice(1));
    assert_eq!(finish(hooks, runner).await, HookStatus { done: 0, failed: 1, dropped: 0 });
    let pid: u32 = fs::read_to_string(&pid_file).expect("it had started").trim().parse().expect("a number");
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let gone = async {
        // A zombie that nobody waits for is dead too.
        while state().is_some_and(|state| !state.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), gone).await.expect("killed");
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
    let (hooks, runner) = hooks(Path::new("/"));
    for number in 0..=u8::try_from(WAITING).expect("small") {
        hooks.tell(&command(&["/usr/bin/true"]), notice(number));
    }
    assert_eq!(hooks.status().dropped, 1);
    assert_eq!(finish(hooks, runner).await, HookStatus { done: WAITING as u64, failed: 0, dropped: 1 });
}
