//! Directories that the real CLI wrote, as they are.

use std::fs;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use tributary_tests::vectors::read_vectors;

use crate::common::Stage;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Writes the files of a vector: texts as they are, `{"base64": …}` as bytes.
fn write(stage: &Stage, name: &str, files: &Value) -> String {
    fs::create_dir(stage.path(name)).unwrap();
    for (file, content) in files.as_object().unwrap() {
        let bytes = match content.get("base64") {
            Some(encoded) => BASE64_STANDARD.decode(text(encoded)).unwrap(),
            None => text(content).as_bytes().to_vec(),
        };
        fs::write(stage.path(name).join(file), bytes).unwrap();
    }
    stage.arg(name)
}

#[tokio::test]
async fn vector_cli_files_are_judged_and_opened_with_every_key() {
    for case in read_vectors("cli_files")["cases"].as_array().unwrap() {
        let stage = Stage::new();
        let expected = BASE64_STANDARD.decode(text(&case["inputBase64"])).unwrap();
        let (chunks, access) =
            (write(&stage, "chunks", &case["publishDir"]), write(&stage, "access", &case["accessDir"]));
        let keys = &case["testKeys"];
        let signer = text(&keys["signing"]["publicKeyHex"]);

        let judged = stage.run(&["verify", &chunks, "--trust-key", signer, "--json"]).await.json();
        assert_eq!(judged["claimed_machine"], case["machineDid"]);
        assert_eq!(judged["signer"], signer);
        let unpinned = stage.run(&["verify", &chunks]).await;
        assert_eq!(unpinned.code, Some(3), "{unpinned:?}");
        assert!(unpinned.stdout.contains("CONSISTENT, origin not proven"), "{unpinned:?}");

        for role in ["buyer", "owner", "operator", "machine"] {
            let key = stage.file(&format!("{role}.hex"), text(&keys[role]["privateKeyHex"]).as_bytes());
            let out = stage.arg(&format!("{role}.out"));
            let mut args =
                vec!["export", &chunks, "--buyer-key-file", &key, "--trust-key", signer, "--out", &out, "--json"];
            if role == "buyer" {
                args.extend(["--access-dir", &access, "--buyer-id", text(&case["buyerId"])]);
            }
            let report = stage.run(&args).await.json();
            assert_eq!(report["source_hash_checked"], true, "{role}: {report}");
            assert!(fs::read(&out).unwrap() == expected, "{role}: other bytes");
        }
    }
}

/// The official grant of these directories was cut at 1,500 bytes; ours is cut at the same chunks and has the same names and sizes.
#[tokio::test]
async fn vector_cli_files_are_granted_alike() {
    for case in read_vectors("cli_files")["cases"].as_array().unwrap() {
        let stage = Stage::new();
        let chunks = write(&stage, "chunks", &case["publishDir"]);
        let keys = &case["testKeys"];
        let owner = stage.file("owner", text(&keys["owner"]["privateKeyHex"]).as_bytes());
        let out = stage.arg("granted");
        let args = ["grant", "--format", "peaq", "--chunk-dir", &chunks, "--owner-key-file", &owner, "--out", &out];
        let buyer = ["--buyer", text(&case["buyerId"]), "--key", text(&keys["buyer"]["publicKeyHex"])];
        let granted = stage.run(&[&args[..], &buyer, &["--max-file-size", "1500", "--json"]].concat()).await.json();
        let files = case["accessDir"].as_object().unwrap();
        assert_eq!(granted["fileCount"], files.len());
        for file in granted["files"].as_array().unwrap() {
            assert_eq!(file["sizeBytes"], text(&files[text(&file["name"])]).len(), "{file}");
        }
        let key = stage.file("buyer", text(&keys["buyer"]["privateKeyHex"]).as_bytes());
        let (access, plain) = (stage.arg("granted"), stage.arg("plain"));
        let args = ["export", &chunks, "--access-dir", &access, "--buyer-key-file", &key, "--out", &plain];
        let ended = stage.run(&[&args[..], &["--trust-key", text(&keys["signing"]["publicKeyHex"])]].concat()).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(fs::read(plain).unwrap() == BASE64_STANDARD.decode(text(&case["inputBase64"])).unwrap());
    }
}

/// The form that peaq's SDK uploads, which peaq's own reader refuses.
#[tokio::test]
async fn access_files_in_the_sdks_spelling_are_read_too() {
    let file = read_vectors("cli_files");
    let case = &file["cases"][0];
    let stage = Stage::new();
    let chunks = write(&stage, "chunks", &case["publishDir"]);
    fs::create_dir(stage.path("access")).unwrap();
    for (name, content) in case["accessDir"].as_object().unwrap() {
        let text = text(content)
            .replace(
                r#"{"schemaVersion":"peaq.stream.buyer-access.v1","buyerPublicKeyHex""#,
                &format!(
                    r#"{{"schema_version":"peaq.stream.buyer-access.v1","file_name":"{name}","buyer_public_key_hex""#
                ),
            )
            .replace(r#""chunkId""#, r#""chunk_id""#)
            .replace(r#""recipientId""#, r#""recipient_id""#)
            .replace(r#""recipientType""#, r#""recipient_type""#)
            .replace(r#""publicKeyHex""#, r#""public_key_hex""#)
            .replace(r#""wrappedKeyHex""#, r#""wrapped_key_hex""#)
            .replace("}},", r#"},"schema_version":"peaq.stream.buyer-access.v1"},"#)
            .replace("}}]", r#"},"schema_version":"peaq.stream.buyer-access.v1"}]"#);
        assert!(!text.contains("Id\"") && text.contains("chunk_id"), "{text}");
        fs::write(stage.path("access").join(name), text).unwrap();
    }
    let key = stage.file("buyer", text(&case["testKeys"]["buyer"]["privateKeyHex"]).as_bytes());
    let (access, out) = (stage.arg("access"), stage.arg("out"));
    let signer = text(&case["testKeys"]["signing"]["publicKeyHex"]);
    let args = ["export", &chunks, "--access-dir", &access, "--buyer-key-file", &key, "--out", &out];
    let ended = stage.run(&[&args[..], &["--trust-key", signer]].concat()).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(fs::read(out).unwrap() == BASE64_STANDARD.decode(text(&case["inputBase64"])).unwrap());
}
