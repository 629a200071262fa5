//! From parsed sections to a compiled [`Plan`]: name lookup, recursion, depth and smallest sizes.

use std::{collections::HashMap, sync::Arc};

use super::{
    Arity, DefinitionError, Field, Kind, Lookup, MAX_DEPTH, MAX_TYPES, Plan, Struct, normalize_type_name, text,
};

/// Types that every ROS 2 definition may use; some writers leave their sections out.
const ALWAYS_KNOWN: [(&str, &str); 2] = [
    ("builtin_interfaces/Time", "int32 sec\nuint32 nanosec\n"),
    ("builtin_interfaces/Duration", "int32 sec\nuint32 nanosec\n"),
];

pub(super) fn always_known(full_name: &str) -> Option<&'static str> {
    ALWAYS_KNOWN.iter().find(|(name, _)| *name == full_name).map(|(_, text)| *text)
}

pub(super) fn compile(type_name: &str, definition: &str, lookup: &dyn Lookup) -> Result<Plan, DefinitionError> {
    let root = normalize_type_name(type_name).ok_or_else(|| DefinitionError::Syntax {
        type_name: type_name.chars().take(80).collect(),
        line: 0,
        reason: "not a type name (pkg/msg/Type)",
        found: String::new(),
    })?;
    let mut compiler = Compiler {
        root: root.clone(),
        raw: HashMap::new(),
        done: HashMap::new(),
        structs: Vec::new(),
        heights: Vec::new(),
        lookup,
    };
    compiler.add(text::parse(&root, definition)?)?;
    let index = compiler.type_index(&root, &root, 0)?;
    let wide = compiler.structs.iter().flat_map(|part| &part.fields).any(|field| field.kind == Kind::WString);
    Ok(Plan { structs: compiler.structs, root: index, wide })
}

enum State {
    InProgress,
    Done(usize),
}

struct Compiler<'a> {
    root: String,
    raw: HashMap<String, Arc<text::RawType>>,
    done: HashMap<String, State>,
    structs: Vec<Struct>,
    /// Levels of types under each structure, itself included. Depth is checked on these, not on the way a type was reached
    /// first, since a shared type may be reached by a longer way later.
    heights: Vec<usize>,
    lookup: &'a dyn Lookup,
}

impl Compiler<'_> {
    fn add(&mut self, types: Vec<text::RawType>) -> Result<(), DefinitionError> {
        for raw in types {
            // The first definition of a name wins, so a looked-up text cannot replace what the recording says.
            self.raw.entry(raw.name.clone()).or_insert_with(|| Arc::new(raw));
        }
        if self.raw.len() > MAX_TYPES {
            return Err(DefinitionError::TooLarge { type_name: self.root.clone(), what: "types", limit: MAX_TYPES });
        }
        Ok(())
    }

    fn raw(&mut self, name: &str) -> Result<Option<Arc<text::RawType>>, DefinitionError> {
        if !self.raw.contains_key(name) {
            let known = always_known(name).map(ToOwned::to_owned);
            if let Some(definition) = known.or_else(|| self.lookup.find(name)) {
                self.add(text::parse(name, &definition)?)?;
            }
        }
        Ok(self.raw.get(name).cloned())
    }

    /// The compiled index of a type, compiling it and what it uses first. The stack is bounded by [`MAX_DEPTH`].
    fn type_index(&mut self, name: &str, used_by: &str, depth: usize) -> Result<usize, DefinitionError> {
        match self.done.get(name) {
            Some(State::Done(index)) => return Ok(*index),
            Some(State::InProgress) => return Err(DefinitionError::Recursive(name.to_owned())),
            None => {}
        }
        if depth > MAX_DEPTH {
            return Err(DefinitionError::TooDeep(self.root.clone()));
        }
        let Some(raw) = self.raw(name)? else {
            return Err(DefinitionError::UnknownType { used_by: used_by.to_owned(), missing: name.to_owned() });
        };
        if raw.idl {
            return Err(DefinitionError::Idl(name.to_owned()));
        }
        self.done.insert(name.to_owned(), State::InProgress);
        let package = name.split_once('/').map_or("", |(package, _)| package);
        let mut fields = Vec::with_capacity(raw.fields.len());
        let mut min_size = 0u64;
        let mut height = 1;
        for field in &raw.fields {
            let kind = match primitive(&field.base) {
                Some(kind) => kind,
                None => {
                    let index = self.member(package, &field.base, name, depth)?;
                    height = height.max(self.heights[index] + 1);
                    Kind::Struct(index)
                }
            };
            let element = match kind {
                Kind::Struct(index) => self.structs[index].min_size,
                Kind::String | Kind::WString => 4,
                _ => kind.primitive_size().unwrap_or(1) as u64,
            };
            min_size = min_size.saturating_add(match field.arity {
                Arity::One => element,
                Arity::Array(count) => element.saturating_mul(u64::from(count)),
                Arity::Sequence(_) => 4,
            });
            fields.push(Field { name: Arc::from(field.name.as_str()), kind, arity: field.arity });
        }
        if height > MAX_DEPTH {
            return Err(DefinitionError::TooDeep(self.root.clone()));
        }
        let index = self.structs.len();
        self.heights.push(height);
        self.structs.push(Struct { name: Arc::from(name), fields, min_size: min_size.max(1) });
        self.done.insert(name.to_owned(), State::Done(index));
        Ok(index)
    }

    fn member(&mut self, package: &str, base: &str, used_by: &str, depth: usize) -> Result<usize, DefinitionError> {
        if base.contains('/') {
            return self.type_index(base, used_by, depth + 1);
        }
        // `Header` alone is std_msgs/Header by an old convention, unless the package has its own.
        let own = format!("{package}/{base}");
        if base == "Header" && self.raw(&own)?.is_none() {
            return self.type_index("std_msgs/Header", used_by, depth + 1);
        }
        self.type_index(&own, used_by, depth + 1)
    }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "bool" => Kind::Bool,
        "byte" | "char" | "uint8" => Kind::U8,
        "int8" => Kind::I8,
        "uint16" => Kind::U16,
        "int16" => Kind::I16,
        "uint32" => Kind::U32,
        "int32" => Kind::I32,
        "uint64" => Kind::U64,
        "int64" => Kind::I64,
        "float32" => Kind::F32,
        "float64" => Kind::F64,
        "string" => Kind::String,
        "wstring" => Kind::WString,
        _ => return None,
    })
}
