//! `tributary rules`: what the field rules do, before anything leaves.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Subcommand;
use serde::Serialize;
use tributary_protocol::rules::{Action, RuleSet};

use super::{CliError, Context, Exit, Table, ingest::absolute, reach::told, show};
use crate::{
    config::{Config, Mode},
    control::{api::IngestRequest, ingest_options},
    ingest::{self, Content, SourceItem, TopicFilter},
};

/// `tributary rules`
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Show, field by field, what of a recording would leave this machine; nothing is stored or sent
    Test(TestArgs),
}

/// `tributary rules test`
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// A recording (.mcap, .db3), a folder of one, or an NDJSON file
    #[arg(long, value_name = "FILE")]
    recording: PathBuf,
    /// Only this stream; can be given again
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    /// NDJSON: the key whose text is the topic of a line
    #[arg(long, value_name = "KEY")]
    topic_field: Option<String>,
    /// The configuration [default: config.yaml in the home]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Different paths that a topic can show; a message that makes up field names must not fill the memory.
const MAX_FIELDS: usize = 10_000;
/// Topics that are shown.
const MAX_TOPICS: usize = 4_096;

#[derive(Debug, Default, Serialize)]
struct TopicReport {
    /// The stream that takes it; nothing of the others leaves.
    stream: Option<String>,
    /// fields, raw or file.
    mode: Option<&'static str>,
    messages: u64,
    /// Messages that would leave.
    leaving: u64,
    /// Messages that would be held back because of a violation, or cannot be read.
    held_back: u64,
    fields: BTreeMap<String, FieldReport>,
    /// Why messages do not leave, and how many.
    violations: BTreeMap<String, u64>,
    /// Messages with more different fields than are listed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

#[derive(Debug, Default, Serialize)]
struct FieldReport {
    /// include, exclude, encrypt or anonymize.
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<String>,
    /// The rule that decides; without one it is the stream's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    messages: u64,
}

#[derive(Serialize)]
struct Report {
    recording: PathBuf,
    violations: u64,
    damaged: Vec<String>,
    topics: BTreeMap<String, TopicReport>,
}

pub(super) fn run(command: &RulesCommand, context: &Context) -> Result<(), CliError> {
    let RulesCommand::Test(args) = command;
    let config = context.config(args.config.as_deref(), &[])?;
    let report = test(args, &config, context)?;
    context.output.document(&report, |out| human(&report, out))?;
    if report.violations > 0 {
        return Err(CliError::new(Exit::Failed, "some messages would not leave: their rules cannot decide about them")
            .cause(format!("{} counted above", show::some(report.violations, "violation")))
            .hint("correct the path of the rule, or mark it optional where the field may be absent"));
    }
    Ok(())
}

fn test(args: &TestArgs, config: &Config, context: &Context) -> Result<Report, CliError> {
    let request = IngestRequest {
        path: Some(absolute(&args.recording)?),
        streams: args.stream.clone(),
        topic_field: args.topic_field.clone(),
        ..IngestRequest::default()
    };
    let mut options = ingest_options(&config.streams, &request).map_err(CliError::from)?;
    if args.stream.is_empty() {
        // What stays is part of the answer.
        options.topics = TopicFilter::All;
    }
    let mut rules: BTreeMap<&str, RuleSet> = BTreeMap::new();
    for stream in &config.streams {
        let loaded = stream.rule_set().map_err(|error| {
            CliError::new(Exit::Usage, format!("the rules of the stream {} cannot be used", stream.topic)).cause(error)
        })?;
        rules.extend(loaded.map(|loaded| (stream.topic.as_str(), loaded)));
    }
    let mut source = ingest::open(&args.recording, &options).map_err(told)?;
    let bar = context.output.progress_count("reading", None);
    let mut topics: BTreeMap<String, TopicReport> = BTreeMap::new();
    let mut damaged = Vec::new();
    while let Some(item) = source.next().map_err(told)? {
        bar.inc(1);
        let (topic, trouble) = match &item {
            SourceItem::Message(message) => (&message.topic, None),
            SourceItem::TopicLost { topic, reason }
            | SourceItem::TopicUndecoded { topic, reason }
            | SourceItem::Dropped { topic, reason } => (topic, Some(reason)),
            SourceItem::Damaged { reason } => {
                if damaged.len() < 64 {
                    damaged.push(reason.clone());
                }
                continue;
            }
        };
        if topics.len() >= MAX_TOPICS && !topics.contains_key(&**topic) {
            continue;
        }
        let known = topics.contains_key(&**topic);
        let entry = topics.entry(topic.to_string()).or_default();
        if !known && let Some(stream) = config.stream_for_topic(topic) {
            // A pattern's topics are published under their own names.
            entry.stream = Some(if stream.pattern().is_some() { topic.to_string() } else { stream.name().to_owned() });
            entry.mode = Some(match stream.mode {
                Mode::Fields { .. } => "fields",
                Mode::Raw => "raw",
                Mode::File => "file",
            });
            // What the schema already tells needs no message.
            if let (Some(rules), Some(paths)) = (rules.get(stream.topic.as_str()), source.schema_paths(topic))
                && let Err(error) = rules.check_schema(&paths)
            {
                entry.violations.insert(error.to_string(), 1);
            }
        }
        if let Some(reason) = trouble {
            if entry.stream.is_some() && entry.mode != Some("raw") {
                *entry.violations.entry(reason.clone()).or_default() += 1;
                entry.held_back += 1;
            }
            continue;
        }
        let SourceItem::Message(message) = item else { continue };
        let stream = config.stream_for_topic(&message.topic);
        count(entry, message.content, stream.and_then(|stream| rules.get(stream.topic.as_str())));
    }
    bar.finish_and_clear();
    let violations = topics.values().flat_map(|topic| topic.violations.values()).sum();
    Ok(Report { recording: args.recording.clone(), violations, damaged, topics })
}

fn count(entry: &mut TopicReport, content: Content, rules: Option<&RuleSet>) {
    entry.messages += 1;
    let Some(mode) = entry.mode else { return };
    let (Content::Fields(fields), Some(rules)) = (content, rules) else {
        match mode {
            "raw" => entry.leaving += 1,
            _ => {
                let reason = "the message is not decoded, so its field rules cannot be applied";
                *entry.violations.entry(reason.to_owned()).or_default() += 1;
                entry.held_back += 1;
            }
        }
        return;
    };
    let report = rules.report(&fields.value);
    if report.violations.is_empty() {
        entry.leaving += 1;
    } else {
        entry.held_back += 1;
    }
    for violation in &report.violations {
        *entry.violations.entry(violation.to_string()).or_default() += 1;
    }
    for fate in report.fates {
        // A large byte array stands in the fields as a marker; people know it by its own name.
        let Some(path) = field_name(&fate.path) else { continue };
        if entry.fields.len() >= MAX_FIELDS && !entry.fields.contains_key(path) {
            entry.cut = true;
            continue;
        }
        let field = entry.fields.entry(path.to_owned()).or_insert_with(|| FieldReport {
            action: fate.action.as_str().to_owned(),
            strategy: fate.strategy.filter(|_| fate.action == Action::Anonymize).map(|s| s.as_str().to_owned()),
            rule: fate.rule.clone(),
            messages: 0,
        });
        field.messages += 1;
    }
}

/// The name of the field that a path leads to: that of the byte array for the hash in its marker, nothing for its length.
fn field_name(path: &str) -> Option<&str> {
    match path.rsplit_once('.') {
        Some((field, "@blob")) => Some(field),
        Some((_, "@bytes")) => None,
        _ => Some(path),
    }
}

fn human(report: &Report, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    for (topic, found) in &report.topics {
        let messages = show::some(found.messages, "message");
        match (&found.stream, found.mode) {
            (Some(stream), Some("raw")) => writeln!(out, "{topic} -> {stream}: {messages} leave whole, as bytes")?,
            (Some(stream), _) => {
                writeln!(out, "{topic} -> {stream}: {} of {messages} would leave", show::count(found.leaving))?;
            }
            (None, _) => writeln!(out, "{topic}: no stream takes it, {messages} stay")?,
        }
        let mut table = Table::new();
        for (path, field) in &found.fields {
            let fate = match field.action.as_str() {
                "include" => "leaves as it is".to_owned(),
                "exclude" => "stays".to_owned(),
                "encrypt" => "leaves encrypted".to_owned(),
                _ => format!("leaves changed ({})", field.strategy.as_deref().unwrap_or("anonymized")),
            };
            let why = field.rule.as_ref().map_or_else(|| "default".to_owned(), |rule| format!("rule {rule}"));
            table.row([format!("  {path}"), fate, why]);
        }
        table.write(out)?;
        for (violation, times) in &found.violations {
            writeln!(out, "  VIOLATION ({times}x): {violation}")?;
        }
        if found.cut {
            writeln!(out, "  … and more fields")?;
        }
        writeln!(out)?;
    }
    for damage in &report.damaged {
        writeln!(out, "damaged: {damage}")?;
    }
    Ok(())
}
