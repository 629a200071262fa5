//! ROS 2 message definitions (`ros2msg` text) compiled into a plan for the CDR decoder.
//!
//! Owns the grammar of `.msg` files and of the concatenated form that recordings carry: sections behind a line of `=`, each
//! headed `MSG: pkg/Type` (`pkg/msg/Type` too). A section may be a service or an action (parts split by `---`): its request,
//! response, event and feedback types are made as ROS 2 makes them. Never looks at message bytes, and opens no file: a type
//! whose section is missing is asked from a [`Lookup`].
//!
//! A definition comes from a file that anyone may have written. Every size is bounded by a constant of this module, recursion
//! and nesting deeper than [`MAX_DEPTH`] are refused, and the smallest size on the wire is computed for each type, so that the
//! decoder can refuse a count that cannot fit before it allocates.

mod resolve;
mod text;

use std::sync::Arc;

use tributary_protocol::rules::native::SchemaPaths;

/// Longest definition text, in bytes.
pub const MAX_TEXT: usize = 1 << 20;
/// Most types in one definition, synthesized ones included.
pub const MAX_TYPES: usize = 2048;
/// Most fields of one type.
pub const MAX_FIELDS: usize = 4096;
/// Deepest nesting of types.
pub const MAX_DEPTH: usize = 64;
/// Longest type or field name, in bytes.
pub const MAX_NAME: usize = 255;
/// Most paths listed for one definition (see [`Plan::schema_paths`]); a definition may multiply them by nesting.
pub const MAX_PATHS: usize = 65_536;

/// Why a definition cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// A bound of this module is exceeded.
    #[error("definition of {type_name}: more than {limit} {what}")]
    TooLarge {
        /// The type being compiled.
        type_name: String,
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A line that is not a field, a constant, a comment or a section head.
    #[error("definition of {type_name}, line {line}: {reason}: {found:?}")]
    Syntax {
        /// The type whose section holds the line.
        type_name: String,
        /// Line in the whole text, from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
        /// The start of the line.
        found: String,
    },
    /// A field names a type that neither the text nor any other source defines.
    #[error(
        "{used_by} uses the type {missing}, which is not defined in the recording; give a directory with its .msg file"
    )]
    UnknownType {
        /// The type whose field names it.
        used_by: String,
        /// The missing type, `pkg/Type`.
        missing: String,
    },
    /// A type contains itself.
    #[error("the type {0} contains itself; messages of it cannot exist")]
    Recursive(String),
    /// Types nested deeper than [`MAX_DEPTH`].
    #[error("the type {0} nests types deeper than {MAX_DEPTH} levels")]
    TooDeep(String),
    /// The schema is written in a language other than ros2msg.
    #[error("the definition of {0} is in IDL; only ros2msg (.msg) definitions can be read")]
    Idl(String),
}

/// Finds the `.msg` text of a type that a definition uses but does not contain.
pub trait Lookup {
    /// The text for `pkg/Type`, if this source has it. The text may itself be a concatenation.
    fn find(&self, full_name: &str) -> Option<String>;
}

/// A [`Lookup`] that knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLookup;

impl Lookup for NoLookup {
    fn find(&self, _full_name: &str) -> Option<String> {
        None
    }
}

/// What one element of a field is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    /// `uint8`, `byte` and `char`: all three are one unsigned byte in ROS 2.
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    String,
    WString,
    /// Index into [`Plan::structs`].
    Struct(usize),
}

impl Kind {
    /// Size of a primitive in bytes, which is its alignment too; `None` for strings and structures.
    pub(crate) const fn primitive_size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::U8 | Self::I8 => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::WString | Self::Struct(_) => None,
        }
    }
}

/// How many elements a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    One,
    /// `T[n]`: no count on the wire.
    Array(u32),
    /// `T[]` and `T[<=n]`: a u32 count first.
    Sequence(Option<u32>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) arity: Arity,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Struct {
    /// `pkg/Type`.
    pub(crate) name: Arc<str>,
    /// Empty for an empty message, which is one dummy byte on the wire.
    pub(crate) fields: Vec<Field>,
    /// Fewest bytes a value takes, without padding; saturates.
    pub(crate) min_size: u64,
}

/// A compiled definition: everything the decoder needs to read messages of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(crate) structs: Vec<Struct>,
    pub(crate) root: usize,
    /// Whether a `wstring` is in it, which not all middleware writes in the same way.
    pub(crate) wide: bool,
}

