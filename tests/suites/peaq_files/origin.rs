//! Files of ours prove where they are from, anywhere and without a home; and nothing stands for what it is not about.

use std::fs;

use serde_json::Value;
use tributary_tests::node::command;

use crate::common::{CHUNK, Stage, bytes, edit, report};

#[tokio::test]
async fn files_of_ours_prove_their_origin_out_of_any_bucket() {
    let stage = Stage::new();
    let did = stage.did().await;
    let (dir, published) = stage.published(&bytes(3 * CHUNK), "ours").await;
    // No home, no network, another place: only the files.
    let bucket = stage.path("bucket");
    fs::rename(&dir, &bucket).unwrap();
    let nowhere = stage.path("no-home");
    let ended = command(&nowhere, &["verify", bucket.to_str().unwrap(), "--machine", &did, "--json"]).await;
    let found = ended.json();
    assert_eq!((&found["verdict"], &found["machine"]), (&"proven".into(), &did.as_str().into()));
    assert_eq!(found["dataset"], published["dataset"]);
    assert!(!nowhere.exists());
    let ended = command(&nowhere, &["verify", bucket.to_str().unwrap()]).await;
    assert!(ended.stdout.contains("PROVEN") && ended.stdout.contains(&did), "{ended:?}");
    // A key that is pinned as well has to be the one that signed.
    let signer = found["signer"].as_str().unwrap();
    for (key, code) in [(signer, 0), (&*"7".repeat(64), 3)] {
        let ended = command(&nowhere, &["verify", bucket.to_str().unwrap(), "--trust-key", key]).await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
    }
}

#[tokio::test]
async fn statements_of_another_machine_or_dataset_prove_nothing() {
    let (one, two) = (Stage::new(), Stage::new());
    let (dir, _) = one.published(&bytes(2 * CHUNK), "ours").await;
    let (other_machine, _) = two.published(&bytes(2 * CHUNK), "theirs").await;
    let (other_dataset, _) = one.published(&bytes(2 * CHUNK), "earlier").await;
    let statements = |dir: &std::path::Path| {
        let manifest: Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
        manifest["tributary"].clone()
    };
    let true_ones = statements(&dir);
    let path = dir.join("manifest.json");
    let verify = async |what: &str, machine: &[&str]| {
        let ended = one.run(&[&["verify", dir.to_str().unwrap(), "--json"], machine].concat()).await;
        assert_eq!(ended.code, Some(3), "{what}: {ended:?}");
        report(&ended)
    };

    let theirs = statements(&other_machine);
    edit(&path, |manifest| manifest["tributary"] = theirs.clone());
    assert_eq!(verify("another machine", &[]).await["verdict"], "broken");
    // Also when the files are said to be that machine's: its records are about other chunks.
    let (mine, did) = (one.did().await, two.did().await);
    assert_eq!(verify("another machine", &["--machine", &did]).await["failed_chunk"], 0);
    edit(&path, |manifest| manifest["tributary"] = statements(&other_dataset));
    assert_eq!(verify("another dataset", &[]).await["failed_chunk"], 0);

    edit(&path, |manifest| manifest["tributary"] = true_ones.clone());
    assert_eq!(verify("not that machine", &["--machine", &did]).await["verdict"], "broken");
    // Whoever takes the statements away leaves files that nobody vouches for.
    edit(&path, |manifest| drop(manifest.as_object_mut().unwrap().remove("tributary")));
    assert_eq!(verify("no statements", &[]).await["verdict"], "consistent");
    assert_eq!(verify("no statements", &["--machine", &mine]).await["verdict"], "consistent");
    let signer = verify("no statements", &[]).await["signer"].as_str().unwrap().to_owned();
    let pinned = one.run(&["verify", dir.to_str().unwrap(), "--trust-key", &signer]).await;
    assert_eq!(pinned.code, Some(0), "{pinned:?}");
    // A pinned key does not stand for a machine that was asked for by its DID.
    assert_eq!(verify("no statements", &["--trust-key", &signer, "--machine", &mine]).await["verdict"], "consistent");
}

