//! Whole recordings: those of the repository, and damaged or hostile ones made here.

use std::{collections::BTreeMap, fs, io::Cursor};

use ::mcap::{Compression, WriteOptions, Writer, records::MessageHeader};

use super::*;

fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings").join(name)
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/recordings/robot.mcap")
}

fn options() -> IngestOptions {
    // What is installed on the machine must not change a test.
    IngestOptions { ament: false, ..IngestOptions::default() }
}

fn read_all(source: &mut dyn Source) -> Vec<SourceItem> {
    std::iter::from_fn(|| source.next().unwrap()).collect()
}

fn read(path: &Path, options: &IngestOptions) -> Vec<SourceItem> {
    read_all(&mut *open(path, options).unwrap())
}

fn messages(items: &[SourceItem]) -> Vec<&SourceMessage> {
    items.iter().filter_map(|item| if let SourceItem::Message(message) = item { Some(message) } else { None }).collect()
}

fn json(message: &SourceMessage) -> String {
    let Content::Fields(fields) = &message.content else { panic!("{:?}", message.content) };
    String::from_utf8(fields.value.to_canonical().unwrap()).unwrap()
}

fn only<'a>(items: &'a [SourceItem], topic: &str) -> Vec<&'a SourceMessage> {
    messages(items).into_iter().filter(|m| &*m.topic == topic).collect()
}

#[test]
fn the_talker_reads_the_same_from_mcap_and_from_db3() {
    let mcap = read(&recording("talker.mcap"), &options());
    assert!(mcap.iter().all(|i| matches!(i, SourceItem::Message(_))), "{mcap:?}");
    let said: Vec<_> = only(&mcap, "/topic").into_iter().map(json).collect();
    assert_eq!(said.len(), 10);
    assert!(said[0].starts_with("{\"data\":\"Hello"), "{}", said[0]);
    let logs = only(&mcap, "/rosout");
    assert!(!logs.is_empty());
    assert!(json(logs[0]).contains("\"level\":20"), "{}", json(logs[0]));

    // The definitions in the .db3 are placeholders: those of the Log messages must not be used.
    let db3 = read(&recording("talker.db3"), &options());
    assert!(db3.iter().all(|i| matches!(i, SourceItem::Message(_))), "{db3:?}");
    assert_eq!(only(&db3, "/topic").len(), 10);
    assert_eq!(only(&db3, "/rosout").len(), 10);
    assert!(json(only(&db3, "/rosout")[0]).contains("\"function\":"));
    let times: Vec<_> = messages(&db3).iter().map(|m| m.log_time_ns).collect();
    assert!(times.is_sorted());
}

#[test]
fn every_test_message_of_ros2_decodes_to_its_values() {
    let items = read(&recording("cdr_test_0.mcap"), &options());
    let all = messages(&items);
    assert_eq!(all.len(), items.len(), "{items:?}");
    assert!(!all.is_empty());
    let basic = all.iter().find(|m| m.type_name.ends_with("BasicTypes")).map(|m| json(m));
    let arrays = all.iter().find(|m| m.type_name.ends_with("/Arrays")).map(|m| json(m));
    assert!(basic.unwrap_or_default().contains("\"uint64_value\":"));
    assert!(arrays.unwrap_or_default().contains("\"alignment_check\":"));
}

#[test]
fn the_demo_recording_holds_what_a_robot_would_say() {
    let mut source = open(&demo(), &options()).unwrap();
    let items = read_all(&mut *source);
    assert_eq!(messages(&items).len(), items.len());
    let mut counts = BTreeMap::new();
    for message in messages(&items) {
        *counts.entry(message.topic.to_string()).or_insert(0) += 1;
    }
    let expected =
        [("/battery", 20), ("/camera/compressed", 100), ("/fix", 100), ("/imu", 2000), ("/odom", 400), ("/scan", 200)];
    assert_eq!(counts, expected.map(|(t, n)| (t.to_owned(), n)).into());
    for frame in only(&items, "/camera/compressed") {
        let Content::Fields(fields) = &frame.content else { panic!("fields") };
        assert_eq!(fields.value.get("format").unwrap().as_str(), Some("jpeg"));
        assert_eq!(fields.blobs.len(), 1);
        assert!(
            fields.blobs[0].bytes.starts_with(&[0xff, 0xd8, 0xff]) && fields.blobs[0].bytes.ends_with(&[0xff, 0xd9])
        );
    }
    assert!(only(&items, "/scan").iter().any(|m| json(m).contains("\"Infinity\"")), "the door is open");
    let Some(SchemaPaths::Fields(paths)) = source.schema_paths("/fix") else { panic!("paths") };
    assert!(paths.contains(&("latitude".to_owned(), SchemaPaths::Leaf)));
    assert_eq!(source.schema_paths("/gone"), None);
}