impl Plan {
    /// Compiles the definition of `type_name` (`pkg/msg/Type` or `pkg/Type`) from `definition`, the text of its `.msg` file
    /// with the texts of the types it uses behind it. Types without a section are asked from `lookup`.
    ///
    /// # Errors
    /// The text does not parse, is recursive, uses a type nobody knows, or exceeds a bound.
    pub fn compile(type_name: &str, definition: &str, lookup: &dyn Lookup) -> Result<Self, DefinitionError> {
        resolve::compile(type_name, definition, lookup)
    }

    /// `pkg/Type` of the root.
    #[must_use]
    pub fn type_name(&self) -> &str {
        &self.root_struct().name
    }

    /// `pkg/Type` of every type in the plan, each behind those it uses.
    pub(crate) fn type_names(&self) -> impl Iterator<Item = &str> {
        self.structs.iter().map(|s| &*s.name)
    }

    /// Fewest bytes a message takes, without its 4-byte header and without padding.
    #[must_use]
    pub fn min_size(&self) -> u64 {
        self.root_struct().min_size
    }

    fn root_struct(&self) -> &Struct {
        &self.structs[self.root]
    }

    /// What field rules can address: the fields by name, byte arrays as one value, other arrays as lists. `None` if there
    /// are more than [`MAX_PATHS`].
    #[must_use]
    pub fn schema_paths(&self) -> Option<SchemaPaths> {
        let mut count = 0;
        self.paths_of(self.root, &mut count)
    }

    fn paths_of(&self, index: usize, count: &mut usize) -> Option<SchemaPaths> {
        let mut fields = Vec::new();
        for field in &self.structs[index].fields {
            *count += 1;
            if *count > MAX_PATHS {
                return None;
            }
            let paths = match (field.arity, field.kind) {
                (Arity::One, Kind::Struct(child)) => self.paths_of(child, count)?,
                (Arity::One, _) | (_, Kind::U8) => SchemaPaths::Leaf,
                _ => SchemaPaths::List,
            };
            fields.push((field.name.to_string(), paths));
        }
        Some(SchemaPaths::Fields(fields))
    }

    /// The paths of byte arrays outside of lists, which stand in JSON as base64; at most [`MAX_PATHS`].
    #[must_use]
    pub fn byte_paths(&self) -> Vec<Vec<String>> {
        let (mut out, mut count) = (Vec::new(), 0);
        self.collect_byte_paths(self.root, &mut Vec::new(), &mut count, &mut out);
        out
    }

    fn collect_byte_paths(
        &self,
        index: usize,
        prefix: &mut Vec<String>,
        count: &mut usize,
        out: &mut Vec<Vec<String>>,
    ) {
        for field in &self.structs[index].fields {
            *count += 1;
            if *count > MAX_PATHS {
                return;
            }
            prefix.push(field.name.to_string());
            match (field.arity, field.kind) {
                (Arity::One, Kind::Struct(child)) => self.collect_byte_paths(child, prefix, count, out),
                (Arity::Array(_) | Arity::Sequence(_), Kind::U8) => out.push(prefix.clone()),
                _ => {}
            }
            prefix.pop();
        }
    }
}

/// The text of a type that every definition may use without a section.
pub(crate) fn always_known(full_name: &str) -> Option<&'static str> {
    resolve::always_known(full_name)
}

