use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
};

use proptest::prelude::*;
use tributary_protocol::{
    json::{Number, Object, Value},
    package::{DataPackage, timestamp_text},
};

use super::*;
use crate::ingest::{self, Content, Fields, IngestOptions, SourceItem, SourceMessage};

const DID: &str = "did:peaq:0x3dc92332a944866f44df73ee646e0dbfd161c70a";

/// The plaintext a lane makes of messages; what is not checked here, the signature, is left out.
fn plaintext(messages: &[SourceMessage]) -> Vec<u8> {
    let (mut out, mut told) = (Vec::new(), BTreeSet::new());
    for (n, message) in (0u64..).zip(messages) {
        let fields = match message.content.clone() {
            Content::Fields(fields) => fields,
            Content::Raw(raw) => raw.into_fields(),
            Content::Slice { .. } => panic!("not in a dataset of packages"),
        };
        let Fields { value: mut payload, blobs, definition } = fields;
        payload.insert("@topic", &*message.topic);
        payload.insert("@type", &*message.type_name);
        if let Some(definition) = definition {
            payload.insert("@definition", &*definition.id);
            if told.insert(definition.id.clone()) {
                payload.insert("@definition_text", &*definition.text);
            }
        }
        let package = DataPackage {
            did: DID.to_owned(),
            timestamp: timestamp_text(message.log_time_ns),
            schema_version: "1".to_owned(),
            sequence_number: Number::from((3u64 << 40) + n),
            payload,
            signature: "0x".to_owned(),
            signing_key_id: "k".to_owned(),
        };
        package.write_line(&mut out).unwrap();
        out.push(b'\n');
        for marker in tributary_protocol::package::BlobMarker::all_in(&package.payload) {
            out.extend_from_slice(&blobs.iter().find(|b| b.marker == marker).unwrap().bytes);
        }
    }
    out
}

fn demo(raw: ingest::TopicFilter) -> Vec<SourceMessage> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/recordings/robot.mcap");
    let options = IngestOptions { raw, ament: false, ..IngestOptions::default() };
    let mut source = ingest::open(&path, &options).unwrap();
    let items = std::iter::from_fn(|| source.next().unwrap()).take(400);
    items.map(|item| if let SourceItem::Message(message) = item { message } else { panic!("{item:?}") }).collect()
}

fn read(plaintext: &[u8], piece: usize) -> Result<Vec<PlainPackage>, PlaintextError> {
    let mut reader = PlaintextReader::new(PlaintextLimits::default());
    let mut out = Vec::new();
    for piece in plaintext.chunks(piece) {
        reader.push(piece);
        while let Some(package) = reader.next_package()? {
            out.push(package);
        }
    }
    reader.finish()?;
    Ok(out)
}

#[test]
fn a_plaintext_comes_apart_the_same_in_pieces_of_any_size() {
    let messages = demo(ingest::TopicFilter::None);
    let plaintext = plaintext(&messages);
    let whole = read(&plaintext, plaintext.len()).unwrap();
    assert_eq!(whole.len(), messages.len());
    assert!(whole.iter().any(|p| !p.blobs.is_empty()));
    for piece in [7, 1000, 65_536] {
        assert!(read(&plaintext, piece).unwrap() == whole);
    }
    for (package, message) in whole.iter().zip(&messages) {
        let Content::Fields(fields) = &message.content else { panic!("fields") };
        assert_eq!(package.blobs, fields.blobs, "the paths are found again");
    }
}

#[test]
fn blobs_follow_in_the_order_of_sorted_keys_and_may_be_equal_or_empty() {
    let mut object = Object::new();
    let blob = |bytes: &[u8]| tributary_protocol::package::BlobMarker::of(bytes).to_value();
    object.insert("z", blob(b"second"));
    object.insert("a", vec![Value::Null, blob(b"first"), blob(b"")]);
    object.insert("n", [("x", blob(b"first"))].into_iter().collect::<Object>());
    let package = DataPackage {
        did: DID.to_owned(),
        timestamp: "t".to_owned(),
        schema_version: "1".to_owned(),
        sequence_number: Number::from(1u64),
        payload: object,
        signature: String::new(),
        signing_key_id: String::new(),
    };
    let mut bytes = package.to_line().unwrap();
    bytes.extend_from_slice(b"\nfirstfirstsecond");
    let read = read(&bytes, 3).unwrap();
    let found: Vec<_> = read[0]
        .blobs
        .iter()
        .map(|b| (b.path.iter().map(ToString::to_string).collect::<Vec<_>>().join("."), b.bytes.as_slice()))
        .collect();
    let expected: [(&str, &[u8]); 4] = [("a.1", b"first"), ("a.2", b""), ("n.x", b"first"), ("z", b"second")];
    assert_eq!(found, expected.map(|(p, b)| (p.to_owned(), b)));
}

