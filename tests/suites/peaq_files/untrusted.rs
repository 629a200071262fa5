//! Directories that are made to harm the reader: links, pipes, endless files, missing ones.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    process::Command,
};

use crate::common::{CHUNK, Stage, bytes, report};

fn replace(path: &Path, make: impl FnOnce(&Path)) {
    fs::remove_file(path).unwrap();
    make(path);
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn huge(path: &Path, len: u64) {
    fs::File::create(path).unwrap().set_len(len).unwrap();
}

/// Nothing outside is read, nobody waits, and nothing is taken into memory that is longer than it may be.
#[tokio::test]
async fn links_pipes_sockets_folders_and_huge_files_are_refused_by_name() {
    let stage = Stage::new();
    let data = bytes(2 * CHUNK);
    let (original, _) = stage.published(&data, "ours").await;
    let owner = stage.file("owner", stage.owner.private.as_bytes());
    let outside = stage.path("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["manifest.json", "chunk-1.json", "chunk-1.bin"] {
        // The same bytes: only the link is wrong.
        fs::copy(original.join(name), outside.join(name)).unwrap();
    }
    for (number, name) in ["manifest.json", "chunk-1.json", "chunk-1.bin"].into_iter().enumerate() {
        for kind in ["link", "pipe", "socket", "folder", "huge"] {
            let dir = stage.path(&format!("{kind}-{number}"));
            assert!(Command::new("cp").arg("-r").arg(&original).arg(&dir).status().unwrap().success());
            let mut socket = None;
            replace(&dir.join(name), |path| match kind {
                "link" => symlink(outside.join(name), path).unwrap(),
                "pipe" => pipe(path),
                "socket" => socket = Some(UnixListener::bind(path).unwrap()),
                "folder" => fs::create_dir(path).unwrap(),
                _ => huge(path, 1 << 40),
            });
            let dir = dir.to_str().unwrap();
            let ended = stage.run(&["verify", dir, "--json"]).await;
            assert_eq!(ended.code, Some(3), "{kind} {name}: {ended:?}");
            assert!(ended.stderr.contains(name), "{kind} {name}: {ended:?}");
            if name == "chunk-1.json" {
                let out = stage.arg("granted");
                let args = ["grant", "--format", "peaq", "--chunk-dir", dir, "--owner-key-file", &owner, "--out", &out];
                let ended = stage.run(&[&args[..], &["--buyer", "b", "--key", &stage.buyer.public]].concat()).await;
                assert_eq!(ended.code, Some(3), "{kind} {name}: {ended:?}");
                assert!(!stage.path("granted").exists(), "{kind}");
            }
        }
    }
}

#[tokio::test]
async fn access_files_that_are_none_are_refused_by_name() {
    let stage = Stage::new();
    let (dir, _) = stage.published(&bytes(CHUNK), "ours").await;
    let key = stage.buyer_key();
    for kind in ["link", "pipe", "huge", "text"] {
        let access = stage.path(&format!("access-{kind}"));
        fs::create_dir(&access).unwrap();
        let path = access.join("one.json");
        match kind {
            "link" => symlink("/etc/hostname", &path).unwrap(),
            "pipe" => pipe(&path),
            "huge" => huge(&path, 1 << 40),
            _ => fs::write(&path, r#"{"schemaVersion":"other"}"#).unwrap(),
        }
        let (dir, access, out) = (dir.to_str().unwrap(), access.to_str().unwrap(), stage.arg("exported"));
        let args = ["export", dir, "--access-dir", access, "--buyer-key-file", &key, "--out", &out];
        let ended = stage.run(&args).await;
        assert_eq!(ended.code, Some(3), "{kind}: {ended:?}");
        assert!(ended.stderr.contains("one.json") && !stage.path("exported").exists(), "{kind}: {ended:?}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named_and_what_is_too_much_is_broken() {
    let stage = Stage::new();
    let (original, _) = stage.published(&bytes(2 * CHUNK), "ours").await;
    let missing = stage.run(&["verify", &stage.arg("no/where")]).await;
    assert_eq!(missing.code, Some(5), "{missing:?}");
    let empty = stage.path("empty");
    fs::create_dir(&empty).unwrap();
    let missing = stage.run(&["verify", &format!("{}/", empty.display())]).await;
    assert_eq!(missing.code, Some(5), "{missing:?}");
    assert!(missing.stderr.contains("manifest.json"), "{missing:?}");

    // Files that peaq's reader would take for further chunks.
    for name in ["chunk-5.json", "chunk-01.json", "chunk-99999999999999999999.json"] {
        let extra = original.join(name);
        fs::copy(original.join("chunk-1.json"), &extra).unwrap();
        let ended = stage.run(&["verify", original.to_str().unwrap(), "--json"]).await;
        assert_eq!((ended.code, &report(&ended)["verdict"]), (Some(3), &"broken".into()), "{ended:?}");
        assert!(report(&ended)["first_failure"].as_str().unwrap().contains(name), "{ended:?}");
        fs::remove_file(extra).unwrap();
    }
    let ended = stage.run(&["verify", original.to_str().unwrap(), "--json"]).await;
    assert_eq!(ended.json()["verdict"], "proven");

    // Keys for what is before a gap must not pass for all.
    let owner = stage.file("owner", stage.owner.private.as_bytes());
    fs::rename(original.join("chunk-1.json"), original.join("chunk-2.json")).unwrap();
    let (dir, out) = (original.to_str().unwrap(), stage.arg("granted"));
    let args = ["grant", "--format", "peaq", "--chunk-dir", dir, "--owner-key-file", &owner, "--out", &out];
    let ended = stage.run(&[&args[..], &["--buyer", "b", "--key", &stage.buyer.public]].concat()).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("chunk-1.json") && !stage.path("granted").exists(), "{ended:?}");
}