/// `pkg/Type` of `pkg/Type`, `pkg/msg/Type`, `pkg/srv/Type` or `pkg/action/Type`; `None` if it is none of these.
#[must_use]
pub fn normalize_type_name(name: &str) -> Option<String> {
    let mut parts = name.split('/');
    let (package, second, third, end) = (parts.next()?, parts.next(), parts.next(), parts.next());
    let short = match (second, third, end) {
        (Some(short), None, None) => short,
        (Some("msg" | "srv" | "action"), Some(short), None) => short,
        _ => return None,
    };
    (text::is_identifier(package) && text::is_identifier(short)).then(|| format!("{package}/{short}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<Plan, DefinitionError> {
        Plan::compile("p/msg/T", text, &NoLookup)
    }

    fn fields(plan: &Plan) -> Vec<(String, Kind, Arity)> {
        plan.structs[plan.root].fields.iter().map(|f| (f.name.to_string(), f.kind, f.arity)).collect()
    }

    #[test]
    fn every_form_of_field_is_understood() {
        let plan = compile(
            "# a comment\n\nbool a\nbyte b 3 # default\nchar c\nfloat32[3] d [1.5, 2, 3]\nint64[] e\nuint16[<=7] f\n\
             string<=10 g \"a # b = c\"\nstring<=10[<=5] h\nwstring i\nwstring<=4[2] j\n  uint8   k   \nstring[] l ['x=1']\r\n",
        )
        .unwrap();
        assert_eq!(
            fields(&plan),
            [
                ("a", Kind::Bool, Arity::One),
                ("b", Kind::U8, Arity::One),
                ("c", Kind::U8, Arity::One),
                ("d", Kind::F32, Arity::Array(3)),
                ("e", Kind::I64, Arity::Sequence(None)),
                ("f", Kind::U16, Arity::Sequence(Some(7))),
                ("g", Kind::String, Arity::One),
                ("h", Kind::String, Arity::Sequence(Some(5))),
                ("i", Kind::WString, Arity::One),
                ("j", Kind::WString, Arity::Array(2)),
                ("k", Kind::U8, Arity::One),
                ("l", Kind::String, Arity::Sequence(None)),
            ]
            .map(|(n, k, a)| (n.to_owned(), k, a))
        );
    }

    #[test]
    fn constants_take_no_room_on_the_wire_whatever_their_spelling() {
        let plan =
            compile("int32 X=1\nint32 Y = -2 # c\nstring HASH=a#b\nstring Q=\"x = y\"\nuint8 lower=3\n").unwrap();
        assert!(fields(&plan).is_empty());
        assert_eq!(plan.min_size(), 1, "an empty message is one dummy byte");
    }

    #[test]
    fn sections_are_found_under_both_spellings_and_through_the_own_package() {
        let sep = "=".repeat(80);
        let text = format!(
            "A a\nq/B b\nq/msg/C c\n{sep}\nMSG: p/A\nint8 x\n{sep}\nMSG: q/msg/B\nC c\n{sep}\n\nMSG: q/C\nint64 y\n"
        );
        let plan = compile(&text).unwrap();
        assert_eq!(plan.min_size(), 1 + 8 + 8);
        assert_eq!(plan.type_name(), "p/T");
    }

    #[test]
    fn time_duration_and_header_need_no_section() {
        let plan = compile("builtin_interfaces/Time t\nbuiltin_interfaces/Duration d\n").unwrap();
        assert_eq!(plan.min_size(), 16);
    }

    #[test]
    fn a_service_makes_its_request_response_and_event() {
        let text = "int64 a\n---\nint64 sum\nbool ok\n";
        let request = Plan::compile("p/srv/T_Request", text, &NoLookup).unwrap();
        assert_eq!(request.min_size(), 8);
        let event = Plan::compile("p/srv/T_Event", text, &super::super::definitions::Builtin).unwrap();
        let names: Vec<_> = fields(&event).into_iter().map(|f| (f.0, f.2)).collect();
        assert_eq!(names[0], ("info".to_owned(), Arity::One));
        assert_eq!(names[1], ("request".to_owned(), Arity::Sequence(Some(1))));
        assert_eq!(names[2], ("response".to_owned(), Arity::Sequence(Some(1))));
    }

    #[test]
    fn an_action_makes_its_feedback_message() {
        let text = "int32 order\n---\nint32[] sequence\n---\nint32[] partial\n";
        let plan = Plan::compile("p/action/T_FeedbackMessage", text, &super::super::definitions::Builtin).unwrap();
        let names: Vec<_> = fields(&plan).into_iter().map(|f| f.0).collect();
        assert_eq!(names, ["goal_id", "feedback"]);
    }

    #[test]
    fn recursion_is_refused_by_name() {
        let sep = "=".repeat(80);
        let direct = compile("T[] children\n").unwrap_err();
        assert_eq!(direct, DefinitionError::Recursive("p/T".to_owned()));
        let text = format!("A a\n{sep}\nMSG: p/A\nB[] b\n{sep}\nMSG: p/B\nA[<=1] a\n");
        assert_eq!(compile(&text).unwrap_err(), DefinitionError::Recursive("p/A".to_owned()));
    }

    fn chain(depth: usize, per_level: usize) -> String {
        let mut text = "N0 a\n".to_owned();
        for i in 0..depth {
            text += &format!("{}\nMSG: p/N{i}\n", "=".repeat(80));
            for f in 0..per_level {
                text += &if i + 1 == depth { format!("int8 f{f}\n") } else { format!("N{} f{f}\n", i + 1) };
            }
        }
        text
    }

    #[test]
    fn deep_nesting_is_refused_and_wide_nesting_costs_nothing() {
        assert!(matches!(compile(&chain(200, 1)).unwrap_err(), DefinitionError::TooDeep(_)));
        assert!(compile(&chain(60, 1)).is_ok());
        let wide = compile(&chain(60, 4)).unwrap();
        assert_eq!(wide.min_size(), u64::MAX, "4^59 bytes saturate instead of wrapping");
        assert_eq!(wide.schema_paths(), None, "nor are 4^59 paths listed");
    }

    #[test]
    fn bounds_are_errors() {
        let long = format!("# {}", "x".repeat(MAX_TEXT));
        assert!(matches!(compile(&long).unwrap_err(), DefinitionError::TooLarge { .. }));
        let many: String = (0..=MAX_FIELDS).map(|i| format!("int8 f{i}\n")).collect();
        assert!(matches!(compile(&many).unwrap_err(), DefinitionError::TooLarge { what: "fields in one type", .. }));
        let name = "f".repeat(MAX_NAME + 1);
        assert!(matches!(compile(&format!("int8 {name}\n")).unwrap_err(), DefinitionError::Syntax { .. }));
    }

    #[test]
    fn nonsense_is_a_syntax_error_with_its_line() {
        for bad in [
            "int8",
            "int8 1x",
            "int8 @blob",
            "int8[0] x",
            "int8[-1] x",
            "int8[ x",
            "int8] x",
            "int8[99999999999] x",
            "int8<=4 x",
            "p/q/r/S x",
            "string<= x",
            "int8 x y",
            "int8[2]y z",
            "int8 a\nint8 a",
        ] {
            let result = compile(&format!("int8 ok\n{bad}\n"));
            // A default value is not read, so `int8 x y` is a field with an odd default.
            if bad == "int8 x y" {
                assert!(result.is_ok());
            } else {
                assert!(matches!(&result, Err(DefinitionError::Syntax { line: 2 | 3, .. })), "{bad}: {result:?}");
            }
        }
        let missing = compile("q/Gone x\n").unwrap_err();
        assert_eq!(missing, DefinitionError::UnknownType { used_by: "p/T".to_owned(), missing: "q/Gone".to_owned() });
        let sep = "=".repeat(80);
        assert!(matches!(compile(&format!("q/G x\n{sep}\nIDL: q/msg/G\nmodule\n")), Err(DefinitionError::Idl(_))));
    }

    #[test]
    fn schema_paths_name_leaves_lists_and_byte_arrays() {
        let sep = "=".repeat(80);
        let plan =
            compile(&format!("A a\nA[] l\nuint8[] b\nfloat64[9] c\nstring s\n{sep}\nMSG: p/A\nint8 x\nbyte[2] y\n"))
                .unwrap();
        use SchemaPaths::{Fields, Leaf, List};
        let inner = Fields(vec![("x".into(), Leaf), ("y".into(), Leaf)]);
        let expected = [("a", inner), ("l", List), ("b", Leaf), ("c", List), ("s", Leaf)];
        assert_eq!(plan.schema_paths(), Some(Fields(expected.map(|(n, p)| (n.to_owned(), p)).into())));
        assert_eq!(plan.byte_paths(), [vec!["a".to_owned(), "y".to_owned()], vec!["b".to_owned()]]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_compiles_or_fails_without_panic(text in "[a-zA-Z0-9_/\\[\\]<=#@ \n\"'-]{0,400}") {
            let _ = compile(&text);
        }

        #[test]
        fn lines_made_of_valid_pieces_never_panic(
            lines in proptest::collection::vec(
                ("(int8|string|wstring<=3|T|A|p/A|q/B|builtin_interfaces/Time|MSG: p/A|={80}|---)", "(\\[\\]|\\[3\\]|\\[<=2\\]|)", "( [a-z]{1,3}|=| X=1|)"),
                0..40,
            )
        ) {
            let text: String = lines.into_iter().map(|(a, b, c)| format!("{a}{b}{c}\n")).collect();
            let _ = compile(&text);
        }
    }
}
