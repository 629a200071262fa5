//! The time that a message itself says it is of.

use super::{Decoder, Place, Step, Unit};
use crate::ingest::msgdef::{Arity, Kind, Plan};

/// Where a message has its time stamp: `header.stamp`, or a `stamp` of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StampPlace {
    /// The field of the message.
    field: usize,
    /// The field within it, when it is a header.
    within: Option<usize>,
}

const TIME: &str = "builtin_interfaces/Time";

impl StampPlace {
    /// Finds it in a definition.
    #[must_use]
    pub fn find(plan: &Plan) -> Option<Self> {
        let stamp_in = |index: usize| {
            plan.structs[index].fields.iter().position(|field| {
                &*field.name == "stamp"
                    && field.arity == Arity::One
                    && matches!(field.kind, Kind::Struct(time) if &*plan.structs[time].name == TIME)
            })
        };
        let header = plan.structs[plan.root].fields.iter().enumerate().find_map(|(at, field)| {
            let (Kind::Struct(index), Arity::One) = (field.kind, field.arity) else { return None };
            (&*field.name == "header").then_some(())?;
            Some(Self { field: at, within: Some(stamp_in(index)?) })
        });
        header.or_else(|| Some(Self { field: stamp_in(plan.root)?, within: None }))
    }

    /// The stamp of a message in nanoseconds since 1970; `None` when the message ends before, or it is zero or before 1970. Walks
    /// over what stands in front of it and builds nothing.
    #[must_use]
    pub fn read(self, plan: &Plan, message: &[u8]) -> Option<u64> {
        [Unit::Four, Unit::Two]
            .into_iter()
            .take(if plan.wide { 2 } else { 1 })
            .find_map(|unit| self.read_with(plan, message, unit))
    }

    fn read_with(self, plan: &Plan, message: &[u8], unit: Unit) -> Option<u64> {
        let mut decoder = Decoder::new(plan, message, unit, false).ok()?;
        let root = &plan.structs[plan.root];
        decoder.skip(&root.fields[..self.field])?;
        if let Some(within) = self.within {
            let Kind::Struct(header) = root.fields[self.field].kind else { return None };
            decoder.skip(&plan.structs[header].fields[..within])?;
        }
        let seconds = decoder.reader.u32().ok()?.cast_signed();
        let nanoseconds = decoder.reader.u32().ok()?;
        let seconds = u64::try_from(seconds).ok()?;
        Some(seconds * 1_000_000_000 + u64::from(nanoseconds)).filter(|stamp| *stamp > 0)
    }
}

impl Decoder<'_> {
    fn skip(&mut self, fields: &[super::Field]) -> Option<()> {
        for field in fields {
            let place = Place { parent: None, step: Step::Field(&field.name) };
            self.field(field, &place).ok()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::msgdef::NoLookup;

    const HEADER: &str = "\n================================================================================\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n";

    fn plan(text: &str) -> Plan {
        Plan::compile("p/msg/T", &format!("{text}{HEADER}"), &NoLookup).unwrap()
    }

    fn message(body: &[&[u8]]) -> Vec<u8> {
        [&[0, 1, 0, 0][..], &body.concat()].concat()
    }

    #[test]
    fn the_stamp_is_found_in_the_header_or_beside_it() {
        let (sec, nanosec) = (12u32.to_le_bytes(), 5u32.to_le_bytes());
        let first = plan("std_msgs/Header header\nint8 x\n");
        let place = StampPlace::find(&first).unwrap();
        assert_eq!(place.read(&first, &message(&[&sec, &nanosec])), Some(12_000_000_005));
        assert_eq!(place.read(&first, &message(&[&sec])), None, "cut off");
        assert_eq!(place.read(&first, &message(&[&[0; 8]])), None, "zero says nothing");
        assert_eq!(place.read(&first, &message(&[&[0xff; 4], &[0; 4]])), None, "before 1970");
        assert_eq!(place.read(&first, &[0, 1]), None);

        let later = plan("string name\nuint8[] bytes\nbuiltin_interfaces/Time stamp\n");
        let place = StampPlace::find(&later).unwrap();
        let text = [&2u32.to_le_bytes()[..], b"a\0", &[0, 0], &3u32.to_le_bytes(), &[1, 2, 3], &[0]].concat();
        assert_eq!(place.read(&later, &message(&[&text, &sec, &nanosec])), Some(12_000_000_005));
    }

    #[test]
    fn what_only_looks_like_a_stamp_is_none() {
        for text in [
            "int32 stamp\n",
            "builtin_interfaces/Time[] stamp\n",
            "builtin_interfaces/Duration stamp\n",
            "string header\n",
            "std_msgs/Header[] header\n",
            "int8 x\n",
        ] {
            assert_eq!(StampPlace::find(&plan(text)), None, "{text}");
        }
        let header_first = plan("builtin_interfaces/Time stamp\nstd_msgs/Header header\n");
        assert_eq!(StampPlace::find(&header_first), Some(StampPlace { field: 1, within: Some(0) }));
    }
}
