//! All four directions between this program and peaq's, over sizes, ids that are not ASCII, and many chunks.

use std::fs;

use tributary_tests::{
    node::NodeProcess,
    peaq::{Official, peaqos, quiet},
};

use crate::common::{BUYER, CHUNK, Stage, bytes, report};

/// Nothing, one byte, around one chunk, exact multiples, and more.
const SIZES: [usize; 8] = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 4 * CHUNK, 7 * CHUNK + 1234];
/// The limit that peaq's tools use.
const MAX_SIZE: usize = 512_000;

impl Stage {
    /// `tributary grant --format peaq` from the machine's own keys.
    async fn grant(&self, dataset: &str, out: &str, more: &[&str]) -> serde_json::Value {
        let out = self.arg(out);
        let mut args = vec!["grant", "--format", "peaq", "--dataset", dataset, "--out", &out, "--json"];
        args.extend(["--buyer", BUYER, "--key", &self.buyer.public]);
        args.extend(more);
        self.run(&args).await.json()
    }
}

/// Ours → official: published and granted here, consumed there; and granted there from what was published here.
#[tokio::test]
async fn what_is_published_here_is_granted_and_consumed_by_peaq() {
    let stage = Stage::new();
    let mut official = Official::start();
    for size in SIZES {
        let data = bytes(size);
        let (dir, access, theirs) = (format!("ours-{size}"), format!("access-{size}"), format!("theirs-{size}"));
        let (_, published) = stage.published(&data, &dir).await;
        assert_eq!(published["totalChunks"], size.div_ceil(CHUNK).max(1), "{size}: {published}");

        let granted = stage.grant(published["dataset"].as_str().unwrap(), &access, &[]).await;
        assert_eq!((&granted["chunkCount"], &granted["buyerId"]), (&published["totalChunks"], &BUYER.into()));
        let failures = stage.judge(&mut official, &dir, &published, Some((&access, MAX_SIZE)));
        assert_eq!(failures, Vec::<String>::new(), "{size}");
        assert!(stage.official_consume(&mut official, &dir, &access) == data, "{size}: other bytes");

        let ended = stage.official_grant(&mut official, &dir, &theirs, "512000");
        assert_eq!(ended.code, 0, "{ended:?}");
        let exported = stage.export(&dir, &theirs, &[]).await.json();
        assert_eq!(exported["verdict"], "proven", "{size}: {exported}");
        assert_eq!(exported["source_hash_checked"], true, "{size}: {exported}");
        assert!(stage.exported() == data, "{size}: other bytes");
    }
}

/// Official → ours: published there, granted there or here, read here; and granted here for peaq's own reader.
#[tokio::test]
async fn what_peaq_publishes_is_granted_judged_and_exported_here() {
    let stage = Stage::new();
    let mut official = Official::start();
    let owner = stage.file("owner.hex", stage.owner.private.as_bytes());
    for size in SIZES {
        let data = bytes(size);
        let (dir, access, ours) = (format!("theirs-{size}"), format!("access-{size}"), format!("ours-{size}"));
        let input = stage.file(&format!("{dir}.input"), &data);
        let signer = stage.official_publish(&mut official, &input, &dir, "did:peaq:maschine-\u{fc}");
        let path = stage.arg(&dir);

        let judged = stage.run(&["verify", &path, "--json"]).await;
        assert_eq!((judged.code, &report(&judged)["verdict"]), (Some(3), &"consistent".into()), "{judged:?}");
        let pinned = stage.run(&["verify", &path, "--trust-key", &format!("0x{signer}"), "--json"]).await;
        assert_eq!((&pinned.json()["verdict"], &pinned.json()["pinned"]), (&"consistent".into(), &true.into()));
        let other = stage.run(&["verify", &path, "--trust-key", &"7".repeat(64), "--json"]).await;
        assert_eq!((other.code, &report(&other)["failed_chunk"]), (Some(3), &0.into()), "{other:?}");

        let ended = stage.official_grant(&mut official, &dir, &access, "512000");
        assert_eq!(ended.code, 0, "{ended:?}");
        let exported = stage.export(&dir, &access, &["--trust-key", &signer]).await.json();
        assert_eq!(exported["source_hash_checked"], true, "{size}: {exported}");
        assert!(stage.exported() == data, "{size}: other bytes");
        fs::remove_file(stage.path("exported")).unwrap();
        // Without a pinned key the file is there, and the exit code says what is missing.
        let unpinned = stage.export(&dir, &access, &[]).await;
        assert_eq!(unpinned.code, Some(3), "{unpinned:?}");
        assert!(unpinned.stderr.contains("not proven") && stage.exported() == data, "{unpinned:?}");

        let out = stage.arg(&ours);
        let args = ["grant", "--format", "peaq", "--chunk-dir", &path, "--owner-key-file", &owner, "--out", &out];
        let more = ["--buyer-id", BUYER, "--buyer-public-key", &stage.buyer.public, "--json"];
        let granted = stage.run(&[args.as_slice(), &more].concat()).await.json();
        assert_eq!(granted["chunkCount"], size.div_ceil(CHUNK).max(1), "{granted}");
        assert!(stage.official_consume(&mut official, &dir, &ours) == data, "{size}: other bytes");
    }
}