#[test]
fn topics_not_asked_for_are_skipped() {
    let only_fix = IngestOptions { topics: TopicFilter::Only(["/fix".to_owned()].into()), ..options() };
    let items = read(&demo(), &only_fix);
    assert_eq!((items.len(), only(&items, "/fix").len()), (100, 100));
}

#[test]
fn raw_topics_give_the_recorded_bytes_cut_at_their_end() {
    let raw = IngestOptions { raw: TopicFilter::All, ..options() };
    for name in ["talker.mcap", "talker.db3"] {
        let (raw, decoded) = (read(&recording(name), &raw), read(&recording(name), &options()));
        assert_eq!(raw.len(), decoded.len());
        for (raw, decoded) in messages(&raw).into_iter().zip(messages(&decoded)) {
            let Content::Raw(raw) = &raw.content else { panic!("raw") };
            assert!(raw.trimmed);
            let schema = raw.schema.as_ref().unwrap();
            // The definition that travels with the bytes is enough to read them.
            let plan = msgdef::Plan::compile(&schema.name, &schema.text, &msgdef::NoLookup).unwrap();
            let again = cdr::decode(&plan, &raw.cdr).unwrap();
            assert_eq!(again.used, raw.cdr.len());
            let Content::Fields(decoded) = &decoded.content else { panic!("fields") };
            assert_eq!((&decoded.value, &decoded.blobs), (&again.fields.value, &again.fields.blobs));
            assert_eq!(decoded.definition.as_ref().unwrap().text, schema.text, "and the same goes with the fields");
        }
    }
}

type Channel<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, Vec<Vec<u8>>);