#[test]
fn what_is_no_plaintext_is_an_error_that_stays() {
    let good = plaintext(&demo(ingest::TopicFilter::None));
    let blob_at = good.windows(3).position(|w| w == [0xff, 0xd8, 0xff]).unwrap();
    let mut damaged = good.clone();
    damaged[blob_at + 500] ^= 1;
    assert!(matches!(read(&damaged, 4096), Err(PlaintextError::BlobHash { .. })));
    assert!(matches!(read(&good[..blob_at + 10], 4096), Err(PlaintextError::Unfinished { .. })));
    assert!(matches!(read(&good[..good.len() - 1], 4096), Err(PlaintextError::Unfinished { .. })));
    assert!(matches!(read(b"{}\n", 9), Err(PlaintextError::Package { index: 0, .. })));

    let mut small = PlaintextReader::new(PlaintextLimits { line: 100, blobs: 100 });
    small.push(&[b'x'; 101]);
    assert!(matches!(small.next_package(), Err(PlaintextError::LineTooLong { limit: 100 })));
    assert!(matches!(small.next_package(), Ok(None)));
    let mut small = PlaintextReader::new(PlaintextLimits { line: 1 << 20, blobs: 100 });
    small.push(&good[..blob_at]);
    let error = std::iter::from_fn(|| small.next_package().transpose()).find_map(Result::err);
    assert!(matches!(error, Some(PlaintextError::BlobsTooLarge { limit: 100, .. })));
}

#[test]
fn ndjson_holds_the_lines_as_signed_and_the_blobs_beside_them() {
    let plaintext = plaintext(&demo(ingest::TopicFilter::None));
    let packages = read(&plaintext, 65_536).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (path, blobs) = (dir.path().join("packages.ndjson"), dir.path().join("blobs"));
    let mut exporter = NdjsonExporter::create(&path, Some(&blobs)).unwrap();
    for package in &packages {
        exporter.write(package).unwrap();
    }
    assert!(!path.exists(), "nothing is there before it is whole");
    assert_eq!(exporter.finish().unwrap(), packages.len() as u64);
    let lines: Vec<_> = packages.iter().flat_map(|p| [p.line.as_slice(), b"\n"]).collect::<Vec<_>>().concat();
    assert!(fs::read(&path).unwrap() == lines);
    for blob in packages.iter().flat_map(|p| &p.blobs) {
        assert!(fs::read(blobs.join(blob.marker.hash.to_string())).unwrap() == blob.bytes);
    }
}

/// The export, its channels, and how many passes it took.
fn export_mcap(packages: &[PlainPackage]) -> (tempfile::TempDir, PathBuf, Vec<McapChannel>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.mcap");
    let mut forms = ChannelForms::default();
    for pass in 1..10 {
        let mut exporter = McapExporter::create(&path, forms).unwrap();
        for package in packages {
            exporter.write(package.clone()).unwrap();
        }
        match exporter.finish().unwrap() {
            McapOutcome::Written { packages: written, channels } => {
                assert_eq!(written, packages.len() as u64);
                return (dir, path, channels, pass);
            }
            McapOutcome::Again(learned) => {
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a pass that failed leaves nothing");
                forms = learned;
            }
        }
    }
    panic!("the export does not end");
}

/// The packages of the demo's recording, with what they say about their definitions changed.
fn packages_with(change: impl Fn(usize, &str, &mut Object)) -> Vec<PlainPackage> {
    let mut packages = read(&plaintext(&demo(ingest::TopicFilter::None)), 65_536).unwrap();
    for (n, package) in packages.iter_mut().enumerate() {
        let topic = package.package.payload.get("@topic").unwrap().as_str().unwrap().to_owned();
        change(n, &topic, &mut package.package.payload);
    }
    packages
}

/// The channel of a topic; asserts that it has one only, and that all other topics are as recorded.
fn only_json(channels: &[McapChannel], topic: &str) -> String {
    let json: Vec<_> = channels.iter().filter(|channel| channel.encoding == ChannelEncoding::Json).collect();
    assert_eq!(json.iter().map(|channel| channel.topic.as_str()).collect::<Vec<_>>(), [topic]);
    assert_eq!(channels.iter().filter(|channel| channel.topic == topic).count(), 1, "never half and half");
    assert!(channels.len() > 3);
    json[0].reason.clone().unwrap()
}

