//! Seeds for what the node reads, and for its store.

use std::{collections::BTreeMap, io::Cursor};

use mcap::{Compression, WriteOptions, Writer, records::MessageHeader};
use tributary::ingest::definitions::{Builtin, full_text};

use super::{Seeds, protocol::package};
use crate::{known, node::BUILTIN_TYPES, scratch, store};

const VALID: &str = "seeds are valid";

pub(super) fn add(seeds: &mut Seeds) {
    config(seeds);
    messages(seeds);
    recordings(seeds);
    plaintexts(seeds);
    for (number, name) in (0u8..).zip(["chunk", "state", "copy"]) {
        seeds.add("store_frames", name, store::example(number));
        seeds.add("store_segment", name, store::example_segment(number));
    }
}

fn config(seeds: &mut Seeds) {
    // The commented example is longer than a seed should be.
    let example = include_str!("../../../examples/tributary.yaml");
    let lines = example.lines().map(|line| line.split(" #").next().unwrap_or_default().trim_end());
    let short: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.trim_start().starts_with('#')).collect();
    seeds.add("config", "machine", short.join("\n"));
    seeds.add("config", "buyer", include_str!("../../../examples/buyer.yaml"));
    seeds.add("config", "flow", "{roles: [machine], streams: [{topic: &a /x, mode: raw}, {topic: '/y', mode: raw}]}\n");
    seeds.add("config", "override", "store.quota=10GiB");
    let agent = include_str!("../../../examples/peaq-agent.yaml");
    let lines = agent.lines().filter(|line| !line.trim_start().starts_with('#'));
    seeds.add("config", "agent", lines.collect::<Vec<_>>().join("\n"));
    let did = known::did();
    seeds.add("feed_link", "bare", format!("tributary://{did}"));
    seeds.add(
        "feed_link",
        "addresses",
        format!("tributary://{did}?addr=/ip4/192.0.2.1/tcp/4600&addr=/dns/a.example/udp/4600/quic-v1&addr=/unix/a%25b"),
    );
    seeds.add("feed_link", "owner", format!("{}/{}", known::owner().did(), known::encryption_key().public()));
}

/// A CDR message: a string, and numbers in little endian.
fn cdr(text: &str, numbers: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 1, 0, 0];
    out.extend_from_slice(&u32::try_from(text.len() + 1).expect("short").to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    out.resize((out.len() - 4).next_multiple_of(8) + 4, 0);
    out.extend_from_slice(numbers);
    out
}

fn messages(seeds: &mut Seeds) {
    let every_form = "# all there is\nbool a\nbyte b 3 # default\nchar c\nfloat32[3] d [1.5, 2, 3]\nint64[] e\n\
        uint16[<=7] f\nstring<=10 g \"a # b = c\"\nstring<=10[<=5] h\nwstring i\nuint8 K=3\nstring T = x\nq/Q j\n\
        std_msgs/Header k\n================================================================================\n\
        MSG: q/Q\nuint8[] data\n";
    seeds.add("msgdef", "every-form", every_form);
    seeds.add("msgdef", "built-in", full_text("nav_msgs/msg/Odometry", &Builtin).expect("built in"));
    seeds.add("msgdef", "name", "std_msgs/msg/Header");

    let definition = "string a\nfloat64 b\nuint8[] c\nstring[<=2] d\n";
    let float = 1.5f64.to_le_bytes();
    let values = [float.as_slice(), &[3, 0, 0, 0, 1, 2, 3, 0], &[1, 0, 0, 0, 2, 0, 0, 0, b'x', 0]];
    let with = |definition: &str, message: &[u8]| {
        let len = u16::try_from(definition.len()).expect("short");
        [len.to_be_bytes().as_slice(), definition.as_bytes(), message].concat()
    };
    seeds.add("cdr_defined", "lists", with(definition, &cdr("a", &values.concat())));
    seeds.add("cdr_defined", "blob", with("string a\nuint32 n\nuint8[1100] c\n", &cdr("a", &[7; 1104])));
    seeds.add("cdr_defined", "nested", with("p/Q[] a\n===\nMSG: p/Q\nint8 x\nint64 y\n", &[0, 0, 0, 0, 0, 0, 0, 0]));
    seeds.add("cdr_defined", "wide", with("wstring a\nbool b\n", b"\0\x01\0\0\x02\0\0\0a\0\0\xd8\x01"));

    for (number, name) in (0u8..).zip(BUILTIN_TYPES) {
        let short = name.rsplit('/').next().unwrap_or(name);
        // Zeros behind a header are a message of nearly every type: empty strings and lists.
        seeds.add("cdr_builtin", short, [&[number, 0, 1, 0, 0], [0; 720].as_slice()].concat());
    }
    let string = [&[8], cdr("hello", b"").as_slice()].concat();
    seeds.add("cdr_builtin", "hello", string);

    let lines = "{\"topic\":\"/a\",\"time\":\"2026-01-02T03:04:05.5Z\",\"x\":[1,2.5]}\n\n{\"time\":1767344400000000000}\r\n\
        {\"time\":1.5,\"@x\":1}\n{\"time\":1767344400.25,\"y\":null}\n[1]\n{\"time\":\"?\"}";
    seeds.add("ndjson", "lines", lines);
}

