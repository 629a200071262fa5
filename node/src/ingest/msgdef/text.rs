//! The grammar of one line, one section, one text.

use super::{DefinitionError, MAX_FIELDS, MAX_NAME, MAX_TEXT, MAX_TYPES};

/// At most this many characters of a refused line are repeated in an error.
const EXCERPT: usize = 80;

/// A field as it is written, its type not yet looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawField {
    /// A primitive, `Type`, or `pkg/Type`.
    pub(super) base: String,
    pub(super) arity: super::Arity,
    pub(super) name: String,
}

/// The fields of one type as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawType {
    /// `pkg/Type`.
    pub(super) name: String,
    pub(super) fields: Vec<RawField>,
    /// The section said it is IDL; its fields were not read.
    pub(super) idl: bool,
}

pub(super) fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= MAX_NAME
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A line between two sections: `=` only. ROS 2 writes 80 of them.
fn is_separator(line: &str) -> bool {
    line.len() >= 10 && line.bytes().all(|b| b == b'=')
}

/// Reads a whole text into its types. `root` is the normalized name of the first section.
pub(super) fn parse(root: &str, text: &str) -> Result<Vec<RawType>, DefinitionError> {
    let too_large = |what, limit| DefinitionError::TooLarge { type_name: root.to_owned(), what, limit };
    if text.len() > MAX_TEXT {
        return Err(too_large("bytes of text", MAX_TEXT));
    }
    let mut types = Vec::new();
    let mut section = Section::new(root.to_owned());
    let mut expect_head = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let syntax = |type_name: &str, reason| DefinitionError::Syntax {
            type_name: type_name.to_owned(),
            line: index + 1,
            reason,
            found: line.chars().take(EXCERPT).collect(),
        };
        if is_separator(line) {
            section.finish(&mut types);
            section = Section::new(String::new());
            expect_head = true;
        } else if expect_head {
            if line.is_empty() {
                continue;
            }
            let (kind, name) = line.split_once(':').unwrap_or_default();
            let Some(name) = super::normalize_type_name(name.trim()) else {
                return Err(syntax(root, "a section starts with MSG: and a type name"));
            };
            section = Section::new(name);
            section.idl = match kind.trim() {
                "MSG" | "SRV" | "ACTION" => false,
                "IDL" => true,
                _ => return Err(syntax(root, "a section starts with MSG: and a type name")),
            };
            expect_head = false;
        } else if section.idl {
            // Not our language; only a message that uses the type is lost.
        } else if line == "---" {
            if section.parts.len() == 3 {
                return Err(syntax(&section.name, "more than three parts"));
            }
            section.parts.push(Vec::new());
        } else if let Some(field) = parse_line(line).map_err(|reason| syntax(&section.name, reason))? {
            let fields = section.parts.last_mut().expect("a section always has a part");
            if fields.iter().any(|f| f.name == field.name) {
                return Err(syntax(&section.name, "a second field of the same name"));
            }
            if fields.len() == MAX_FIELDS {
                return Err(too_large("fields in one type", MAX_FIELDS));
            }
            fields.push(field);
        }
        if types.len() > MAX_TYPES {
            return Err(too_large("types", MAX_TYPES));
        }
    }
    section.finish(&mut types);
    Ok(types)
}

struct Section {
    name: String,
    /// One for a message, two for a service, three for an action.
    parts: Vec<Vec<RawField>>,
    idl: bool,
}

impl Section {
    fn new(name: String) -> Self {
        Self { name, parts: vec![Vec::new()], idl: false }
    }

