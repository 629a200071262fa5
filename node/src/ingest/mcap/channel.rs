//! Schemas and channels of an MCAP file, and how a channel's messages are decoded.

use std::sync::Arc;

use crate::ingest::{
    Definition,
    definitions::Definitions,
    msgdef::{self, Plan},
    topic::{Decoding, RawSchema},
};

/// A definition as a plan, and as the text that goes with whole messages.
pub(super) type Compiled = (Arc<Plan>, Option<Arc<Definition>>);

pub(super) struct Schema {
    pub(super) name: Arc<str>,
    pub(super) encoding: Arc<str>,
    /// `None`: not text, or longer than any definition.
    pub(super) text: Option<Arc<str>>,
    /// What compiling it said, kept so that many channels of a type cost one compilation.
    pub(super) plan: Option<Result<Compiled, String>>,
}

pub(super) struct Channel {
    pub(super) topic: Arc<str>,
    pub(super) type_name: Arc<str>,
    pub(super) decoding: Decoding,
}

/// How to decode a channel's messages, or why they cannot be.
pub(super) fn decoding(
    encoding: &str,
    schema: Option<&mut Schema>,
    raw: bool,
    definitions: &Definitions,
) -> Result<Decoding, String> {
    let shown = |text: &str| text.chars().take(64).collect::<String>();
    match encoding {
        "json" if raw => Err("a raw stream needs CDR messages; this topic is JSON".to_owned()),
        "json" => Ok(Decoding::Json),
        "cdr" => {
            let Some(schema) = schema else {
                return if raw {
                    Ok(Decoding::Raw { plan: None, schema: None })
                } else {
                    Err("the topic has no schema".to_owned())
                };
            };
            let plan = compile(schema, definitions);
            if raw {
                let text = schema.text.clone();
                let encoding = Arc::clone(&schema.encoding);
                let schema = text.map(|text| RawSchema { name: Arc::clone(&schema.name), encoding, text });
                return Ok(Decoding::Raw { plan: plan.ok().map(|(plan, _)| plan), schema });
            }
            plan.map(|(plan, definition)| Decoding::Cdr { plan, definition })
        }
        other => Err(format!("message encoding {:?} is not supported, only cdr and json", shown(other))),
    }
}

fn compile(schema: &mut Schema, definitions: &Definitions) -> Result<Compiled, String> {
    let Schema { name, encoding, text, plan } = schema;
    plan.get_or_insert_with(|| {
        if &**encoding != "ros2msg" {
            let encoding: String = encoding.chars().take(64).collect();
            return Err(format!("schema encoding {encoding:?} is not supported, only ros2msg"));
        }
        let text = text.as_ref().ok_or_else(|| format!("the schema is longer than {} bytes", msgdef::MAX_TEXT))?;
        let plan = Plan::compile(name, text, definitions).map_err(|e| e.to_string())?;
        let definition = Definition::of(name, text, &plan, definitions);
        Ok((Arc::new(plan), definition))
    })
    .clone()
}