/// An MCAP file: topic, message encoding, type, schema encoding, schema, messages.
fn mcap_file(compression: Option<Compression>, chunk: u64, channels: &[Channel<'_>]) -> Vec<u8> {
    let options = WriteOptions::new().compression(compression).chunk_size(Some(chunk)).compression_threads(0);
    let mut writer = Writer::with_options(Cursor::new(Vec::new()), options).unwrap();
    for (topic, encoding, type_name, schema_encoding, schema, messages) in channels {
        let schema = writer.add_schema(type_name, schema_encoding, schema.as_bytes()).unwrap();
        let channel_id = writer.add_channel(schema, topic, encoding, &BTreeMap::new()).unwrap();
        for (n, message) in (0u32..).zip(messages) {
            let time = u64::from(n) + 1;
            let header = MessageHeader { channel_id, sequence: n, log_time: time, publish_time: time };
            writer.write_to_known_channel(&header, message).unwrap();
        }
    }
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

fn string_message(text: &str) -> Vec<u8> {
    let mut out = vec![0, 1, 0, 0];
    out.extend_from_slice(&u32::try_from(text.len() + 1).unwrap().to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    out
}

fn strings<'a>(count: usize) -> Channel<'a> {
    let text = |n| format!("{n:05} {}", "some text that takes room ".repeat(4));
    (
        "/s",
        "cdr",
        "std_msgs/msg/String",
        "ros2msg",
        "string data\n",
        (0..count).map(|n| string_message(&text(n))).collect(),
    )
}

fn temporary(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn a_type_that_cannot_be_decoded_costs_its_topic_only() {
    let ok = || vec![string_message("x")];
    let bytes = mcap_file(
        Some(Compression::Lz4),
        1 << 20,
        &[
            ("/recursive", "cdr", "p/msg/R", "ros2msg", "R[] r\n", ok()),
            ("/unknown", "cdr", "p/msg/U", "ros2msg", "q/Gone g\n", ok()),
            ("/idl", "cdr", "p/msg/I", "ros2idl", "module p {};\n", ok()),
            ("/proto", "protobuf", "p.P", "protobuf", "", ok()),
            ("/good", "cdr", "std_msgs/msg/String", "ros2msg", "string data\n", ok()),
            ("/json", "json", "any", "jsonschema", "{}", vec![b"{\"b\":18446744073709551615,\"a\":[1.0]}".to_vec()]),
            (
                "/at",
                "json",
                "any",
                "jsonschema",
                "{}",
                vec![b"{\"a\":[{\"@blob\":\"x\"}]}".to_vec(), b"{}".to_vec(), b"[]".to_vec()],
            ),
            (
                "/short",
                "cdr",
                "std_msgs/msg/Header",
                "ros2msg",
                "builtin_interfaces/Time stamp\nstring frame_id\n",
                ok(),
            ),
        ],
    );
    let (_dir, path) = temporary("x.mcap", &bytes);
    let items = read(&path, &options());
    let lost: Vec<_> = items
        .iter()
        .filter_map(|i| if let SourceItem::TopicLost { topic, .. } = i { Some(&**topic) } else { None })
        .collect();
    assert_eq!(lost, ["/recursive", "/unknown", "/idl", "/proto"]);
    let dropped: Vec<_> = items
        .iter()
        .filter_map(|i| if let SourceItem::Dropped { topic, .. } = i { Some(&**topic) } else { None })
        .collect();
    assert_eq!(dropped, ["/at", "/at", "/short"]);
    let read: Vec<_> = messages(&items).iter().map(|m| (&*m.topic, json(m))).collect();
    let expected =
        [("/good", "{\"data\":\"x\"}"), ("/json", "{\"a\":[1.0],\"b\":18446744073709551615}"), ("/at", "{}")];
    assert_eq!(read, expected.map(|(t, j)| (t, j.to_owned())));
}

#[test]
fn a_recording_that_was_cut_off_is_read_to_its_last_whole_message() {
    for compression in [None, Some(Compression::Zstd), Some(Compression::Lz4)] {
        let bytes = mcap_file(compression, 16 << 10, &[strings(2000)]);
        let mut least = 2000;
        for part in (1..20).rev() {
            let (_dir, path) = temporary("x.mcap", &bytes[..bytes.len() * part / 20]);
            let items = read(&path, &options());
            let got = messages(&items);
            assert!(got.iter().enumerate().all(|(n, m)| json(m).starts_with(&format!("{{\"data\":\"{n:05} "))));
            assert!(got.len() <= least, "{} {least}", got.len());
            least = got.len();
            assert!(
                got.len() == 2000 || matches!(items.last(), Some(SourceItem::Damaged { .. })),
                "{:?}",
                items.last()
            );
        }
        assert!(least < 200, "{compression:?}: {least}");
    }
    let plain = mcap_file(None, 1 << 30, &[strings(1000)]);
    let (_dir, path) = temporary("x.mcap", &plain[..plain.len() / 2]);
    let got = messages(&read(&path, &options())).len();
    assert!((400..600).contains(&got), "half of the one chunk is read: {got}");
}

#[test]
fn a_damaged_chunk_is_left_out_and_those_behind_it_are_read() {
    let bytes = mcap_file(Some(Compression::Zstd), 16 << 10, &[strings(2000)]);
    let summary = ::mcap::Summary::read(&bytes).unwrap().unwrap();
    for chunk in [0, 3] {
        let chunk = &summary.chunk_indexes[chunk];
        let at = usize::try_from(chunk.chunk_start_offset + chunk.chunk_length / 2).unwrap();
        let mut damaged = bytes.clone();
        for byte in &mut damaged[at..at + 8] {
            *byte ^= 0x55;
        }
        let (_dir, path) = temporary("x.mcap", &damaged);
        let items = read(&path, &options());
        let got = messages(&items);
        assert!(items.iter().any(|i| matches!(i, SourceItem::Damaged { .. })));
        assert!(got.len() > 1000 && got.len() < 2000, "{}", got.len());
        assert!(json(got[got.len() - 1]).starts_with("{\"data\":\"01999"), "the end is read");
    }
}

#[test]
fn a_chunk_too_large_to_check_first_is_read_as_it_comes() {
    let message = string_message(&"z".repeat(1 << 20));
    let channel = ("/s", "cdr", "std_msgs/msg/String", "ros2msg", "string data\n", vec![message; 70]);
    let bytes = mcap_file(Some(Compression::Zstd), 1 << 30, &[channel]);
    let (_dir, path) = temporary("x.mcap", &bytes);
    let mut source = open(&path, &options()).unwrap();
    for _ in 0..70 {
        assert!(matches!(source.next(), Ok(Some(SourceItem::Message(_)))));
    }
    assert!(matches!(source.next(), Ok(None)));
}

#[test]
fn topics_of_a_closed_recording_are_known_before_the_first_message() {
    let source = open(&demo(), &options()).unwrap();
    assert!(source.schema_paths("/camera/compressed").is_some());
}

#[test]
fn a_message_over_the_bound_is_left_out() {
    let small = IngestOptions { max_message: 4096, ..options() };
    let bytes = mcap_file(
        None,
        1 << 10,
        &[(
            "/s",
            "cdr",
            "std_msgs/msg/String",
            "ros2msg",
            "string data\n",
            vec![string_message("a"), string_message(&"x".repeat(10_000)), string_message("b")],
        )],
    );
    let (_dir, path) = temporary("x.mcap", &bytes);
    let items = read(&path, &small);
    assert!(items.iter().any(|i| matches!(i, SourceItem::Damaged { .. } | SourceItem::Dropped { .. })), "{items:?}");
    assert!(messages(&items).iter().any(|m| json(m) == "{\"data\":\"b\"}"), "{items:?}");
}

fn db3(path: &Path, definitions: &[(&str, &str)], topics: &[(&str, &str, &str)], rows: &[(i64, i64, Vec<u8>)]) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT);
         CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);",
    )
    .unwrap();
    if !definitions.is_empty() {
        db.execute_batch(
            "CREATE TABLE message_definitions(topic_type TEXT, encoding TEXT, encoded_message_definition TEXT);",
        )
        .unwrap();
    }
    for (name, text) in definitions {
        db.execute("INSERT INTO message_definitions VALUES (?1, 'ros2msg', ?2)", [name, text]).unwrap();
    }
    for (id, (name, type_name, format)) in (1i64..).zip(topics) {
        db.execute("INSERT INTO topics VALUES (?1, ?2, ?3, ?4)", (id, name, type_name, format)).unwrap();
    }
    for (topic, time, data) in rows {
        db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (?1, ?2, ?3)", (topic, time, data)).unwrap();
    }
}

