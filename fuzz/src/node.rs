//! What the node reads: configuration, feed links, message definitions, messages, recordings, and bought data.

use std::{fs, io::Cursor, path::Path, sync::OnceLock};

use tributary::{
    config::{Config, FieldRules, Overrides},
    export::{
        ChannelForms, McapExporter, McapOutcome, PlainPackage, PlaintextError, PlaintextLimits, PlaintextReader,
        encode_cdr,
    },
    feeds::{FeedLink, MAX_LINK_ADDRS, MAX_LINK_LEN},
    home::OwnerPublic,
    ingest::{
        Content, Db3Source, Fields, IngestError, IngestOptions, McapSource, NdjsonOptions, NdjsonSource, Source,
        SourceItem,
        cdr::{self, Decoded, Fidelity},
        definitions::{Builtin, full_text},
        msgdef::{Lookup, NoLookup, Plan, normalize_type_name},
        reserved_key,
    },
};
use tributary_protocol::package::BlobMarker;

use crate::{scratch, split::Split, text};

/// Items that are read of one recording: a damaged one may hold very many.
const MAX_ITEMS: usize = 5000;

/// A configuration file; then the same text as the value of an override.
pub fn config(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let read = |overrides: &Overrides| Config::parse(text, "fuzz.yaml", Path::new("/base"), overrides);
    match read(&Overrides::none()) {
        Ok(config) => {
            for stream in &config.streams {
                assert!(config.stream_for_topic(&stream.topic).is_some());
                assert!(config.stream_named(stream.name()).is_some());
                if let Some(FieldRules::Agent(_)) = stream.rules() {
                    assert!(stream.rule_set().is_ok(), "such rules need no files");
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let mut overrides = Overrides::none();
    if overrides.flag("--set", text).is_ok() {
        let base = "roles: [buyer]\nstore: {quota: 1GiB}\n";
        let _ = Config::parse(base, "fuzz.yaml", Path::new("/base"), &overrides);
    }
}

/// A feed link, and the public half of an owner.
pub fn feed_link(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(owner) = text.parse::<OwnerPublic>() {
        assert_eq!(owner.to_string(), text);
    }
    let Ok(link) = text.parse::<FeedLink>() else { return };
    assert!(link.addrs.len() <= MAX_LINK_ADDRS);
    let written = link.to_string();
    // An address may have a longer spelling than the one that was given.
    if written.len() <= MAX_LINK_LEN {
        assert_eq!(written.parse().as_ref(), Ok(&link));
    }
}

fn check_plan(plan: &Plan) {
    assert!(plan.min_size() >= 1 || plan.byte_paths().is_empty());
    let _ = plan.schema_paths();
}

/// A message definition, alone and beside the built-in ones. A text that is complete compiles alone.
pub fn msgdef(data: &[u8]) {
    struct One<'a>(&'a str);
    impl Lookup for One<'_> {
        fn find(&self, full_name: &str) -> Option<String> {
            if full_name == "p/T" { Some(self.0.to_owned()) } else { Builtin.find(full_name) }
        }
    }
    let Some(text) = text(data) else { return };
    if let Some(name) = normalize_type_name(text) {
        assert_eq!(normalize_type_name(&name), Some(name));
    }
    if let Ok(plan) = Plan::compile("p/msg/T", text, &NoLookup) {
        check_plan(&plan);
    }
    if let Ok(plan) = Plan::compile("p/msg/T", text, &One(text)) {
        check_plan(&plan);
        if let Some(complete) = full_text("p/msg/T", &One(text)) {
            let alone = Plan::compile("p/msg/T", &complete, &NoLookup).expect("a complete text needs no other");
            assert_eq!(alone.min_size(), plan.min_size());
        }
    }
}

fn check_message(plan: &Plan, message: &[u8]) {
    let Ok(Decoded { fields, used, fidelity }) = cdr::decode(plan, message) else { return };
    assert!(used <= message.len() && used as u64 >= plan.min_size().min(4));
    assert_eq!(cdr::measure(plan, message), Ok(used));
    check_fields(&fields);
    // What lies behind the last field means nothing.
    let again = cdr::decode(plan, &message[..used]);
    assert_eq!(again, Ok(Decoded { fields: fields.clone(), used, fidelity }));
    // What lost nothing can be written again, and reads the same.
    if fidelity != Fidelity::Lossy {
        let written = encode_cdr(plan, &fields.value, &fields.blobs).expect("decoded fields are a message");
        assert!(fidelity != Fidelity::Bytes || written == message[..used]);
        let decoded = cdr::decode(plan, &written).expect("our own message");
        assert_eq!(decoded, Decoded { fields, used: written.len(), fidelity: Fidelity::Bytes });
    }
}

fn check_fields(fields: &Fields) {
    fields.value.to_canonical().expect("decoded fields can be signed");
    if reserved_key(&fields.value).is_none_or(|key| key == "@blob" || key == "@bytes") {
        let markers: Vec<BlobMarker> = fields.blobs.iter().map(|blob| blob.marker).collect();
        assert_eq!(sorted(BlobMarker::all_in(&fields.value)), sorted(markers));
    }
    let mut inlined = fields.clone();
    inlined.inline_where(|_| true);
    assert!(inlined.blobs.is_empty());
}

fn sorted(mut markers: Vec<BlobMarker>) -> Vec<BlobMarker> {
    markers.sort_unstable_by_key(|marker| (marker.hash, marker.bytes));
    markers
}

/// A message and its own definition: `definition (length 2) || message`.
pub fn cdr_defined(data: &[u8]) {
    let mut input = Split(data);
    let Some(definition) = input.block().and_then(text) else { return };
    if let Ok(plan) = Plan::compile("p/msg/T", definition, &Builtin) {
        check_message(&plan, input.0);
    }
}

/// The types of [`cdr_builtin`], by the first byte of its input.
pub(crate) const BUILTIN_TYPES: [&str; 12] = [
    "nav_msgs/msg/Odometry",
    "sensor_msgs/msg/Imu",
    "sensor_msgs/msg/NavSatFix",
    "sensor_msgs/msg/BatteryState",
    "sensor_msgs/msg/LaserScan",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/PointCloud2",
    "sensor_msgs/msg/JointState",
    "std_msgs/msg/String",
    "geometry_msgs/msg/TwistStamped",
    "tf2_msgs/msg/TFMessage",
    "diagnostic_msgs/msg/DiagnosticArray",
];

/// A message of a built-in type: `type (1) || message`.
pub fn cdr_builtin(data: &[u8]) {
    static PLANS: OnceLock<Vec<Plan>> = OnceLock::new();
    let plans = PLANS.get_or_init(|| {
        let compile = |name: &&str| {
            let text = full_text(name, &Builtin).expect("built in");
            Plan::compile(name, &text, &NoLookup).expect("built in")
        };
        BUILTIN_TYPES.iter().map(compile).collect()
    });
    let Some((number, message)) = data.split_first() else { return };
    check_message(&plans[usize::from(*number) % plans.len()], message);
}

fn options() -> IngestOptions {
    let ndjson = NdjsonOptions {
        topic_field: Some("topic".to_owned()),
        time_field: Some("time".to_owned()),
        max_line: 4096,
        ..NdjsonOptions::default()
    };
    IngestOptions { ament: false, max_message: 1 << 20, ndjson, ..IngestOptions::default() }
}

/// Reads a source to its end, or far into it.
fn drain(mut source: impl Source) -> Result<usize, IngestError> {
    let mut messages = 0;
    for _ in 0..MAX_ITEMS {
        match source.next()? {
            Some(SourceItem::Message(message)) => {
                messages += 1;
                let _ = source.schema_paths(&message.topic);
                match message.content {
                    Content::Fields(fields) => check_fields(&fields),
                    Content::Raw(raw) => check_fields(&raw.into_fields()),
                    _ => {}
                }
            }
            Some(_) => {}
            None => {
                assert!(source.next()?.is_none(), "the end stays the end");
                break;
            }
        }
    }
    Ok(messages)
}

/// Lines of JSON.
pub fn ndjson(data: &[u8]) {
    let source = NdjsonSource::new(Cursor::new(data.to_vec()), Path::new("-"), &options());
    let lines = data.split(|byte| *byte == b'\n').count();
    let messages = drain(source).expect("memory can be read");
    assert!(messages <= lines);
}

fn in_file(name: &str, data: &[u8], read: impl FnOnce(&Path)) {
    let dir = scratch();
    let path = dir.path().join(name);
    fs::write(&path, data).expect("the scratch directory can be written");
    read(&path);
}

/// An MCAP recording.
pub fn mcap(data: &[u8]) {
    in_file("x.mcap", data, |path| {
        let _ = McapSource::open(path, &options()).and_then(drain);
    });
}

/// A rosbag2 recording in SQLite.
pub fn db3(data: &[u8]) {
    in_file("x.db3", data, |path| {
        let _ = Db3Source::open(path, &options()).and_then(drain);
    });
}

fn packages(data: &[u8], piece: usize) -> (Vec<PlainPackage>, Result<(), PlaintextError>) {
    let mut reader = PlaintextReader::new(PlaintextLimits { line: 64 << 10, blobs: 1 << 20 });
    let mut out = Vec::new();
    for piece in data.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.next_package() {
                Ok(Some(package)) => out.push(package),
                Ok(None) => break,
                Err(error) => return (out, Err(error)),
            }
        }
    }
    (out, reader.finish())
}