#[tokio::test]
async fn changed_statements_are_broken() {
    let stage = Stage::new();
    let (dir, _) = stage.published(&bytes(2 * CHUNK), "ours").await;
    let path = dir.join("manifest.json");
    let original = fs::read(&path).unwrap();
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 9] = [
        ("a binding", |value| flip_base64(&mut value["bindings"][0], 60)),
        ("no binding", |value| value["bindings"] = Value::Array(vec![])),
        ("the dataset entry", |value| flip_base64(&mut value["entries"][0], 90)),
        ("no dataset entry", |value| value["entries"] = Value::Array(vec![])),
        ("a record", |value| flip_base64(&mut value["records"], 600)),
        ("records cut short", |value| value["records"] = value["records"].as_str().unwrap()[..544].into()),
        ("no base64", |value| value["records"] = "?".into()),
        ("a later version", |value| value["version"] = 2.into()),
        ("another shape", |value| *value = "proof".into()),
    ];
    for (name, change) in changes {
        fs::write(&path, &original).unwrap();
        edit(&path, |manifest| change(&mut manifest["tributary"]));
        let ended = stage.run(&["verify", dir.to_str().unwrap(), "--json"]).await;
        assert_eq!((ended.code, &report(&ended)["verdict"]), (Some(3), &"broken".into()), "{name}: {ended:?}");
    }
}

fn flip_base64(value: &mut Value, at: usize) {
    let mut text = value.as_str().unwrap().to_owned();
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    text.replace_range(at..=at, other);
    *value = text.into();
}

/// A machine that peaq's world knows by another name.
#[tokio::test]
async fn another_name_of_the_machine_is_proven_only_for_who_says_which_machine_is_meant() {
    let stage = Stage::new();
    let did = stage.did().await;
    let input = stage.file("input", &bytes(CHUNK + 1));
    let other = "did:peaq:0x52908400098527886e0f7030069857d2e4169ee7";
    for (number, (name, verdict)) in [("did:peaq:42-\u{fc}", "consistent"), (other, "broken")].into_iter().enumerate() {
        let out = format!("named-{number}");
        let published = stage.publish(&input, &out, &["--machine-did", name]).await.json();
        assert_eq!(published["machineDid"], name);
        let ended = stage.run(&["verify", &stage.arg(&out), "--json"]).await;
        assert_eq!((ended.code, &report(&ended)["verdict"]), (Some(3), &verdict.into()), "{ended:?}");
        let proven = stage.run(&["verify", &stage.arg(&out), "--machine", &did, "--json"]).await.json();
        assert_eq!((&proven["verdict"], &proven["machine"]), (&"proven".into(), &did.as_str().into()));
        assert_eq!(proven["claimed_machine"], name);
    }
    // The configuration can say it once for all.
    let config = stage.home.join("config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}peaq: {{ machine_did: roboter-7 }}\n")).unwrap();
    let published = stage.publish(&input, "configured", &[]).await.json();
    assert_eq!(published["machineDid"], "roboter-7");
}

/// The feed key was rotated since: the entry leads to what the new binding pins, and the statements hold it all.
#[tokio::test]
async fn a_dataset_of_a_retired_key_is_published_again_and_proven() {
    let stage = Stage::new();
    let (first, published) = stage.published(&bytes(CHUNK), "first").await;
    let input = stage.file("more", b"more");
    let _ = stage.run(&["publish", &input, "--stream", "files", "--json"]).await.json();
    let rotated = stage.run(&["key", "rotate", "--json"]).await;
    assert_eq!(rotated.code, Some(0), "{rotated:?}");

    let (dataset, out) = (published["dataset"].as_str().unwrap(), stage.arg("again"));
    let _ = stage.run(&["publish", "--dataset", dataset, "--format", "peaq", "--out", &out, "--json"]).await.json();
    let manifest: Value = serde_json::from_slice(&fs::read(stage.path("again/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["tributary"]["bindings"].as_array().unwrap().len(), 2);
    let entries = manifest["tributary"]["entries"].as_array().unwrap().len();
    assert!(entries > 1, "the entries up to the pinned one travel along: {entries}");
    let proven = stage.run(&["verify", &out, "--json"]).await.json();
    assert_eq!((&proven["verdict"], &proven["binding_serial"]), (&"proven".into(), &1.into()));
    // What was published before the rotation is proven with the bindings of then.
    let proven = stage.run(&["verify", first.to_str().unwrap(), "--json"]).await.json();
    assert_eq!((&proven["verdict"], &proven["binding_serial"]), (&"proven".into(), &0.into()));
    // Without the entries in between, the retired key proves nothing.
    edit(&stage.path("again/manifest.json"), |manifest| {
        manifest["tributary"]["entries"].as_array_mut().unwrap().truncate(1);
    });
    let ended = stage.run(&["verify", &out, "--json"]).await;
    assert_eq!((ended.code, &report(&ended)["verdict"]), (Some(3), &"broken".into()), "{ended:?}");
    assert!(report(&ended)["first_failure"].as_str().unwrap().contains("retired key"), "{ended:?}");
}
