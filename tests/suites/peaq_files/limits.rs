//! What is refused before anything is published, and what is never overwritten.

use std::fs;

use crate::common::{Stage, bytes};

/// Datasets of the machine.
async fn datasets(stage: &Stage) -> usize {
    stage.run(&["dataset", "ls", "--json"]).await.json().as_array().unwrap().len()
}

#[tokio::test]
async fn a_chunk_too_large_for_peaqs_delivery_is_refused_with_the_limit() {
    let stage = Stage::new();
    let input = stage.file("input", &bytes(1 << 20));
    let out = stage.arg("out");
    let args = ["publish", &input, "--stream", "large", "--format", "peaq", "--out", &out];
    let ended = stage.run(&args).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let limit = ended.stderr.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    assert!(limit.clone().any(|limit| (780_000..790_000).contains(&limit)), "{ended:?}");
    assert!(ended.stderr.contains("1048576") && ended.stderr.contains("chunk.bytes"), "{ended:?}");
    assert_eq!(datasets(&stage).await, 0, "nothing is published that cannot be delivered");
    assert!(!stage.path("out").exists());

    let ended = stage.run(&[&args[..], &["--any-chunk-size", "--json"]].concat()).await;
    assert_eq!(ended.json()["totalChunks"], 1);
    // The chunks themselves are judged, too, not only the configuration.
    let (dataset, again) = (ended.json()["dataset"].as_str().unwrap().to_owned(), stage.arg("again"));
    let ended = stage.run(&["publish", "--dataset", &dataset, "--format", "peaq", "--out", &again]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("too large for peaq's delivery"), "{ended:?}");
}

#[tokio::test]
async fn a_compressed_stream_is_refused_before_anything_is_published() {
    let stage = Stage::new();
    let input = stage.file("input", &[7; 10_000]);
    let out = stage.arg("out");
    let ended = stage.run(&["publish", &input, "--stream", "packed", "--format", "peaq", "--out", &out]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("compression: none"), "{ended:?}");
    assert_eq!(datasets(&stage).await, 0);
    // The same file published on the feed only cannot become files for peaq afterwards.
    let published = stage.run(&["publish", &input, "--stream", "packed", "--json"]).await.json();
    let dataset = published["dataset"].as_str().unwrap();
    let ended = stage.run(&["publish", "--dataset", dataset, "--format", "peaq", "--out", &out]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("compressed") && !stage.path("out").exists(), "{ended:?}");
}

#[tokio::test]
async fn a_folder_that_holds_anything_is_left_as_it_is() {
    let stage = Stage::new();
    let input = stage.file("input", b"data");
    for name in ["folder", "file"] {
        match name {
            "folder" => {
                fs::create_dir(stage.path(name)).unwrap();
                fs::write(stage.path(name).join("mine"), "mine").unwrap();
            }
            _ => fs::write(stage.path(name), "mine").unwrap(),
        }
        let ended = stage.publish(&input, name, &[]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(name), "{ended:?}");
    }
    assert_eq!(datasets(&stage).await, 0);
    assert_eq!(fs::read_dir(stage.path("folder")).unwrap().count(), 1);
    // An empty folder is taken, and nothing is left beside it.
    fs::create_dir(stage.path("empty")).unwrap();
    let report = stage.publish(&input, "empty", &[]).await.json();
    assert_eq!(fs::read_dir(stage.path("empty")).unwrap().count(), 3);
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(".");
    assert!(!fs::read_dir(stage.sandbox.path()).unwrap().any(|entry| hidden(&entry.unwrap().file_name())));
    // Access files neither.
    let (dataset, out) = (report["dataset"].as_str().unwrap(), stage.arg("empty"));
    let args = ["grant", "--format", "peaq", "--dataset", dataset, "--buyer", "b", "--out", &out];
    let ended = stage.run(&[&args[..], &["--key", &stage.buyer.public]].concat()).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[tokio::test]
async fn flags_of_one_format_are_refused_with_the_other() {
    let stage = Stage::new();
    let input = stage.file("input", b"data");
    let (dir, out) = (stage.sandbox.path().to_str().unwrap(), stage.arg("out"));
    let key = "7".repeat(64);
    let cases: [&[&str]; 8] = [
        &["publish", &input, "--stream", "files", "--out", &out],
        &["publish", &input, "--stream", "files", "--format", "peaq"],
        &["publish", "--dataset", "abcdef", "--stream", "files", "--format", "peaq", "--out", &out],
        &["publish", &input, "--stream", "files", "--format", "peaq", "--out", &out, "--owner-public-key", "zz"],
        &["grant", "--dataset", "abcdef", "--buyer", "b", "--key", &key, "--out", &out],
        &["grant", "--format", "peaq", "--stream", "files", "--buyer", "b", "--key", &key, "--out", &out],
        &["verify", "abcdef", "--trust-key", &key],
        &["export", dir, "--dataset", "abcdef", "--out", &out],
    ];
    for args in cases {
        let ended = stage.run(args).await;
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
    }
    assert_eq!(datasets(&stage).await, 0);
}

#[tokio::test]
async fn a_buyer_without_keys_is_denied_and_gets_no_file() {
    let stage = Stage::new();
    let (dir, _) = stage.published(&bytes(5000), "ours").await;
    let key = stage.buyer_key();
    let (dir, out) = (dir.to_str().unwrap(), stage.arg("exported"));
    let ended = stage.run(&["export", dir, "--buyer-key-file", &key, "--out", &out]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("chunk 0"), "{ended:?}");
    // A grant by somebody who is not the owner does not work either.
    let args = ["grant", "--format", "peaq", "--chunk-dir", dir, "--owner-key-file", &key, "--out", &out];
    let ended = stage.run(&[&args[..], &["--buyer", "b", "--key", &stage.buyer.public]].concat()).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(!stage.path("exported").exists());
}