#[test]
fn an_old_db3_without_definitions_uses_other_sources_and_says_what_it_cannot_decode() {
    let dir = tempfile::tempdir().unwrap();
    // A name that needs escaping in a URI.
    let path = dir.path().join("a?b %23 bag.db3");
    let mut five = vec![0, 1, 0, 0];
    five.extend_from_slice(&5i64.to_le_bytes());
    db3(
        &path,
        &[],
        &[("/s", "std_msgs/msg/String", "cdr"), ("/own", "mine/msg/Five", "cdr"), ("/x", "x/msg/X", "cbor")],
        &[
            (1, 30, string_message("late")),
            (2, 20, five.clone()),
            (1, 10, string_message("early")),
            (3, 5, vec![1]),
            (9, 1, vec![]),
        ],
    );
    let items = read(&path, &options());
    assert!(matches!(&items[0], SourceItem::TopicLost { topic, .. } if &**topic == "/x"), "{items:?}");
    assert!(matches!(&items[1], SourceItem::Damaged { .. }), "a message of no topic: {items:?}");
    assert_eq!(json(messages(&items)[0]), "{\"data\":\"early\"}");
    assert!(matches!(&items[3], SourceItem::TopicUndecoded { topic, .. } if &**topic == "/own"), "{items:?}");
    let Content::Raw(raw) = &messages(&items)[1].content else { panic!("raw") };
    assert_eq!((&raw.cdr, raw.trimmed), (&five, false));
    assert_eq!(json(messages(&items)[2]), "{\"data\":\"late\"}");

    let lose = IngestOptions { keep_undecoded: false, ..options() };
    let items = read(&path, &lose);
    assert!(items.iter().any(|i| matches!(i, SourceItem::TopicLost { topic, .. } if &**topic == "/own")));

    fs::create_dir_all(dir.path().join("defs/mine/msg")).unwrap();
    fs::write(dir.path().join("defs/mine/msg/Five.msg"), "int64 five\n").unwrap();
    let with = IngestOptions { definition_dirs: vec![dir.path().join("defs")], ..options() };
    let items = read(&path, &with);
    assert_eq!(json(only(&items, "/own")[0]), "{\"five\":5}");
}

