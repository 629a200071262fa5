use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Value, JsonError> {
    parse(text.as_bytes(), Limits::default())
}

fn canonical(text: &str) -> String {
    let bytes = read(text).expect("valid JSON").to_canonical().expect("finite");
    String::from_utf8(bytes).expect("ASCII")
}

#[test]
fn numbers_keep_their_class() {
    for (text, expected) in [
        ("1", "1"),
        ("1.0", "1.0"),
        ("-0", "0"),
        ("-0.0", "-0.0"),
        ("0.00001234", "1.234e-05"),
        ("1e-5", "1e-05"),
        ("-0.00005", "-5e-05"),
        ("1e-4", "0.0001"),
        ("1e15", "1000000000000000.0"),
        ("1e16", "1e+16"),
        ("1801514316094494.25", "1801514316094494.2"),
        ("5e-324", "5e-324"),
        ("9223372036854775808", "9223372036854775808"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("340282366920938463463374607431768211456", "340282366920938463463374607431768211456"),
    ] {
        assert_eq!(canonical(text), expected);
    }
    assert_eq!(read("18446744073709551615"), Ok(Value::from(u64::MAX)));
    assert_eq!(Number::from_digits("-000"), Some(Number::Int(0)));
    assert_eq!(Number::from_digits("00099999999999999999999").map(|n| n.to_string()).as_deref(), {
        Some("99999999999999999999")
    });
    for bad in ["", "-", "+1", "1.", "0x1", " 1"] {
        assert_eq!(Number::from_digits(bad), None, "{bad}");
    }
}

#[test]
fn keys_are_sorted_by_code_point_and_strings_are_ascii() {
    assert_eq!(
        canonical("{\"\u{1f600}\":1,\"\u{e000}\":2,\"a\":\"\u{7f}\u{e9}/\\/\\b\"}"),
        r#"{"a":"\u007f\u00e9//\b","\ue000":2,"\ud83d\ude00":1}"#
    );
}

#[test]
fn the_last_of_repeated_keys_counts() {
    assert_eq!(canonical(r#"{"a":1,"b":2,"a":3}"#), r#"{"a":3,"b":2}"#);
    let many: String = (0..100).map(|i| format!("\"{}\":{i},", i % 50)).collect();
    let Ok(Value::Object(object)) = read(&format!("{{{}\"z\":0}}", many)) else { panic!("an object") };
    assert_eq!(object.len(), 51);
    assert_eq!(object.get("7"), Some(&Value::from(57)));
    assert_eq!(object.keys().next(), Some("0"));
}

#[test]
fn half_a_surrogate_pair_passes_through_a_string_but_not_a_key() {
    for text in [r#""\ud800""#, r#""a\udc00\ud800b\n\u00e9""#, r#""\ud800\ud83d\ude00""#] {
        assert!(matches!(read(text), Ok(Value::IllFormed(_))));
        assert_eq!(canonical(text), text);
    }
    assert_eq!(read(r#"{"\ud800":1}"#), Err(JsonError::SurrogateKey { offset: 1 }));
    assert_eq!(canonical(r#""x\ud83d\ude00""#), r#""x\ud83d\ude00""#);
    assert!(matches!(read(r#""x\ud83d\ude00""#), Ok(Value::String(_))));
}

#[test]
fn what_has_no_canonical_form_is_refused() {
    for text in ["NaN", "[Infinity]", "-Infinity", "1e999", "-1e999"] {
        assert_eq!(read(text), Err(JsonError::NonFinite), "{text}");
    }
    assert_eq!(Value::from(f64::NAN).to_canonical(), Err(JsonError::NonFinite));
    let mut deep = Value::Null;
    for _ in 0..129 {
        deep = Value::Array(vec![deep]);
    }
    assert_eq!(deep.to_canonical(), Err(JsonError::TooDeep { limit: 128 }));
}

#[test]
fn text_over_a_limit_is_refused_before_it_costs_anything() {
    assert_eq!(parse(b"[1]", Limits::bytes(2)), Err(JsonError::TooLarge { bytes: 3, limit: 2 }));
    assert!(read(&format!("{}{}", "[".repeat(128), "]".repeat(128))).is_ok());
    assert_eq!(read(&"[".repeat(1 << 20)), Err(JsonError::TooDeep { limit: 128 }));
    assert!(read(&"9".repeat(4300)).is_ok());
    assert_eq!(read(&"9".repeat(4301)), Err(JsonError::NumberTooLong { offset: 0, limit: 4300 }));
    assert_eq!(parse(b"\"\xff\"", Limits::default()), Err(JsonError::Utf8 { offset: 1 }));
}

#[test]
fn what_is_not_json_is_refused_where_it_goes_wrong() {
    for (text, offset) in [
        ("", 0),
        ("[1,]", 3),
        ("[1 2]", 3),
        ("{a:1}", 1),
        (r#"{"a" 1}"#, 5),
        (r#"{"a":1,}"#, 7),
        ("01", 0),
        ("1.", 2),
        ("1e", 2),
        ("-", 1),
        ("tru", 0),
        ("\"a\u{1}\"", 2),
        (r#""\x""#, 2),
        (r#""\u12g4""#, 3),
        (r#""\u12"#, 3),
        ("\"abc", 4),
        ("1 1", 2),
        ("\u{feff}1", 0),
    ] {
        assert!(
            matches!(read(text), Err(JsonError::Syntax { offset: o, .. }) if o == offset),
            "{text}: {:?}",
            read(text)
        );
    }
}

#[test]
fn an_object_keeps_order_and_unique_keys() {
    let mut object = Object::from_iter([("b", 1), ("a", 2)]);
    assert_eq!(object.insert("b", 3), Some(Value::from(1)));
    assert_eq!(object.keys().collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(object, Object::from_iter([("a", 2), ("b", 3)]));
    assert_ne!(object, Object::from_iter([("a", 2), ("c", 3)]));
    assert_eq!(object.remove("b"), Some(Value::from(3)));
    assert_eq!(object.len(), 1);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "-?[1-9][0-9]{20,40}".prop_map(|digits| Value::from(Number::from_digits(&digits).expect("digits"))),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        proptest::collection::vec(any::<u16>(), 0..4).prop_map(|units| IllFormed::value_of(&units)),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|fields| Value::from(Object::from_iter(fields))),
        ]
    })
}

proptest! {
    #[test]
    fn canonical_text_reads_back_as_the_same_value(value in any_value()) {
        let text = value.to_canonical().expect("finite");
        prop_assert!(text.iter().all(|b| (0x20..0x7f).contains(b)));
        let back = parse(&text, Limits::default()).expect("canonical text is JSON");
        prop_assert_eq!(&back, &value);
        prop_assert_eq!(back.to_canonical().expect("finite"), text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[\\[\\]{},:\"\\\\u0-9a-fA-FtrueN.+\\- \u{e9}]{0,64}") {
        let _ = read(&text);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes, Limits::default());
    }
}