    fn finish(self, types: &mut Vec<RawType>) {
        let Self { name, mut parts, idl } = self;
        if name.is_empty() {
            return;
        }
        // The name of the root may already be that of a derived type: `pkg/srv/Add_Event` with the text of Add.srv.
        let base = if parts.len() == 1 { name.as_str() } else { strip_derived(&name) };
        let mut push = |suffix: &str, fields| types.push(RawType { name: format!("{base}{suffix}"), fields, idl });
        let third = (parts.len() > 2).then(|| parts.pop()).flatten();
        let second = (parts.len() > 1).then(|| parts.pop()).flatten();
        let first = parts.pop().unwrap_or_default();
        match (second, third) {
            (None, _) => push("", first),
            (Some(response), None) => {
                push("_Request", first);
                push("_Response", response);
                push("_Event", event(base, ""));
            }
            (Some(result), Some(feedback)) => {
                push("_Goal", first);
                push("_Result", result);
                push("_Feedback", feedback);
                let goal_id = || field("unique_identifier_msgs/UUID", "goal_id");
                push("_SendGoal_Request", vec![goal_id(), field(&format!("{base}_Goal"), "goal")]);
                let stamp = field("builtin_interfaces/Time", "stamp");
                push("_SendGoal_Response", vec![field("bool", "accepted"), stamp]);
                push("_SendGoal_Event", event(base, "_SendGoal"));
                push("_GetResult_Request", vec![goal_id()]);
                push("_GetResult_Response", vec![field("int8", "status"), field(&format!("{base}_Result"), "result")]);
                push("_GetResult_Event", event(base, "_GetResult"));
                push("_FeedbackMessage", vec![goal_id(), field(&format!("{base}_Feedback"), "feedback")]);
            }
        }
    }
}

fn strip_derived(name: &str) -> &str {
    const LONG: [&str; 7] = [
        "_SendGoal_Request",
        "_SendGoal_Response",
        "_SendGoal_Event",
        "_GetResult_Request",
        "_GetResult_Response",
        "_GetResult_Event",
        "_FeedbackMessage",
    ];
    const SHORT: [&str; 6] = ["_Request", "_Response", "_Event", "_Goal", "_Result", "_Feedback"];
    LONG.iter().chain(&SHORT).find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

fn field(base: &str, name: &str) -> RawField {
    RawField { base: base.to_owned(), arity: super::Arity::One, name: name.to_owned() }
}

/// The event of service introspection (REP 2012): who called, and the request or the response.
fn event(base: &str, infix: &str) -> Vec<RawField> {
    let at_most_one = |part: &str, name: &str| RawField {
        base: format!("{base}{infix}_{part}"),
        arity: super::Arity::Sequence(Some(1)),
        name: name.to_owned(),
    };
    vec![
        field("service_msgs/ServiceEventInfo", "info"),
        at_most_one("Request", "request"),
        at_most_one("Response", "response"),
    ]
}

/// A field, or nothing for a constant, a comment or an empty line.
fn parse_line(line: &str) -> Result<Option<RawField>, &'static str> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let type_end = line.find([' ', '\t']).ok_or("a type without a name")?;
    let (type_text, rest) = (&line[..type_end], line[type_end..].trim_start());
    let name_end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let (name, behind) = rest.split_at(name_end);
    if !is_identifier(name) {
        return Err("not a field name (letters, digits, _; at most 255)");
    }
    let (base, arity) = parse_type(type_text)?;
    // Whatever follows a name is a constant's value, a default or a comment: none of them is on the wire.
    match behind.trim_start().chars().next() {
        Some('=') => Ok(None),
        None | Some('#') => Ok(Some(RawField { base, arity, name: name.to_owned() })),
        Some(_) if behind.starts_with([' ', '\t']) => Ok(Some(RawField { base, arity, name: name.to_owned() })),
        Some(_) => Err("not a field name (letters, digits, _; at most 255)"),
    }
}

fn parse_type(text: &str) -> Result<(String, super::Arity), &'static str> {
    use super::Arity;
    let (element, arity) = match text.split_once('[') {
        None => (text, Arity::One),
        Some((element, size)) => {
            let size = size.strip_suffix(']').ok_or("an array without ]")?;
            let arity = match size.strip_prefix("<=") {
                Some(bound) => Arity::Sequence(Some(positive(bound)?)),
                None if size.is_empty() => Arity::Sequence(None),
                None => Arity::Array(positive(size)?),
            };
            (element, arity)
        }
    };
    let base = match element.split_once("<=") {
        None => element,
        Some((base @ ("string" | "wstring"), bound)) => {
            // The bound of a string is a promise of the sender; the wire form is the same, and a breach harms nobody.
            positive(bound)?;
            base
        }
        Some(_) => return Err("only strings have a bound of their own"),
    };
    if is_identifier(base) {
        return Ok((base.to_owned(), arity));
    }
    let full = super::normalize_type_name(base).ok_or("not a type name")?;
    Ok((full, arity))
}

fn positive(text: &str) -> Result<u32, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value: Option<u32> = digits.then(|| text.parse().ok()).flatten();
    value.filter(|&n| n > 0).ok_or("a size is a number from 1 to 4294967295")
}
