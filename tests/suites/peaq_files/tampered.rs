//! Every way in which a directory was changed is found, and named with its first chunk.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tributary_tests::vectors::read_vectors;

use crate::common::{CHUNK, Stage, bytes, edit, report};

/// The vectors as directories, with the manifest of the chain before it was changed.
#[tokio::test]
async fn vector_chunk_chains_tampered_are_broken_directories() {
    let stage = Stage::new();
    let file = read_vectors("chunk_chains_tampered");
    let cases = file["cases"].as_array().unwrap();
    let original = &cases[0];
    assert_eq!((&original["name"], &original["expected"]["valid"]), (&"valid".into(), &true.into()));
    let mut broken = 0;
    for (number, case) in cases.iter().enumerate() {
        let name = case["name"].as_str().unwrap();
        let dir = stage.path(&format!("case-{number}"));
        fs::create_dir(&dir).unwrap();
        for (position, chunk) in case["chunks"].as_array().unwrap().iter().enumerate() {
            fs::write(dir.join(format!("chunk-{position}.json")), chunk.to_string()).unwrap();
        }
        for (index, encoded) in case["ciphertextBase64"].as_object().unwrap() {
            let ciphertext = BASE64_STANDARD.decode(encoded.as_str().unwrap()).unwrap();
            fs::write(dir.join(format!("chunk-{index}.bin")), ciphertext).unwrap();
        }
        let manifest = json!({
            "schemaVersion": "peaq.stream.chunks.v1",
            "sourceHash": format!("0x{}", "0".repeat(64)),
            "totalChunks": original["chunks"].as_array().unwrap().len(),
            "chunkSize": 64,
            "machineDid": original["chunks"][0]["signature"]["machineDid"],
            "createdAt": "2026-01-02T03:04:05Z",
        });
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();

        let ended = stage.run(&["verify", dir.to_str().unwrap(), "--json"]).await;
        let found = report(&ended);
        // Files without statements of their origin never end well, whatever peaq says.
        assert_eq!(ended.code, Some(3), "{name}: {ended:?}");
        let expected = &case["expected"];
        if expected["valid"] == true {
            assert_ne!(found["verdict"], "proven", "{name}");
            assert!(number > 0 || found["verdict"] == "consistent", "{name}: {found}");
            broken += usize::from(found["verdict"] == "broken");
            continue;
        }
        broken += 1;
        assert_eq!(found["verdict"], "broken", "{name}: {found}");
        if let Some(reason) = expected["reason"].as_str() {
            assert_eq!(found["failed_chunk"], expected["failedAtIndex"], "{name}: {found}");
            assert!(found["first_failure"].as_str().unwrap().contains(reason), "{name}: {found}");
        }
    }
    // Also most of what peaq's own verifier takes: cut short, spliced, renamed.
    let accepted = cases.iter().filter(|case| case["expected"]["valid"] == true).count();
    assert!(broken + 4 >= cases.len() && accepted > 4, "{broken} of {} are broken", cases.len());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn chunk(dir: &Path, index: u64) -> std::path::PathBuf {
    dir.join(format!("chunk-{index}.json"))
}

fn sha256(text: &[u8]) -> String {
    tributary_protocol::peaq::hexes::sha256_text(text)
}

/// Gives chunks new places and links, as anybody can without a key.
fn relink(dir: &Path, count: u64) {
    let mut previous = Value::Null;
    for index in 0..count {
        edit(&chunk(dir, index), |chunk| {
            let hash = chunk["encryptedDataHash"].as_str().unwrap();
            let id = sha256(format!("{}|{hash}|{index}", previous.as_str().unwrap_or_default()).as_bytes());
            chunk["index"] = index.into();
            chunk["previousChunkId"] = std::mem::replace(&mut previous, id.clone().into());
            chunk["chunkId"] = id.into();
        });
    }
}

fn swap(dir: &Path, a: u64, b: u64) {
    for end in ["json", "bin"] {
        let path = |index: u64| dir.join(format!("chunk-{index}.{end}"));
        fs::rename(path(a), dir.join("aside")).unwrap();
        fs::rename(path(b), path(a)).unwrap();
        fs::rename(dir.join("aside"), path(b)).unwrap();
    }
}

fn flip_hex(value: &mut Value) {
    let text = value.as_str().unwrap();
    let last = if text.ends_with('0') { "1" } else { "0" };
    *value = format!("{}{last}", &text[..text.len() - 1]).into();
}

type Change = (&'static str, u64, fn(&Path));

/// What can be done to a directory of four chunks, and the first chunk that is wrong then.
const CHANGES: &[Change] = &[
    ("a byte of ciphertext", 2, |dir| {
        let path = dir.join("chunk-2.bin");
        let mut bytes = fs::read(&path).unwrap();
        bytes[17] ^= 1;
        fs::write(path, bytes).unwrap();
    }),
    ("a ciphertext cut short", 1, |dir| fs::write(dir.join("chunk-1.bin"), [0; 20]).unwrap()),
    ("a ciphertext gone", 3, |dir| fs::remove_file(dir.join("chunk-3.bin")).unwrap()),
    ("ciphertexts exchanged", 0, |dir| {
        swap(dir, 0, 3);
        for index in [0, 3] {
            fs::rename(chunk(dir, index), dir.join(format!("{index}"))).unwrap();
        }
        fs::rename(dir.join("0"), chunk(dir, 3)).unwrap();
        fs::rename(dir.join("3"), chunk(dir, 0)).unwrap();
    }),
    ("reordered and relinked", 1, |dir| {
        swap(dir, 1, 2);
        relink(dir, 4);
    }),
    ("cut short", 3, |dir| {
        fs::remove_file(chunk(dir, 3)).unwrap();
        fs::remove_file(dir.join("chunk-3.bin")).unwrap();
    }),
    ("cut short, with a manifest that says so", 3, |dir| {
        fs::remove_file(chunk(dir, 3)).unwrap();
        fs::remove_file(dir.join("chunk-3.bin")).unwrap();
        edit(&dir.join("manifest.json"), |manifest| manifest["totalChunks"] = 3.into());
    }),
    ("the first left out", 0, |dir| {
        for index in 1..4 {
            for end in ["json", "bin"] {
                let path = |index: u64| dir.join(format!("chunk-{index}.{end}"));
                fs::rename(path(index), path(index - 1)).unwrap();
            }
        }
        relink(dir, 3);
        edit(&dir.join("manifest.json"), |manifest| manifest["totalChunks"] = 3.into());
    }),
    ("a chunk twice", 4, |dir| {
        for end in ["json", "bin"] {
            fs::copy(dir.join(format!("chunk-3.{end}")), dir.join(format!("chunk-4.{end}"))).unwrap();
        }
        relink(dir, 5);
        edit(&dir.join("manifest.json"), |manifest| manifest["totalChunks"] = 5.into());
    }),
    ("a gap", 2, |dir| fs::remove_file(chunk(dir, 2)).unwrap()),
    ("the link to the chunk before", 1, |dir| {
        edit(&chunk(dir, 1), |chunk| flip_hex(&mut chunk["previousChunkId"]));
    }),
    ("an id", 0, |dir| edit(&chunk(dir, 0), |chunk| flip_hex(&mut chunk["chunkId"]))),
    ("an index", 1, |dir| edit(&chunk(dir, 1), |chunk| chunk["index"] = 7.into())),
    ("the hash of the ciphertext", 1, |dir| {
        edit(&chunk(dir, 1), |chunk| flip_hex(&mut chunk["encryptedDataHash"]));
    }),
    ("a nonce", 1, |dir| edit(&chunk(dir, 1), |chunk| flip_hex(&mut chunk["encryption"]["nonce"]))),
    ("a key commitment", 2, |dir| edit(&chunk(dir, 2), |chunk| flip_hex(&mut chunk["encryption"]["keyCommitment"]))),
    ("a cipher that is another one", 2, |dir| {
        edit(&chunk(dir, 2), |chunk| chunk["encryption"]["algorithm"] = "none".into());
    }),
    ("a signature", 3, |dir| edit(&chunk(dir, 3), |chunk| flip_hex(&mut chunk["signature"]["value"]))),
    ("a signature that is no hex", 3, |dir| edit(&chunk(dir, 3), |chunk| chunk["signature"]["value"] = "zz".into())),
    ("a signature of another chunk", 1, |dir| {
        let mut other = Value::Null;
        edit(&chunk(dir, 2), |chunk| other = chunk["signature"]["value"].clone());
        edit(&chunk(dir, 1), |chunk| chunk["signature"]["value"] = other);
    }),
    ("a signing key", 0, |dir| {
        edit(&chunk(dir, 0), |chunk| chunk["signature"]["publicKeyHex"] = "7".repeat(64).into());
    }),
    ("another machine in one chunk", 2, |dir| {
        edit(&chunk(dir, 2), |chunk| chunk["signature"]["machineDid"] = "did:peaq:other".into());
    }),
    ("no key id", 2, |dir| edit(&chunk(dir, 2), |chunk| chunk["signature"]["keyId"] = " ".into())),
    ("a schema", 1, |dir| edit(&chunk(dir, 1), |chunk| chunk["schemaVersion"] = "peaq.stream.chunks.v2".into())),
    ("no JSON", 1, |dir| fs::write(chunk(dir, 1), "{").unwrap()),
];

#[tokio::test]
async fn every_change_to_files_of_ours_is_broken_and_names_the_first_chunk() {
    let stage = Stage::new();
    let (original, _) = stage.published(&bytes(3 * CHUNK + 5), "ours").await;
    for (number, (name, first, change)) in CHANGES.iter().enumerate() {
        let dir = stage.path(&format!("changed-{number}"));
        copy(&original, &dir);
        change(&dir);
        let ended = stage.run(&["verify", dir.to_str().unwrap(), "--json"]).await;
        let found = report(&ended);
        assert_eq!((ended.code, &found["verdict"]), (Some(3), &"broken".into()), "{name}: {ended:?}");
        assert_eq!(found["failed_chunk"], *first, "{name}: {found}");
        assert!(ended.stderr.contains("broken"), "{name}: {ended:?}");
    }
}

/// What only the plaintext shows, and what is about no chunk.
#[tokio::test]
async fn what_only_a_buyer_sees_is_broken_for_the_buyer_and_nothing_is_written() {
    let stage = Stage::new();
    let (original, _) = stage.published(&bytes(3 * CHUNK + 5), "ours").await;
    let key = stage.file("owner", stage.owner.private.as_bytes());
    type Case = (&'static str, Value, fn(&Path));
    let cases: [Case; 4] = [
        ("plaintextHash", 1.into(), |dir| edit(&chunk(dir, 1), |chunk| flip_hex(&mut chunk["plaintextHash"]))),
        ("sourceHash", Value::Null, |dir| edit(&dir.join("manifest.json"), |text| flip_hex(&mut text["sourceHash"]))),
        ("wrapped for another chunk", 2.into(), |dir| {
            let mut other = Value::Null;
            edit(&chunk(dir, 1), |chunk| other = chunk["encryption"]["keyRecipients"].clone());
            edit(&chunk(dir, 2), |chunk| chunk["encryption"]["keyRecipients"] = other);
        }),
        ("another way of wrapping", 0.into(), |dir| {
            edit(&chunk(dir, 0), |chunk| chunk["encryption"]["keyRecipients"][0]["algorithm"] = "rot13".into());
        }),
    ];
    for (number, (name, first, change)) in cases.into_iter().enumerate() {
        let dir = stage.path(&format!("changed-{number}"));
        copy(&original, &dir);
        change(&dir);
        let (dir, out) = (dir.to_str().unwrap(), stage.arg("exported"));
        for args in [
            &["verify", dir, "--buyer-key-file", &key, "--json"][..],
            &["export", dir, "--buyer-key-file", &key, "--out", &out, "--json"],
        ] {
            let ended = stage.run(args).await;
            let found = report(&ended);
            assert_eq!((ended.code, &found["verdict"]), (Some(3), &"broken".into()), "{name}: {ended:?}");
            assert_eq!(found["failed_chunk"], first, "{name}: {found}");
        }
        assert!(!stage.path("exported").exists(), "{name}");
    }
    let left: Vec<_> = fs::read_dir(stage.sandbox.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}