/// Through a running node, and with `peaqos` as a process of its own, as a person would.
#[tokio::test]
async fn a_running_node_publishes_and_grants_for_peaq() {
    let stage = Stage::new();
    let data = bytes(10 * CHUNK + 7);
    let node = NodeProcess::start(&stage.home).await;
    let (dir, published) = stage.published(&data, "ours").await;
    stage.grant(published["dataset"].as_str().unwrap(), "access", &[]).await;
    let did = node.status().await.did.to_string();
    node.stop().await;

    let (key, out) = (stage.buyer_key(), stage.path("consumed"));
    let ended = quiet(peaqos())
        .args(["-q", "stream", "consume", "--json", "--buyer-id", BUYER, "--buyer-private-key-file", &key])
        .arg("--chunk-dir")
        .arg(&dir)
        .arg("--data-dir")
        .arg(&dir)
        .arg("--access-dir")
        .arg(stage.path("access"))
        .arg("--output")
        .arg(&out)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert!(fs::read(out).unwrap() == data);
    let proven = stage.run(&["verify", dir.to_str().unwrap(), "--json"]).await.json();
    assert_eq!((&proven["verdict"], &proven["machine"]), (&"proven".into(), &did.into()));
}

/// 3,000 chunks. Both programs cut access files at the same chunks, by a limit that neither of the files' texts is measured by.
#[tokio::test]
async fn three_thousand_chunks_have_sharded_access_files_that_both_sides_read() {
    const CHUNKS: usize = 3000;
    let stage = Stage::new();
    let mut official = Official::start();
    let data = bytes((CHUNKS - 1) * CHUNK + 1);
    let (_, published) = stage.published(&data, "ours").await;
    assert_eq!(published["totalChunks"], CHUNKS);

    let dataset = published["dataset"].as_str().unwrap();
    let granted = stage.grant(dataset, "access", &[]).await;
    assert!(granted["fileCount"].as_u64().unwrap() >= 3, "{granted}");
    let failures = stage.judge(&mut official, "ours", &published, Some(("access", MAX_SIZE)));
    assert_eq!(failures, Vec::<String>::new());
    assert!(stage.official_consume(&mut official, "ours", "access") == data);

    // Smaller files, because peaq's time for one grows with the square of its entries.
    let ended = stage.official_grant(&mut official, "ours", "theirs", "50000");
    assert_eq!(ended.code, 0, "{ended:?}");
    let theirs: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let ours = stage.grant(dataset, "small", &["--max-file-size", "50000"]).await;
    assert!(ours["fileCount"].as_u64().unwrap() > 20, "{ours}");
    assert_eq!(ours["files"], theirs["files"], "names and sizes");
    let exported = stage.export("ours", "theirs", &[]).await.json();
    assert_eq!((&exported["verdict"], &exported["chunks_opened"]), (&"proven".into(), &CHUNKS.into()));
    assert!(stage.exported() == data);
}

/// The owner reads what was published for peaq with the owner's key alone, in both forms of a key file.
#[tokio::test]
async fn owner_operator_and_machine_need_no_access_files() {
    let stage = Stage::new();
    let data = bytes(2 * CHUNK);
    let (dir, published) = stage.published(&data, "ours").await;
    for (name, party) in [("owner", &stage.owner), ("operator", &stage.operator), ("machine", &stage.machine)] {
        let key = stage.file(&format!("{name}.hex"), format!(" 0x{} \n", party.private.to_uppercase()).as_bytes());
        let (dir, out) = (dir.to_str().unwrap(), stage.arg("exported"));
        let _ = stage.run(&["export", dir, "--buyer-key-file", &key, "--out", &out, "--json"]).await.json();
        assert!(stage.exported() == data, "{name}");
    }
    // By default the chunk keys are sealed for the owner and the machine of the home.
    let again = stage.arg("again");
    let dataset = published["dataset"].as_str().unwrap();
    let _ = stage.run(&["publish", "--dataset", dataset, "--format", "peaq", "--out", &again, "--json"]).await.json();
    let owner = stage.home.join("keys/owner.key");
    for more in [&["--buyer-key-file", owner.to_str().unwrap()][..], &[]] {
        fs::remove_file(stage.path("exported")).unwrap();
        let out = stage.arg("exported");
        let args = ["export", &again, "--out", &out, "--json"];
        let report = stage.run(&[&args, more].concat()).await.json();
        assert_eq!(report["source_hash"], published["sourceHash"]);
        assert!(stage.exported() == data);
    }
}