#[test]
fn a_short_message_does_not_make_a_placeholder_look_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db3");
    // 39 bytes: a placeholder that reads one byte leaves fewer than the 64 that a decoder tolerates.
    let message = string_message(&"y".repeat(30));
    db3(
        &path,
        &[("std_msgs/msg/String", "uint8 level\n")],
        &[("/s", "std_msgs/msg/String", "cdr")],
        &[(1, 1, message)],
    );
    let items = read(&path, &options());
    assert_eq!(json(messages(&items)[0]), format!("{{\"data\":\"{}\"}}", "y".repeat(30)));
}

#[test]
fn other_sqlite_files_are_refused_and_views_are_no_tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db3");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE topics(id); CREATE VIEW messages AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n FROM c) SELECT n FROM c;").unwrap();
    drop(db);
    assert!(matches!(open(&path, &options()), Err(IngestError::Unsupported { .. })));
}

#[test]
fn a_recording_with_messages_left_in_its_side_file_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db3");
    db3(&path, &[], &[("/s", "std_msgs/msg/String", "cdr")], &[(1, 1, string_message("a"))]);
    fs::write(dir.path().join("x.db3-wal"), b"something").unwrap();
    let items = read(&path, &options());
    assert!(matches!(&items[0], SourceItem::Damaged { .. }), "{items:?}");
    assert_eq!(messages(&items).len(), 1);
}

#[test]
fn ndjson_lines_become_messages_and_bad_lines_are_dropped_by_number() {
    let text = "{\"t\":\"/a\",\"at\":\"2026-01-02T03:04:05.5Z\",\"x\":1}\n\n  \r\n{\"at\":1700000000000000000,\"x\":1.0}\nnot json\n\
                {\"at\":1.5}\n{\"at\":true}\n{\"@topic\":\"x\",\"at\":1}\n[1]\n{\"t\":5}\n";
    let long = format!("{text}{{\"x\":\"{}\"}}\n{{\"at\":7,\"last\":true}}", "y".repeat(1000));
    let (_dir, path) = temporary("x.ndjson", long.as_bytes());
    let ndjson = NdjsonOptions {
        topic: "/d".to_owned(),
        topic_field: Some("t".to_owned()),
        time_field: Some("at".to_owned()),
        max_line: 200,
        ..NdjsonOptions::default()
    };
    let items = read(&path, &IngestOptions { ndjson, ..options() });
    let read: Vec<_> = messages(&items).iter().map(|m| (m.topic.to_string(), m.log_time_ns)).collect();
    let expected =
        [("/a", 1_767_323_045_500_000_000), ("/d", 1_700_000_000_000_000_000), ("/d", 1_500_000_000), ("/d", 7)];
    assert_eq!(read, expected.map(|(t, n)| (t.to_owned(), n)));
    let dropped: Vec<_> = items
        .iter()
        .filter_map(|i| if let SourceItem::Dropped { reason, .. } = i { reason.split(':').next() } else { None })
        .collect();
    assert_eq!(dropped, ["line 5", "line 7", "line 8", "line 9", "line 10", "line 11"]);
}