/// A dataset's plaintext: the same packages, however it is cut into pieces.
pub fn plaintext(data: &[u8]) {
    let (whole, end) = packages(data, data.len().max(1));
    for package in &whole {
        let markers: Vec<BlobMarker> = package.blobs.iter().map(|blob| blob.marker).collect();
        assert_eq!(BlobMarker::all_in(&package.package.payload), markers);
        for blob in &package.blobs {
            assert_eq!(BlobMarker::of(&blob.bytes), blob.marker);
        }
    }
    for piece in [1, 7] {
        let (pieces, other_end) = packages(data, piece);
        assert!(pieces == whole, "cut into pieces of {piece}");
        assert_eq!(end.is_ok(), other_end.is_ok());
    }
}

/// A dataset's plaintext, exported as MCAP: what can be exported can be read.
pub fn export_mcap(data: &[u8]) {
    let (packages, _) = packages(data, data.len().max(1));
    if packages.is_empty() {
        return;
    }
    let dir = scratch();
    let path = dir.path().join("x.mcap");
    let mut forms = ChannelForms::default();
    // Each pass settles at least one channel, or finds all definitions that there are.
    let passes = packages.len() + 2;
    let written = (0..passes).find_map(|_| {
        let mut exporter =
            McapExporter::create(&path, std::mem::take(&mut forms)).expect("the scratch directory can be written");
        let written = packages.iter().filter_map(|package| exporter.write(package.clone()).ok()).count();
        match exporter.finish().expect("the scratch directory can be written") {
            McapOutcome::Written { packages, .. } => {
                assert_eq!(packages, written as u64);
                Some(written)
            }
            McapOutcome::Again(learned) => {
                forms = learned;
                None
            }
        }
    });
    let written = written.expect("an export ends");
    let source = McapSource::open(&path, &options()).expect("our own recording");
    assert!(drain(source).expect("our own recording") <= written);
}