#[test]
fn fields_that_no_rule_changed_are_the_recording_again_byte_for_byte() {
    let (_dir, path, channels, passes) = export_mcap(&packages_with(|_, _, _| {}));
    assert!(channels.iter().all(|channel| channel.encoding == ChannelEncoding::Cdr && channel.reason.is_none()));
    assert_eq!(passes, 1);
    let raw = IngestOptions { raw: ingest::TopicFilter::All, ..IngestOptions::default() };
    let mut again = ingest::open(&path, &raw).unwrap();
    for message in demo(ingest::TopicFilter::All) {
        let Some(SourceItem::Message(read)) = again.next().unwrap() else { panic!("a message") };
        assert_eq!(
            (&read.topic, &read.type_name, read.log_time_ns),
            (&message.topic, &message.type_name, message.log_time_ns)
        );
        assert_eq!(read.content, message.content, "bytes and definition");
    }
    assert!(again.next().unwrap().is_none());
}

#[test]
fn one_changed_message_makes_its_channel_json_as_a_whole() {
    for late in [false, true] {
        let seen = std::cell::Cell::new(0);
        let packages = packages_with(|_, topic, payload| {
            if topic == "/fix" {
                if (seen.get() > 0) == late {
                    payload.remove("@definition");
                    payload.remove("@definition_text");
                    payload.remove("altitude");
                }
                seen.set(seen.get() + 1);
            }
        });
        assert!(seen.get() > 2);
        let (_dir, path, channels, passes) = export_mcap(&packages);
        assert!(only_json(&channels, "/fix").contains("a rule changed"));
        assert_eq!(passes, 1 + usize::from(late), "only what began as CDR must be written again");
        let bytes = fs::read(&path).unwrap();
        let messages = ::mcap::MessageStream::new(&bytes).unwrap().map(Result::unwrap);
        let fix: Vec<_> = messages.filter(|message| message.channel.topic == "/fix").collect();
        assert_eq!(fix.len(), seen.get());
        assert!(fix.iter().all(|message| message.channel.message_encoding == "json" && message.data[0] == b'{'));
        assert!(!fix.iter().any(|message| String::from_utf8_lossy(&message.data).contains("@definition")));
    }
}

#[test]
fn a_definition_that_is_told_late_serves_the_packages_before_it() {
    let text = std::cell::RefCell::new(None);
    let mut packages = packages_with(|_, topic, payload| {
        if topic == "/imu"
            && let Some(told) = payload.remove("@definition_text")
        {
            text.replace(Some(told));
        }
    });
    let (_dir, _path, channels, passes) = export_mcap(&packages);
    assert!(only_json(&channels, "/imu").contains("is not in this part of the dataset"));
    assert_eq!(passes, 1);

    let last = packages.iter_mut().rfind(|package| package.package.payload.get("@topic") == Some(&Value::from("/imu")));
    last.unwrap().package.payload.insert("@definition_text", text.take().unwrap());
    let (_dir, _path, channels, passes) = export_mcap(&packages);
    assert!(channels.iter().all(|channel| channel.encoding == ChannelEncoding::Cdr));
    assert_eq!(passes, 2);
}

#[test]
fn a_name_that_begins_like_a_known_definition_is_not_waited_for() {
    let seen = std::cell::Cell::new(0);
    let packages = packages_with(|_, topic, payload| {
        seen.set(seen.get() + usize::from(topic == "/fix"));
        if topic == "/fix" && seen.get() == 1 {
            let id = payload.get("@definition").unwrap().as_str().unwrap().to_owned();
            payload.insert("@definition", id + "0");
        }
    });
    let (_dir, _path, channels, passes) = export_mcap(&packages);
    assert!(only_json(&channels, "/fix").contains("is not one of its type"));
    assert_eq!(passes, 1);
}

#[test]
fn a_package_that_claims_to_be_whole_and_is_not_is_named() {
    type Lie = (&'static str, fn(&mut Object), &'static str);
    let lies: [Lie; 4] = [
        ("a field is missing", |payload| drop(payload.remove("altitude")), "\"altitude\" is missing"),
        ("a field is added", |payload| drop(payload.insert("more", 1i64)), "\"more\" is not in the definition"),
        ("a value is changed", |payload| drop(payload.insert("latitude", "52")), "\"latitude\" is no float"),
        ("no name", |payload| drop(payload.insert("@definition", "00")), "the definition 00 is not one of its type"),
    ];
    for (lie, tell, expected) in lies {
        let seen = std::cell::Cell::new(0);
        let packages = packages_with(|_, topic, payload| {
            seen.set(seen.get() + usize::from(topic == "/fix"));
            if topic == "/fix" && seen.get() == 3 {
                tell(payload);
            }
        });
        let (_dir, _path, channels, passes) = export_mcap(&packages);
        let reason = only_json(&channels, "/fix");
        assert!(reason.contains(expected), "{lie}: {reason}");
        assert_eq!(passes, 2, "{lie}");
    }
}