#[test]
fn a_file_is_its_bytes_in_order() {
    let bytes: Vec<u8> = (0..700_000u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let (_dir, path) = temporary("map.bin", &bytes);
    let items = read(&path, &options());
    let mut whole = Vec::new();
    for message in messages(&items) {
        let Content::Slice { bytes, offset } = &message.content else { panic!("a slice") };
        assert_eq!(*offset, whole.len() as u64);
        assert_eq!(&*message.topic, "map.bin");
        whole.extend_from_slice(bytes);
    }
    assert_eq!(whole, bytes);
    let (_dir, empty) = temporary("empty.bin", b"");
    assert!(read(&empty, &options()).is_empty());
}

#[test]
fn the_parts_of_a_split_recording_come_in_the_order_of_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    for n in [10, 9, 1] {
        let bytes = mcap_file(
            None,
            1 << 20,
            &[("/s", "cdr", "std_msgs/msg/String", "ros2msg", "string data\n", vec![string_message(&n.to_string())])],
        );
        fs::write(dir.path().join(format!("bag_{n}.mcap")), bytes).unwrap();
    }
    fs::write(dir.path().join("bag_5.mcap"), b"").unwrap();
    fs::write(dir.path().join("bag_6.db3"), b"SQLite format 3\0nonsense").unwrap();
    fs::write(dir.path().join("metadata.yaml"), b"").unwrap();
    let items = read(dir.path(), &options());
    let said: Vec<_> = messages(&items).into_iter().map(json).collect();
    assert_eq!(said, ["{\"data\":\"1\"}", "{\"data\":\"9\"}", "{\"data\":\"10\"}"]);
    assert!(items.iter().any(|i| matches!(i, SourceItem::Damaged { .. })), "the broken parts are named: {items:?}");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(open(empty.path(), &options()), Err(IngestError::Unsupported { .. })));
}

#[test]
fn a_watched_directory_gives_each_file_once_when_it_is_quiet() {
    use std::time::{Duration, SystemTime};
    let dir = tempfile::tempdir().unwrap();
    let second = Duration::from_secs(1);
    let start = SystemTime::now();
    let mut watch = DirectoryWatch::new(dir.path(), 3 * second);
    let (a, b) = (dir.path().join("a_10.mcap"), dir.path().join("a_9.db3"));
    fs::write(&a, b"1").unwrap();
    fs::write(&b, b"1").unwrap();
    let wal = dir.path().join("a_9.db3-wal");
    fs::write(&wal, b"").unwrap();
    assert!(watch.poll(start).unwrap().is_empty());
    fs::write(&a, b"12").unwrap();
    assert!(watch.poll(start + 2 * second).unwrap().is_empty());
    assert!(watch.poll(start + 4 * second).unwrap().is_empty(), "a grew two seconds ago, b is still open");
    fs::remove_file(&wal).unwrap();
    assert_eq!(watch.poll(start + 6 * second).unwrap(), [b.clone(), a.clone()]);
    assert!(watch.poll(start + 60 * second).unwrap().is_empty());
    let mut again = DirectoryWatch::new(dir.path(), Duration::ZERO);
    again.mark_done(&a);
    assert_eq!(again.poll(start).unwrap(), [b]);
}

#[test]
fn compressed_recordings_say_what_to_do() {
    let (_dir, path) = temporary("x.db3.zstd", &[0x28, 0xb5, 0x2f, 0xfd, 0]);
    let Err(error) = open(&path, &options()) else { panic!("refused") };
    assert!(error.to_string().contains("decompress"), "{error}");
    assert!(matches!(open(Path::new("/no/such/file"), &options()), Err(IngestError::Io { .. })));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_recording_never_panics_and_always_ends(
        changes in proptest::collection::vec((0usize..100_000, 0u8..=255), 1..12),
        cut in 0usize..100_000,
        compressed in 0usize..3,
    ) {
        let compression = [None, Some(Compression::Zstd), Some(Compression::Lz4)][compressed];
        let mut bytes = mcap_file(compression, 4 << 10, &[strings(200)]);
        let length = bytes.len();
        for (at, value) in changes {
            bytes[8 + at % (length - 8)] = value;
        }
        bytes.truncate(length.min(8 + cut));
        let (_dir, path) = temporary("x.mcap", &bytes);
        let small = IngestOptions { max_message: 1 << 20, ..options() };
        let mut source = open(&path, &small).unwrap();
        let mut items = 0;
        while let Ok(Some(_)) = source.next() {
            items += 1;
            proptest::prop_assert!(items < 100_000);
        }
        proptest::prop_assert!(matches!(source.next(), Ok(None)), "it stays ended");
    }
}
