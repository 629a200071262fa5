use proptest::prelude::*;

use super::*;
use crate::ingest::{
    definitions::Builtin,
    msgdef::{NoLookup, Plan},
};

/// Writes CDR in either byte order, for expectations that are written by hand.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    little: bool,
}

impl Writer {
    fn new(little: bool) -> Self {
        Self { bytes: vec![0, u8::from(little), 0, 0], little }
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn number(mut self, big_endian: &[u8]) -> Self {
        while !(self.bytes.len() - HEADER).is_multiple_of(big_endian.len()) {
            // Padding is whatever was in memory.
            self.bytes.push(0xaa);
        }
        let mut bytes = big_endian.to_vec();
        if self.little {
            bytes.reverse();
        }
        self.raw(&bytes)
    }

    fn text(self, text: &str) -> Self {
        let length = u32::try_from(text.len() + 1).unwrap();
        self.number(&length.to_be_bytes()).raw(text.as_bytes()).raw(&[0])
    }
}

fn plan(text: &str) -> Plan {
    Plan::compile("p/msg/T", text, &Builtin).unwrap()
}

fn json(fields: &Fields) -> String {
    String::from_utf8(fields.value.to_canonical().unwrap()).unwrap()
}

fn check(text: &str, build: impl Fn(Writer) -> Writer, expected: &str) {
    let plan = plan(text);
    for little in [true, false] {
        let message = build(Writer::new(little)).bytes;
        let decoded = decode(&plan, &message).unwrap_or_else(|e| panic!("little {little}: {e}"));
        assert_eq!(json(&decoded.fields), expected, "little {little}");
        assert_eq!(decoded.used, message.len(), "little {little}");
        assert_eq!(measure(&plan, &message), Ok(message.len()), "little {little}");
    }
}

#[test]
fn every_primitive_in_both_byte_orders() {
    check(
        "bool a\nbyte b\nchar c\nint8 d\nuint8 e\nint16 f\nuint16 g\nint32 h\nuint32 i\nint64 j\nuint64 k\nfloat32 l\nfloat64 m\n",
        |w| {
            w.raw(&[1, 0xfe, 0xfd, 0xfc, 0xfb])
                .number(&(-2i16).to_be_bytes())
                .number(&65535u16.to_be_bytes())
                .number(&i32::MIN.to_be_bytes())
                .number(&u32::MAX.to_be_bytes())
                .number(&i64::MIN.to_be_bytes())
                .number(&u64::MAX.to_be_bytes())
                .number(&0.1f32.to_be_bytes())
                .number(&0.1f64.to_be_bytes())
        },
        "{\"a\":true,\"b\":254,\"c\":253,\"d\":-4,\"e\":251,\"f\":-2,\"g\":65535,\"h\":-2147483648,\"i\":4294967295,\
         \"j\":-9223372036854775808,\"k\":18446744073709551615,\"l\":0.1,\"m\":0.1}",
    );
}

#[test]
fn alignment_counts_from_behind_the_header_and_after_odd_strings() {
    check(
        "uint8 a\nfloat64 b\nstring c\nint64 d\nuint8 e\nuint16 f\n",
        |w| {
            w.raw(&[1])
                .number(&2.5f64.to_be_bytes())
                .text("abcd")
                .number(&5i64.to_be_bytes())
                .raw(&[6])
                .number(&7u16.to_be_bytes())
        },
        "{\"a\":1,\"b\":2.5,\"c\":\"abcd\",\"d\":5,\"e\":6,\"f\":7}",
    );
}

#[test]
fn an_empty_sequence_aligns_its_count_only() {
    check("float64[] a\nuint8 b\n", |w| w.number(&0u32.to_be_bytes()).raw(&[9]), "{\"a\":[],\"b\":9}");
}

#[test]
fn empty_messages_take_one_byte_wherever_they_stand() {
    check(
        "std_msgs/Empty a\nuint8 b\nstd_msgs/Empty[2] c\nuint8 d\n",
        |w| w.raw(&[0, 5, 0, 0, 6]),
        "{\"a\":{},\"b\":5,\"c\":[{},{}],\"d\":6}",
    );
    check("int32 X=1\n", |w| w.raw(&[0]), "{}");
}

#[test]
fn sequences_of_messages_and_strings_keep_their_own_alignment() {
    check(
        "string[] a\nbuiltin_interfaces/Time[<=2] b\nbool[3] c\n",
        |w| {
            w.number(&2u32.to_be_bytes())
                .text("x")
                .text("")
                .number(&1u32.to_be_bytes())
                .number(&(-1i32).to_be_bytes())
                .number(&9u32.to_be_bytes())
                .raw(&[1, 0, 1])
        },
        "{\"a\":[\"x\",\"\"],\"b\":[{\"nanosec\":9,\"sec\":-1}],\"c\":[true,false,true]}",
    );
}

#[test]
fn wide_strings_are_counted_units_of_four_bytes_or_of_two() {
    const FIELDS: &str = "wstring a\nuint8 b\nwstring c\n";
    const EXPECTED: &str = "{\"a\":\"h\\ud83e\\udd16\",\"b\":7,\"c\":\"\\ufffd\"}";
    check(
        FIELDS,
        |w| {
            let mut w = w.number(&3u32.to_be_bytes());
            for unit in "h\u{1F916}".encode_utf16() {
                w = w.number(&u32::from(unit).to_be_bytes());
            }
            w.raw(&[7]).number(&1u32.to_be_bytes()).number(&0xd800u32.to_be_bytes())
        },
        EXPECTED,
    );
    check(
        FIELDS,
        |w| {
            let mut w = w.number(&3u32.to_be_bytes());
            for unit in "h\u{1F916}".encode_utf16() {
                w = w.number(&unit.to_be_bytes());
            }
            w.raw(&[7]).number(&1u32.to_be_bytes()).number(&0xd800u16.to_be_bytes())
        },
        EXPECTED,
    );
    let neither = Writer::new(true).number(&1u32.to_be_bytes()).number(&0x1_f916u32.to_be_bytes()).raw(&[9; 80]).bytes;
    assert_eq!(decode(&plan("wstring a\n"), &neither).unwrap_err(), CdrError::NotAUnit { field: "a".to_owned() });
}

#[test]
fn strings_may_lack_their_zero_and_need_not_be_utf8() {
    check(
        "string a\nstring b\nstring c\n",
        |w| {
            w.number(&0u32.to_be_bytes())
                .number(&2u32.to_be_bytes())
                .raw(&[0xff, 0])
                .number(&3u32.to_be_bytes())
                .raw(b"a\0b")
        },
        "{\"a\":\"\",\"b\":\"\\ufffd\",\"c\":\"a\\u0000b\"}",
    );
}

#[test]
fn numbers_without_a_json_form_are_named_by_strings() {
    check(
        "float32[4] a\nfloat64[2] b\n",
        |w| {
            w.number(&f32::NAN.to_be_bytes())
                .number(&f32::INFINITY.to_be_bytes())
                .number(&f32::NEG_INFINITY.to_be_bytes())
                .number(&(-0.0f32).to_be_bytes())
                .number(&f64::NAN.to_be_bytes())
                .number(&f64::NEG_INFINITY.to_be_bytes())
        },
        "{\"a\":[\"NaN\",\"Infinity\",\"-Infinity\",-0.0],\"b\":[\"NaN\",\"-Infinity\"]}",
    );
}

#[test]
fn byte_arrays_are_base64_up_to_1024_bytes_and_blobs_above() {
    check(
        "uint8[] a\nbyte[3] b\nchar[] c\n",
        |w| w.number(&2u32.to_be_bytes()).raw(&[1, 2]).raw(&[3, 4, 255]).number(&0u32.to_be_bytes()),
        "{\"a\":\"AQI=\",\"b\":\"AwT/\",\"c\":\"\"}",
    );
    let plan = plan("std_msgs/UInt8MultiArray[] nested\nuint8[1025] fixed\nint8[] map\n");
    let message = |map: u32| {
        let inner = Writer::new(true)
            .number(&1u32.to_be_bytes())
            .number(&0u32.to_be_bytes())
            .number(&0u32.to_be_bytes())
            .number(&1025u32.to_be_bytes())
            .raw(&[1; 1025])
            .raw(&[2; 1025])
            .number(&map.to_be_bytes());
        inner.raw(&vec![0xff; map as usize]).bytes
    };
    let decoded = decode(&plan, &message(1025)).unwrap().fields;
    let paths: Vec<Vec<String>> =
        decoded.blobs.iter().map(|b| b.path.iter().map(ToString::to_string).collect()).collect();
    assert_eq!(paths, [vec!["nested", "0", "data"], vec!["fixed"], vec!["map"]]);
    assert!(decoded.blobs.iter().all(|b| b.bytes.len() == 1025 && b.marker.bytes == 1025));
    assert_eq!(decoded.value.get("fixed"), Some(&decoded.blobs[1].marker.to_value()));
    let small = decode(&plan, &message(2)).unwrap().fields;
    assert_eq!(small.value.get("map"), Some(&Value::Array(vec![Value::from(-1i64), Value::from(-1i64)])));
}

#[test]
fn stale_memory_behind_the_last_field_is_measured_off() {
    let plan = plan("uint8 a\n");
    let mut message = Writer::new(true).raw(&[1]).bytes;
    message.extend_from_slice(&[0xde; MAX_LEFTOVER]);
    assert_eq!(decode(&plan, &message).unwrap().used, 5);
    assert_eq!(measure(&plan, &message), Ok(5));
    message.push(0);
    assert_eq!(decode(&plan, &message).unwrap_err(), CdrError::Leftover { left: 65 });
}

#[test]
fn what_cannot_be_is_a_typed_error() {
    let one = plan("uint8 a\n");
    assert_eq!(decode(&one, &[0, 1, 0]).unwrap_err(), CdrError::NoHeader(3));
    for header in [2u16, 3, 6, 7, 8, 9, 0x0100] {
        let mut message = header.to_be_bytes().to_vec();
        message.extend_from_slice(&[0, 0, 1]);
        assert_eq!(decode(&one, &message).unwrap_err(), CdrError::Representation(header));
    }
    assert!(matches!(decode(&one, &[0, 1, 0, 0]).unwrap_err(), CdrError::Truncated { left: 0, .. }));
    let flag = plan("builtin_interfaces/Time t\nbool ok\n");
    let message = Writer::new(true).raw(&[0; 8]).raw(&[2]).bytes;
    assert_eq!(decode(&flag, &message).unwrap_err(), CdrError::NotABool { field: "ok".to_owned(), value: 2 });
    let bounded = plan("uint8[<=2] a\n");
    let message = Writer::new(true).number(&3u32.to_be_bytes()).raw(&[0; 3]).bytes;
    assert!(matches!(decode(&bounded, &message).unwrap_err(), CdrError::OverBound { count: 3, bound: 2, .. }));
}

#[test]
fn a_count_that_cannot_fit_is_refused_before_allocating() {
    for definition in [
        "float64[] a\n",
        "string[] a\n",
        "std_msgs/Empty[] a\n",
        "sensor_msgs/Imu[] a\n",
        "uint8[] a\n",
        "string a\n",
        "wstring a\n",
        "std_msgs/Empty[4294967295] a\n",
        "float64[2000000000] a\n",
    ] {
        let message = Writer::new(true).number(&u32::MAX.to_be_bytes()).raw(&[0; 64]).bytes;
        let error = decode(&plan(definition), &message).unwrap_err();
        assert!(matches!(error, CdrError::Truncated { .. }), "{definition}: {error}");
    }
}

#[test]
fn the_values_of_one_message_are_bounded_but_raw_bytes_are_not() {
    let plan = plan("bool[] a\n");
    let count = u32::try_from(MAX_VALUES + 1).unwrap();
    let message = Writer::new(true).number(&count.to_be_bytes()).raw(&vec![0; MAX_VALUES + 1]).bytes;
    assert_eq!(decode(&plan, &message).unwrap_err(), CdrError::TooManyValues);
    assert_eq!(measure(&plan, &message), Ok(message.len()));
}

#[test]
fn the_error_says_where() {
    let plan = plan("geometry_msgs/Point[] points\n");
    let message = Writer::new(true).number(&1u32.to_be_bytes()).raw(&[0; 24]).bytes;
    let error = decode(&plan, &message).unwrap_err().to_string();
    assert_eq!(error, "message ends inside the field points.0.z: 8 bytes needed, 4 left");
}

const DEFINITIONS: [&str; 6] = [
    "sensor_msgs/Imu a\n",
    "diagnostic_msgs/DiagnosticArray a\nwstring[] b\n",
    "sensor_msgs/PointCloud2[] a\nbool[] b\n",
    "visualization_msgs/MarkerArray a\n",
    "std_msgs/Empty[] a\nint8[] b\nfloat32[<=3] c\n",
    "trajectory_msgs/JointTrajectory a\nuint8[5] b\nstring[2] c\n",
];

proptest! {
    #[test]
    fn any_bytes_decode_or_fail_and_measuring_agrees(
        which in 0..DEFINITIONS.len(),
        mut message in proptest::collection::vec(prop_oneof![4 => Just(0u8), 2 => 0u8..4, 1 => any::<u8>()], 0..600),
    ) {
        if let Some(start) = message.first_chunk_mut::<2>() {
            *start = [0, start[1] & 1];
        }
        let plan = plan(DEFINITIONS[which]);
        match (decode(&plan, &message), measure(&plan, &message)) {
            (Ok(decoded), Ok(used)) => {
                prop_assert_eq!(decoded.used, used);
                prop_assert!(used <= message.len());
                prop_assert!(decoded.fields.value.to_canonical().is_ok());
            }
            (Err(a), Err(b)) => prop_assert_eq!(a, b),
            (a, b) => prop_assert!(false, "{:?} {:?}", a, b),
        }
    }

    #[test]
    fn every_float32_comes_back_from_its_json_digits(bits in any::<u32>()) {
        let value = f32::from_bits(bits);
        if let Value::Number(Number::Float(wide)) = single(value) {
            #[expect(clippy::cast_possible_truncation, reason = "the nearest float32 is the point")]
            let back = wide as f32;
            prop_assert_eq!(back.to_bits(), bits);
            // Of two equally short texts either may be taken, so only the length is compared.
            let (ours, theirs) = (format!("{wide:e}"), format!("{value:e}"));
            prop_assert!(ours.len() <= theirs.len(), "{} {}", ours, theirs);
        } else {
            prop_assert!(!value.is_finite());
        }
    }

    #[test]
    fn random_definitions_and_bytes_never_panic(
        lines in proptest::collection::vec(("(bool|char|int8|uint16|float64|string|wstring|uint8)", "(\\[\\]|\\[3\\]|\\[<=2\\]|)"), 1..12),
        little in any::<bool>(),
        body in proptest::collection::vec(0u8..5, 0..300),
    ) {
        let text: String = lines.iter().enumerate().map(|(i, (t, a))| format!("{t}{a} f{i}\n")).collect();
        let plan = Plan::compile("p/msg/T", &text, &NoLookup).unwrap();
        let _ = decode(&plan, &Writer::new(little).raw(&body).bytes);
    }
}

/// What a real ROS 2 wrote and read: see `tests/tools/make_cdr_truth.py`.
#[test]
fn everything_rclpy_writes_is_read_as_rclpy_reads_it() {
    use std::collections::HashMap;

    struct Texts(HashMap<String, String>);
    impl crate::ingest::msgdef::Lookup for Texts {
        fn find(&self, full_name: &str) -> Option<String> {
            self.0.get(full_name).cloned()
        }
    }
    let packed = include_bytes!("../../../../tests/recordings/rclpy_truth.json.zst");
    let text = zstd::decode_all(&packed[..]).unwrap();
    let truth = tributary_protocol::json::parse(&text, tributary_protocol::json::Limits::bytes(64 << 20)).unwrap();
    let truth = truth.as_object().unwrap();
    let texts: HashMap<String, String> = truth
        .get("definitions")
        .unwrap()
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, text)| {
            (crate::ingest::msgdef::normalize_type_name(name).unwrap(), text.as_str().unwrap().to_owned())
        })
        .collect();
    let texts = Texts(texts);
    let mut messages = 0;
    let mut blobs = 0;
    let mut stale = 0;
    for case in truth.get("cases").unwrap().as_array().unwrap() {
        let case = case.as_object().unwrap();
        let get = |key: &str| case.get(key).unwrap().as_str().unwrap();
        let name = get("type");
        let definition = crate::ingest::msgdef::normalize_type_name(get("definition")).unwrap();
        let plan = Plan::compile(name, &texts.0[&definition], &texts).unwrap_or_else(|e| panic!("{name}: {e}"));
        let cdr = STANDARD.decode(get("cdr")).unwrap();
        let mut decoded = decode(&plan, &cdr).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(measure(&plan, &cdr), Ok(decoded.used), "{name}");
        stale += usize::from(decoded.used < cdr.len());
        blobs += decoded.fields.blobs.len();
        decoded.fields.inline_where(|_| true);
        let expected = String::from_utf8(case.get("value").unwrap().to_canonical().unwrap()).unwrap();
        assert_eq!(json(&decoded.fields), expected, "{name}");
        if let Some(builtin) = crate::ingest::msgdef::Lookup::find(&Builtin, &definition) {
            let same = Plan::compile(name, &builtin, &Builtin).unwrap();
            assert_eq!(same, plan, "{name}: the built-in definition is that of ROS 2");
        }
        messages += 1;
    }
    assert!(messages > 600, "{messages}");
    assert!(blobs > 0, "the truth has large byte arrays");
    assert!(stale > 0, "the truth has messages with bytes behind the last field");
}