fn recordings(seeds: &mut Seeds) {
    let text = full_text("std_msgs/msg/String", &Builtin).expect("built in");
    let write = |compression: Option<Compression>, chunked: bool, sums: bool| {
        let options = WriteOptions::new()
            .compression(compression)
            .compression_threads(0)
            .use_chunks(chunked)
            .chunk_size(Some(256))
            .calculate_chunk_crcs(sums)
            .calculate_data_section_crc(sums)
            .calculate_summary_section_crc(sums)
            .profile("ros2")
            .library("seed");
        let mut writer = Writer::with_options(Cursor::new(Vec::new()), options)?;
        let schema = writer.add_schema("std_msgs/msg/String", "ros2msg", text.as_bytes())?;
        let json = writer.add_schema("x", "jsonschema", b"{}")?;
        let channels = [
            writer.add_channel(schema, "/a", "cdr", &BTreeMap::new())?,
            writer.add_channel(json, "/b", "json", &BTreeMap::new())?,
        ];
        for sequence in 0..6u32 {
            let channel_id = channels[usize::from(sequence % 3 == 0)];
            let time = known::NOW_MS * 1_000_000 + u64::from(sequence);
            let data = if sequence % 3 == 0 { b"{\"a\":[1]}".to_vec() } else { cdr("hello", b"") };
            let header = MessageHeader { channel_id, sequence, log_time: time, publish_time: time };
            writer.write_to_known_channel(&header, &data)?;
        }
        writer.finish()?;
        Ok::<_, mcap::McapError>(writer.into_inner().into_inner())
    };
    let written = [
        ("plain", write(None, false, true)),
        ("chunks", write(None, true, false)),
        ("zstd", write(Some(Compression::Zstd), true, false)),
        ("lz4", write(Some(Compression::Lz4), true, false)),
    ];
    for (name, bytes) in written {
        seeds.add_foreign("mcap", name, bytes.expect("memory can be written"));
    }
    seeds.add_foreign("db3", "rosbag2", db3(&text).expect("the scratch directory can be written"));
}

fn db3(text: &str) -> rusqlite::Result<Vec<u8>> {
    let dir = scratch();
    let path = dir.path().join("x.db3");
    let db = rusqlite::Connection::open(&path)?;
    db.execute_batch(
        "PRAGMA page_size = 512;
         CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT);
         CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);
         CREATE TABLE message_definitions(topic_type TEXT, encoding TEXT, encoded_message_definition TEXT);",
    )?;
    let type_name = "std_msgs/msg/String";
    db.execute("INSERT INTO message_definitions VALUES (?1, 'ros2msg', ?2)", [type_name, text])?;
    db.execute("INSERT INTO topics VALUES (1, '/a', ?1, 'cdr')", [type_name])?;
    for time in 1..4 {
        let message = cdr("hello", b"");
        db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?1, ?2)", (time, message))?;
    }
    db.close().map_err(|(_, error)| error)?;
    Ok(std::fs::read(&path).expect(VALID))
}

fn plaintexts(seeds: &mut Seeds) {
    let mut bytes = Vec::new();
    for number in 0..2 {
        let (package, blobs) = package(number);
        package.write_line(&mut bytes).expect(VALID);
        bytes.push(b'\n');
        bytes.extend(blobs);
    }
    for target in ["plaintext", "export_mcap"] {
        seeds.add(target, "blobs", bytes.clone());
    }
    // Whole messages that can be CDR, and one that only claims to be.
    let text = "string data\n";
    let whole: String = ["\"a\"", "\"b\"", "5"]
        .iter()
        .enumerate()
        .map(|(number, data)| {
            let told = if number == 1 { ",\"@definition_text\":\"string data\\n\"" } else { "" };
            format!(
                "{{\"did\":\"{}\",\"timestamp\":\"2026-01-02T09:00:00Z\",\"schemaVersion\":\"1\",\"sequenceNumber\":{number},\
                 \"payload\":{{\"@topic\":\"/t{}\",\"@type\":\"std_msgs/msg/String\",\"@definition\":\"{}\"{told},\
                 \"data\":{data}}},\"signature\":\"0x\",\"signingKeyId\":\"k\"}}\n",
                known::did(),
                number / 2,
                tributary::ingest::definition_id(text),
            )
        })
        .collect();
    for target in ["plaintext", "export_mcap"] {
        seeds.add(target, "whole", whole.clone());
    }
    let raw = format!(
        "{{\"did\":\"{}\",\"timestamp\":\"2026-01-02T09:00:00.5+01:00\",\"schemaVersion\":\"1\",\"sequenceNumber\":7,\
         \"payload\":{{\"@topic\":\"/raw\",\"@type\":\"std_msgs/msg/String\",\"cdr\":{},\"schema\":{{\"encoding\":\
         \"ros2msg\",\"text\":\"string data\"}}}},\"signature\":\"0x\",\"signingKeyId\":\"k\"}}\n",
        known::did(),
        marker(b"\0\x01\0\0\x02\0\0\0a\0")
    );
    for target in ["plaintext", "export_mcap"] {
        seeds.add(target, "raw", [raw.as_bytes(), b"\0\x01\0\0\x02\0\0\0a\0"].concat());
    }
}

fn marker(bytes: &[u8]) -> String {
    format!("{{\"@blob\":\"{}\",\"@bytes\":{}}}", tributary_protocol::ids::Hash::of(bytes), bytes.len())
}