#[test]
fn mcap_of_changed_fields_is_json_with_images_in_their_place() {
    let messages = demo(ingest::TopicFilter::None);
    let packages = packages_with(|_, _, payload| {
        payload.remove("@definition");
        payload.remove("@definition_text");
    });
    let (_dir, path, ..) = export_mcap(&packages);
    let bytes = fs::read(&path).unwrap();
    let summary = ::mcap::Summary::read(&bytes).unwrap().unwrap();
    let mut schemas = BTreeMap::new();
    for channel in summary.channels.values() {
        assert_eq!(channel.message_encoding, "json");
        let schema = channel.schema.as_ref().unwrap();
        assert_eq!(schema.encoding, "jsonschema");
        let text: serde_json::Value = serde_json::from_slice(&schema.data).unwrap();
        assert_eq!(text["type"], "object");
        schemas.insert(schema.name.clone(), text);
    }
    let image = &schemas["sensor_msgs/msg/CompressedImage"]["properties"];
    assert_eq!(image["data"]["contentEncoding"], "base64");
    assert_eq!(image["header"]["properties"]["stamp"]["properties"]["sec"]["type"], "integer");
    assert!(image["format"].get("contentEncoding").is_none());
    assert_eq!(schemas["sensor_msgs/msg/LaserScan"]["properties"]["ranges"]["items"]["type"], "number");
    for (read, message) in ::mcap::MessageStream::new(&bytes).unwrap().zip(&messages) {
        let read = read.unwrap();
        assert_eq!((read.log_time, read.channel.topic.as_str()), (message.log_time_ns, &*message.topic));
        let Content::Fields(mut fields) = message.content.clone() else { panic!("fields") };
        fields.inline_where(|_| true);
        assert!(read.data.as_ref() == fields.value.to_canonical().unwrap());
    }
}

#[test]
fn mcap_of_raw_streams_is_the_recording_again() {
    let messages = demo(ingest::TopicFilter::All);
    let (_dir, path, ..) = export_mcap(&read(&plaintext(&messages), 65_536).unwrap());
    let mut source =
        ingest::open(&path, &IngestOptions { raw: ingest::TopicFilter::All, ..IngestOptions::default() }).unwrap();
    for message in &messages {
        let Some(SourceItem::Message(read)) = source.next().unwrap() else { panic!("a message") };
        assert_eq!(
            (&read.topic, &read.type_name, read.log_time_ns),
            (&message.topic, &message.type_name, message.log_time_ns)
        );
        assert_eq!(read.content, message.content);
    }
    assert!(source.next().unwrap().is_none());
}

#[test]
fn a_package_without_a_place_in_mcap_is_named() {
    let mut packages = read(&plaintext(&demo(ingest::TopicFilter::None)), 65_536).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut exporter = McapExporter::create(&dir.path().join("x.mcap"), ChannelForms::default()).unwrap();
    let mut no_topic = packages.remove(0);
    no_topic.package.payload.remove("@topic");
    assert!(matches!(exporter.write(no_topic), Err(ExportError::Package { .. })));
    let mut no_time = packages.remove(0);
    no_time.package.timestamp = "yesterday".to_owned();
    assert!(matches!(exporter.write(no_time), Err(ExportError::Package { .. })));
    let mut other_time = packages.remove(0);
    other_time.package.timestamp = "2026-01-02T03:04:05.678+01:00".to_owned();
    exporter.write(other_time).unwrap();
    drop(exporter);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "an export that was given up leaves nothing");
}

#[test]
fn an_atomic_file_replaces_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"old").unwrap();
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"half").unwrap();
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"new").unwrap();
    file.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(AtomicFile::create(&dir.path().join("no/such/dir")).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_taken_apart_without_panic(
        pieces in proptest::collection::vec(proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..100), 0..10),
    ) {
        let mut reader = PlaintextReader::new(PlaintextLimits { line: 200, blobs: 1000 });
        for piece in pieces {
            reader.push(&piece);
            while let Ok(Some(_)) = reader.next_package() {}
        }
        let _ = reader.finish();
    }
}
