use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::ingest::{
    self, Content, Fields, IngestOptions, SourceItem, TopicFilter,
    cdr::{Fidelity, decode},
    definitions::Builtin,
    msgdef::NoLookup,
};

fn plan(text: &str) -> Plan {
    Plan::compile("p/msg/T", text, &Builtin).unwrap()
}

fn object(json: &str) -> Object {
    use tributary_protocol::json::{Limits, parse};
    match parse(json.as_bytes(), Limits::default()).unwrap() {
        Value::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

/// Body bytes of the message, behind its header.
fn encoded(text: &str, json: &str) -> Vec<u8> {
    let message = encode_cdr(&plan(text), &object(json), &[]).unwrap_or_else(|e| panic!("{text} {json}: {e}"));
    assert_eq!(message[..HEADER], LITTLE_ENDIAN);
    message[HEADER..].to_vec()
}

#[test]
fn every_form_has_its_bytes() {
    let cases: [(&str, &str, &[u8]); 12] = [
        ("bool a\nbyte b\nchar c\nint8 d\n", r#"{"a":true,"b":254,"c":255,"d":-1}"#, &[1, 254, 255, 255]),
        ("uint8 a\nint16 b\n", r#"{"a":1,"b":-2}"#, &[1, 0, 0xfe, 0xff]),
        (
            "uint8 a\nuint64 b\n",
            r#"{"a":1,"b":18446744073709551615}"#,
            &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
        ),
        ("int64 a\n", r#"{"a":-9223372036854775808}"#, &[0, 0, 0, 0, 0, 0, 0, 0x80]),
        ("float32 a\nfloat32 b\n", r#"{"a":0.1,"b":"NaN"}"#, &[0xcd, 0xcc, 0xcc, 0x3d, 0, 0, 0xc0, 0x7f]),
        ("float64[2] a\n", r#"{"a":[-0.0,"-Infinity"]}"#, &[0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0xf0, 0xff]),
        ("string a\nuint8 b\n", r#"{"a":"é","b":7}"#, &[3, 0, 0, 0, 0xc3, 0xa9, 0, 7]),
        ("wstring a\n", r#"{"a":"h\ud83e\udd16"}"#, &[3, 0, 0, 0, b'h', 0, 0, 0, 0x3e, 0xd8, 0, 0, 0x16, 0xdd, 0, 0]),
        ("float64[] a\nuint8 b\n", r#"{"a":[],"b":9}"#, &[0, 0, 0, 0, 9]),
        (
            "uint8[] a\nbyte[2] b\nint8[<=2] c\n",
            r#"{"a":"AQI=","b":"AwQ=","c":[-1]}"#,
            &[2, 0, 0, 0, 1, 2, 3, 4, 1, 0, 0, 0, 255],
        ),
        ("std_msgs/Empty a\nuint8 X=4\nstd_msgs/Empty[2] b\n", r#"{"a":{},"b":[{},{}]}"#, &[0, 0, 0]),
        (
            "uint8 a\nbuiltin_interfaces/Time[] t\n",
            r#"{"a":1,"t":[{"sec":-1,"nanosec":2}]}"#,
            &[1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, 2, 0, 0, 0],
        ),
    ];
    for (text, json, expected) in cases {
        assert_eq!(encoded(text, json), expected, "{text} {json}");
    }
    assert_eq!(encoded("int32 X=1\n", "{}"), [0], "an empty message is one byte");
}

#[test]
fn what_the_decoder_cannot_have_made_is_refused_by_name() {
    let cases = [
        ("uint8 a\n", r#"{"a":256}"#, r#"the field "a" is out of the range of its type"#),
        ("uint8 a\n", r#"{"a":-1}"#, r#"the field "a" is out of the range of its type"#),
        ("int64 a\n", r#"{"a":9223372036854775808}"#, r#"the field "a" is out of the range of its type"#),
        ("uint64 a\n", r#"{"a":18446744073709551616}"#, r#"the field "a" is no integer"#),
        ("uint8 a\n", r#"{"a":1.0}"#, r#"the field "a" is no integer"#),
        ("float64 a\n", r#"{"a":1}"#, r#"the field "a" is no float"#),
        ("float64 a\n", r#"{"a":"nan"}"#, r#"the field "a" is no float"#),
        ("float32 a\n", r#"{"a":0.10000000149011612}"#, r#"the field "a" is no float32"#),
        ("float32 a\n", r#"{"a":1e300}"#, r#"the field "a" is no float32"#),
        ("bool a\n", r#"{"a":1}"#, r#"the field "a" is no boolean"#),
        ("string a\n", r#"{"a":"\ud800"}"#, r#"the field "a" is no text"#),
        ("string a\n", r#"{"a":null}"#, r#"the field "a" is no text"#),
        ("uint8[] a\n", r#"{"a":[1]}"#, r#"the field "a" is no byte array"#),
        ("uint8[] a\n", r#"{"a":"AR=="}"#, r#"the field "a" is not base64"#),
        (
            "uint8[3] a\n",
            r#"{"a":"AQI="}"#,
            r#"the field "a" has a number of elements that the definition does not allow"#,
        ),
        (
            "int8[<=1] a\n",
            r#"{"a":[1,2]}"#,
            r#"the field "a" has a number of elements that the definition does not allow"#,
        ),
        ("uint8 a\nuint8 b\n", r#"{"a":1}"#, r#"the field "b" is missing"#),
        ("uint8 a\n", r#"{"a":1,"c":1}"#, r#"the field "c" is not in the definition"#),
        (
            "std_msgs/Empty a\n",
            r#"{"a":{"structure_needs_at_least_one_member":0}}"#,
            r#"the field "a.structure_needs_at_least_one_member" is not in the definition"#,
        ),
        (
            "builtin_interfaces/Time[] t\n",
            r#"{"t":[{"sec":0,"nanosec":0},{"sec":0}]}"#,
            r#"the field "t.1.nanosec" is missing"#,
        ),
        (
            "uint8[] a\n",
            r#"{"a":{"@blob":"0000000000000000000000000000000000000000000000000000000000000000","@bytes":2000}}"#,
            r#"the field "a" stands for bytes that are not there"#,
        ),
        ("string a\n", r#"{"a":{"__anonymized":true,"value":"x","strategy":"redact"}}"#, r#"the field "a" is no text"#),
    ];
    for (text, json, expected) in cases {
        let error = encode_cdr(&plan(text), &object(json), &[]).expect_err(json);
        assert_eq!(error.to_string(), expected, "{text} {json}");
    }
}

/// Decoded fields written again: the same bytes where the decoder says so, the same fields always. Says which it was.
fn check(plan: &Plan, message: &[u8]) -> Fidelity {
    let decoded = decode(plan, message).unwrap();
    if decoded.fidelity == Fidelity::Lossy {
        return Fidelity::Lossy;
    }
    let Fields { value, blobs, .. } = &decoded.fields;
    // By way of the text that is signed.
    let text = String::from_utf8(value.to_canonical().unwrap()).unwrap();
    let written = encode_cdr(plan, &object(&text), blobs).unwrap();
    if decoded.fidelity == Fidelity::Bytes {
        assert_eq!(written, message[..decoded.used], "byte for byte");
    }
    let again = decode(plan, &written).unwrap();
    assert_eq!((&again.fields, again.fidelity), (&decoded.fields, Fidelity::Bytes));
    decoded.fidelity
}

fn recordings() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let found = ["tests/recordings", "examples/recordings"].iter().flat_map(|folder| {
        std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "mcap" || extension == "db3"))
    });
    found.collect()
}

fn messages(path: &Path, raw: TopicFilter) -> Vec<Content> {
    let options = IngestOptions { raw, ament: false, ..IngestOptions::default() };
    let mut source = ingest::open(path, &options).unwrap();
    let items = std::iter::from_fn(|| source.next().unwrap());
    items
        .filter_map(|item| if let SourceItem::Message(message) = item { Some(message.content) } else { None })
        .collect()
}

#[test]
fn every_recording_comes_back_byte_for_byte() {
    let all = recordings();
    assert!(all.len() >= 4, "{all:?}");
    for path in all {
        let (fields, raw) = (messages(&path, TopicFilter::None), messages(&path, TopicFilter::All));
        assert_eq!(fields.len(), raw.len(), "{path:?}");
        let mut bytes = 0;
        for (fields, raw) in fields.iter().zip(&raw) {
            let (Content::Fields(fields), Content::Raw(raw)) = (fields, raw) else { panic!("{path:?}: {fields:?}") };
            let definition = fields.definition.as_ref().expect("a definition that stands alone");
            let name = &raw.schema.as_ref().unwrap().name;
            let plan = Plan::compile(name, &definition.text, &NoLookup).unwrap();
            match check(&plan, &raw.cdr) {
                Fidelity::Bytes => {
                    assert_eq!(encode_cdr(&plan, &fields.value, &fields.blobs).unwrap(), raw.cdr);
                    bytes += 1;
                }
                // Only padding may differ in a recording.
                Fidelity::Values => assert!(raw.trimmed),
                Fidelity::Lossy => panic!("{path:?}: a message was not understood"),
            }
        }
        assert!(bytes * 10 >= fields.len() * 9, "{path:?}: {bytes} of {} are the same bytes", fields.len());
    }
}

/// See `everything_rclpy_writes_is_read_as_rclpy_reads_it`.
#[test]
fn everything_rclpy_writes_is_written_again() {
    use std::collections::HashMap;

    use crate::ingest::msgdef::{Lookup, normalize_type_name};

    struct Texts(HashMap<String, String>);
    impl Lookup for Texts {
        fn find(&self, full_name: &str) -> Option<String> {
            self.0.get(full_name).cloned()
        }
    }
    let packed = include_bytes!("../../../../tests/recordings/rclpy_truth.json.zst");
    let text = zstd::decode_all(&packed[..]).unwrap();
    let truth = tributary_protocol::json::parse(&text, tributary_protocol::json::Limits::bytes(64 << 20)).unwrap();
    let truth = truth.as_object().unwrap();
    let texts = truth.get("definitions").unwrap().as_object().unwrap().iter();
    let texts = texts.map(|(name, text)| (normalize_type_name(name).unwrap(), text.as_str().unwrap().to_owned()));
    let texts = Texts(texts.collect());
    let (mut bytes, mut values) = (0, 0);
    for case in truth.get("cases").unwrap().as_array().unwrap() {
        let case = case.as_object().unwrap();
        let get = |key: &str| case.get(key).unwrap().as_str().unwrap();
        let definition = normalize_type_name(get("definition")).unwrap();
        let plan = Plan::compile(get("type"), &texts.0[&definition], &texts).unwrap();
        match check(&plan, &STANDARD.decode(get("cdr")).unwrap()) {
            Fidelity::Bytes => bytes += 1,
            Fidelity::Values => values += 1,
            Fidelity::Lossy => {}
        }
    }
    assert!(bytes > 300, "{bytes} as they were, {values} by value");
}

/// A value of a type, made of random bytes; small numbers are common.
fn value(plan: &Plan, field: &Field, source: &mut dyn FnMut() -> u64, blobs: &mut Vec<BlobField>) -> Value {
    let count = match field.arity {
        Arity::One => return element(plan, field.kind, source, blobs),
        Arity::Array(count) => count as usize,
        Arity::Sequence(bound) => usize::try_from(source() % 5).unwrap().min(bound.map_or(9, |b| b as usize)),
    };
    if field.kind == Kind::U8 {
        // Now and then one that is a blob.
        let long = field.arity == Arity::Sequence(None) && source().is_multiple_of(4);
        let count = if long { 1025 + usize::try_from(source() % 9).unwrap() } else { count };
        let bytes: Vec<u8> = (0..count).map(|_| source().to_le_bytes()[0]).collect();
        if count <= ingest::INLINE_BYTES {
            return Value::String(STANDARD.encode(bytes));
        }
        let blob = BlobField::new(Vec::new(), bytes);
        let marker = blob.marker.to_value();
        blobs.push(blob);
        return marker;
    }
    Value::Array((0..count).map(|_| element(plan, field.kind, source, blobs)).collect())
}

fn element(plan: &Plan, kind: Kind, source: &mut dyn FnMut() -> u64, blobs: &mut Vec<BlobField>) -> Value {
    let bytes = source().to_le_bytes();
    macro_rules! number {
        ($type:ty) => {{
            let number = <$type>::from_le_bytes(*bytes.first_chunk().unwrap());
            match i64::try_from(number) {
                Ok(number) => Value::from(number),
                Err(_) => Value::from(u64::from_le_bytes(bytes)),
            }
        }};
    }
    match kind {
        Kind::Bool => Value::Bool(bytes[0] & 1 == 1),
        Kind::U8 => number!(u8),
        Kind::I8 => number!(i8),
        Kind::U16 => number!(u16),
        Kind::I16 => number!(i16),
        Kind::U32 => number!(u32),
        Kind::I32 => number!(i32),
        Kind::U64 => number!(u64),
        Kind::I64 => number!(i64),
        Kind::F32 => single(f32::from_le_bytes(*bytes.first_chunk().unwrap())),
        Kind::F64 => match f64::from_le_bytes(bytes) {
            float if float.is_finite() => Value::from(float),
            float if float.is_nan() => Value::from("NaN"),
            float => Value::from(if float > 0.0 { "Infinity" } else { "-Infinity" }),
        },
        Kind::String | Kind::WString => {
            let length = source() % 7;
            let char = |n: u64| match n % 5 {
                0 => char::from_u32(u32::try_from(n % 0x11_0000).unwrap()).unwrap_or('\u{fffd}'),
                1 => '\0',
                _ => char::from(u8::try_from(n % 127).unwrap()),
            };
            Value::String((0..length).map(|_| char(source() >> 8)).collect())
        }
        Kind::Struct(index) => Value::Object(message(plan, index, source, blobs)),
    }
}

fn message(plan: &Plan, index: usize, source: &mut dyn FnMut() -> u64, blobs: &mut Vec<BlobField>) -> Object {
    let fields = &plan.structs[index].fields;
    fields.iter().map(|field| (field.name.to_string(), value(plan, field, source, blobs))).collect()
}

const TYPES: &str = "(bool|byte|char|u?int(8|16|32|64)|float(32|64)|string|wstring|string<=9|std_msgs/(Empty|Header|Char)\
                     |builtin_interfaces/Time|geometry_msgs/Pose|sensor_msgs/(JointState|LaserScan|PointField))";

proptest! {
    #[test]
    fn any_message_of_any_definition_comes_back(
        lines in proptest::collection::vec((TYPES, "(|\\[\\]|\\[[1-4]\\]|\\[<=3\\])"), 0..9),
        numbers in proptest::collection::vec(prop_oneof![2 => any::<u64>(), 1 => 0u64..9], 1..300),
    ) {
        let text: String = lines.iter().enumerate().map(|(i, (t, a))| format!("{t}{a} f{i}\n")).collect();
        let plan = plan(&text);
        let mut at = 0usize;
        let mut source = || {
            at += 1;
            // Goes on for ever, and not in circles.
            numbers[at % numbers.len()].wrapping_mul(1 + (at / numbers.len()) as u64)
        };
        let mut blobs = Vec::new();
        let fields = message(&plan, plan.root, &mut source, &mut blobs);
        let cdr = encode_cdr(&plan, &fields, &blobs).unwrap();
        let decoded = decode(&plan, &cdr).unwrap();
        prop_assert_eq!(&decoded.fields.value, &fields);
        prop_assert_eq!((decoded.used, decoded.fidelity), (cdr.len(), Fidelity::Bytes));
        prop_assert_eq!(check(&plan, &cdr), Fidelity::Bytes);
    }

    #[test]
    fn whatever_was_decoded_is_written_again(
        which in 0..3usize,
        mut message in proptest::collection::vec(prop_oneof![4 => Just(0u8), 2 => 0u8..4, 1 => any::<u8>()], 4..400),
    ) {
        let text = ["sensor_msgs/Imu a\n", "wstring[] a\nbool b\nstring[] c\nfloat32[] d\n", "std_msgs/Empty[] a\nint8[] b\nuint8[<=9] c\n"];
        message[0] = 0;
        message[1] &= 1;
        let plan = plan(text[which]);
        if decode(&plan, &message).is_ok() {
            check(&plan, &message);
        }
    }

    #[test]
    fn any_json_is_a_message_or_an_error(json in "\\{(\"[abc]\":([0-9]{1,25}|-[0-9]|[0-9]\\.[0-9]|\"[A-Za-z=]{0,6}\"|\\[[0-9]?\\]|\\{\\}|null|true),){0,3}\"z\":1\\}") {
        let Ok(Value::Object(mut fields)) = tributary_protocol::json::parse(json.as_bytes(), Default::default()) else { return Ok(()) };
        fields.remove("z");
        for text in ["uint8 a\nfloat32 b\nstring c\n", "uint8[] a\nint64[] b\nstd_msgs/Empty c\n", "int8 a\n"] {
            let plan = plan(text);
            if let Ok(cdr) = encode_cdr(&plan, &fields, &[]) {
                prop_assert_eq!(&decode(&plan, &cdr).unwrap().fields.value, &fields);
            }
        }
    }
}

/// Where a recording's bytes are not those that would be written, the decoder says so.
#[test]
fn the_decoder_tells_bytes_from_values_from_losses() {
    let fidelity = |text: &str, body: &[u8], head: [u8; 4]| {
        let message = [&head[..], body].concat();
        decode(&plan(text), &message).unwrap().fidelity
    };
    let little = LITTLE_ENDIAN;
    let cases: [(&str, &[u8], Fidelity); 13] = [
        ("uint8 a\nuint16 b\n", &[1, 0, 2, 0], Fidelity::Bytes),
        ("uint8 a\nuint16 b\n", &[1, 0xaa, 2, 0], Fidelity::Values),
        ("std_msgs/Empty a\n", &[1], Fidelity::Values),
        ("string a\n", &[0, 0, 0, 0], Fidelity::Values),
        ("string a\n", &[1, 0, 0, 0, b'x'], Fidelity::Values),
        ("string a\n", &[1, 0, 0, 0, 0], Fidelity::Bytes),
        ("string a\n", &[2, 0, 0, 0, 0xff, 0], Fidelity::Lossy),
        ("wstring a\n", &[1, 0, 0, 0, b'x', 0, 0, 0], Fidelity::Bytes),
        ("wstring a\n", &[1, 0, 0, 0, b'x', 0], Fidelity::Values),
        ("wstring a\n", &[1, 0, 0, 0, 0, 0xd8], Fidelity::Lossy),
        ("float32 a\n", &[0, 0, 0xc0, 0x7f], Fidelity::Bytes),
        ("float32 a\n", &[0, 0, 0xc0, 0xff], Fidelity::Values),
        ("float64 a\n", &[1, 0, 0, 0, 0, 0, 0xf8, 0x7f], Fidelity::Values),
    ];
    for (text, body, expected) in cases {
        assert_eq!(fidelity(text, body, little), expected, "{text} {body:?}");
    }
    assert_eq!(fidelity("uint8 a\n", &[1], [0, 0, 0, 0]), Fidelity::Values, "big endian");
    assert_eq!(fidelity("uint8 a\n", &[1], [0, 1, 0, 3]), Fidelity::Values, "options");
}
