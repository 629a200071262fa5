//! Looking at what arrived, without trusting what the nodes said.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use tributary_protocol::{
    json::{Object, Value},
    package::{DataPackage, MAX_LINE, TOPIC_KEY},
};

use super::{
    DemoError,
    plan::{Plan, Protected},
};

/// Counts the packages of each topic in `packages.ndjson`, and looks for protected fields there and in `data.mcap`.
pub(super) fn outputs(out: &Path, plan: &Plan) -> Result<BTreeMap<String, u64>, DemoError> {
    let path = out.join("packages.ndjson");
    let io = |source| DemoError::Io { path: path.clone(), source };
    let mut reader = BufReader::new(File::open(&path).map_err(io)?);
    let mut counts = BTreeMap::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte more than the longest line shows a line without an end.
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX) + 2;
        let read = std::io::Read::take(&mut reader, limit).read_until(b'\n', &mut line).map_err(io)?;
        if read == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let package =
            DataPackage::from_json(text).map_err(|error| DemoError::Wrong(format!("a line is no package: {error}")))?;
        let topic = package.payload.get(TOPIC_KEY).and_then(Value::as_str).unwrap_or_default().to_owned();
        for protected in plan.protected.iter().filter(|protected| protected.topic == topic) {
            check_field(&package.payload, protected)?;
            no_secret(text, protected, "packages.ndjson")?;
        }
        *counts.entry(topic).or_insert(0) += 1;
    }
    let mcap = out.join("data.mcap");
    let bytes = std::fs::metadata(&mcap).map_err(|source| DemoError::Io { path: mcap.clone(), source })?.len();
    if bytes == 0 {
        return Err(DemoError::Wrong("data.mcap is empty".to_owned()));
    }
    let mut source = crate::ingest::open(&mcap, &crate::ingest::IngestOptions::default())
        .map_err(|error| DemoError::Wrong(format!("data.mcap cannot be read back: {error}")))?;
    let mut again: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(item) =
        source.next().map_err(|error| DemoError::Wrong(format!("data.mcap cannot be read back: {error}")))?
    {
        if let crate::ingest::SourceItem::Message(message) = item {
            *again.entry(message.topic.to_string()).or_insert(0) += 1;
            if let crate::ingest::Content::Fields(fields) = &message.content {
                for protected in plan.protected.iter().filter(|protected| *protected.topic == *message.topic) {
                    check_field(&fields.value, protected)?;
                }
            }
        }
    }
    if again != counts {
        return Err(DemoError::Wrong(format!("packages.ndjson has {counts:?}, data.mcap has {again:?}")));
    }
    Ok(counts)
}

fn check_field(payload: &Object, protected: &Protected) -> Result<(), DemoError> {
    let Protected { topic, path, absent, .. } = protected;
    match payload.get(path) {
        None => Ok(()),
        Some(Value::Object(wrapper)) if !absent && wrapper.contains_key("__anonymized") => Ok(()),
        Some(_) => Err(DemoError::Wrong(format!("the protected field {path} of {topic} arrived"))),
    }
}

fn no_secret(line: &[u8], protected: &Protected, file: &str) -> Result<(), DemoError> {
    let found =
        protected.secrets.iter().find(|secret| line.windows(secret.len()).any(|part| part == secret.as_bytes()));
    match found {
        None => Ok(()),
        Some(_) => {
            Err(DemoError::Wrong(format!("a value of {} of {} stands in {file}", protected.path, protected.topic)))
        }
    }
}
