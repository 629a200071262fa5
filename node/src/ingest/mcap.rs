//! MCAP recordings, read from front to back with bounded memory.
//!
//! The top level of the file is walked here, record by record, so that a chunk or an attachment that is damaged, or larger
//! than the bound, is stepped over by its length. Each chunk goes through a [`LinearReader`] of its own, which checks its CRC
//! before any message comes out. A file that was cut off (a robot that lost power has no footer) is read to its last whole
//! message. Of the summary only schemas and channels are used; a file without one is read all the same.

mod channel;
mod record;

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{BufReader, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
};

use mcap::{
    MAGIC,
    records::{Record, op},
    sans_io::linear_reader::{LinearReadEvent, LinearReader, LinearReaderOptions},
};

use tributary_protocol::rules::native::SchemaPaths;

use self::channel::{Channel, Schema, decoding};
use super::{
    IngestError, IngestOptions, Source, SourceItem, SourceMessage, definitions::Definitions, msgdef, topic::Decoding,
};

/// Chunks up to this size, or that of the largest message, are checked before anything is read from them; in bytes.
const CHECKED_CHUNK: usize = 64 << 20;
/// Opcode and length in front of every record.
const RECORD_HEADER: u64 = 9;
/// Length of the footer record's body.
const FOOTER: u64 = 20;
/// Most schemas, and most channels, of one recording.
const MAX_CHANNELS: usize = 4096;
/// Most bytes of all schemas together.
const MAX_SCHEMA_BYTES: usize = 32 << 20;

enum State {
    TopLevel,
    /// Inside a chunk: its reader, bytes of the chunk record not yet fed, where the record starts and ends.
    Chunk {
        reader: Box<LinearReader>,
        unfed: u64,
        start: u64,
        end: u64,
        mode: Mode,
    },
    Ended,
}

/// How a chunk is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Whole into memory, its CRC checked before anything comes out.
    Checked,
    /// Too large for that: its CRC is checked at its end.
    Streamed,
    /// The file ends inside it, so its CRC says nothing.
    CutOff,
}

/// What a step inside a chunk came to.
enum Step {
    Item(SourceItem),
    Nothing,
    ChunkEnd,
    Fault(mcap::McapError),
}

/// A source over one `.mcap` file.
pub struct McapSource {
    path: PathBuf,
    file: BufReader<File>,
    length: u64,
    options: IngestOptions,
    definitions: Definitions,
    state: State,
    schemas: HashMap<u16, Schema>,
    schema_bytes: usize,
    channels: HashMap<u16, Channel>,
    footer: bool,
    /// Found in the summary, handed out first.
    waiting: VecDeque<SourceItem>,
    unknown_channel: bool,
    buffer: Vec<u8>,
}

impl McapSource {
    /// Opens a recording.
    ///
    /// # Errors
    /// The file cannot be read or does not start as MCAP.
    pub fn open(path: &Path, options: &IngestOptions) -> Result<Self, IngestError> {
        let io = |source| IngestError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut file = BufReader::with_capacity(256 << 10, file);
        let mut magic = [0u8; MAGIC.len()];
        let whole = file.read_exact(&mut magic).is_ok();
        if !whole || magic != *MAGIC {
            return Err(IngestError::Unsupported { path: path.to_owned(), reason: "not an MCAP file".to_owned() });
        }
        let mut source = Self {
            path: path.to_owned(),
            file,
            length,
            options: options.clone(),
            definitions: Definitions::new(&options.definition_dirs, options.ament),
            state: State::TopLevel,
            schemas: HashMap::new(),
            schema_bytes: 0,
            channels: HashMap::new(),
            footer: false,
            waiting: VecDeque::new(),
            unknown_channel: false,
            buffer: Vec::new(),
        };
        source.read_summary()?;
        source.seek_to(MAGIC.len() as u64)?;
        Ok(source)
    }

    fn io(&self, source: std::io::Error) -> IngestError {
        IngestError::Io { path: self.path.clone(), source }
    }

    fn position(&mut self) -> Result<u64, IngestError> {
        self.file.stream_position().map_err(|e| self.io(e))
    }

    /// Moves on in the file without dropping the read buffer when the target is near.
    fn seek_to(&mut self, target: u64) -> Result<(), IngestError> {
        let now = self.position()?;
        let delta = i64::try_from(i128::from(target) - i128::from(now)).unwrap_or(i64::MAX);
        self.file.seek_relative(delta).map_err(|e| self.io(e))
    }

    fn end(&mut self, reason: String) -> SourceItem {
        self.state = State::Ended;
        SourceItem::Damaged { reason }
    }

    /// Reads one record of the top level; `None` when it yields nothing.
    fn top_level(&mut self) -> Result<Option<SourceItem>, IngestError> {
        let start = self.position()?;
        let left = self.length.saturating_sub(start);
        if self.footer {
            self.state = State::Ended;
            return Ok(None);
        }
        if left < RECORD_HEADER {
            return Ok(Some(
                self.end(format!(
                    "the recording ends without a footer, at byte {start}; everything before it was read"
                )),
            ));
        }
        let mut header = [0u8; 9];
        self.file.read_exact(&mut header).map_err(|e| self.io(e))?;
        let [opcode, length @ ..] = header;
        let length = u64::from_le_bytes(length);
        let body_left = left - RECORD_HEADER;
        if opcode == op::CHUNK {
            let end = start.saturating_add(RECORD_HEADER).saturating_add(length).min(self.length);
            self.open_chunk(start, end, if length <= body_left { Mode::Checked } else { Mode::CutOff })?;
            return Ok(None);
        }
        if length > body_left {
            let reason = format!("the recording ends inside a record, at byte {start}; everything before it was read");
            return Ok(Some(self.end(reason)));
        }
        let wanted = matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE | op::DATA_END | op::FOOTER);
        let body = usize::try_from(length).ok().filter(|&n| wanted && n <= self.options.max_message.saturating_add(64));
        let Some(body) = body else {
            self.seek_to(start + RECORD_HEADER + length)?;
            let too_large = matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE);
            return Ok(too_large.then(|| SourceItem::Damaged {
                reason: format!(
                    "the record of {length} bytes at byte {start} is larger than the bound; it was left out"
                ),
            }));
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(body, 0);
        let result = self.file.read_exact(&mut buffer).map_err(|e| self.io(e));
        let item = result.and_then(|()| match opcode {
            op::FOOTER => {
                self.footer = true;
                Ok(None)
            }
            // Behind the data only the summary follows, which repeats schemas and channels: nothing more to read there.
            op::DATA_END => {
                self.footer = true;
                Ok(None)
            }
            _ => match record::parse(opcode, &buffer) {
                Ok(record) => record.map_or(Ok(None), |record| self.record(record)),
                Err(e) => Ok(Some(SourceItem::Damaged {
                    reason: format!("the record at byte {start} is broken ({e}); it was left out"),
                })),
            },
        });
        self.buffer = buffer;
        item
    }

    fn open_chunk(&mut self, start: u64, end: u64, mode: Mode) -> Result<(), IngestError> {
        self.seek_to(start)?;
        let options = LinearReaderOptions::default()
            .with_skip_start_magic(true)
            .with_skip_end_magic(true)
            .with_prevalidate_chunk_crcs(mode == Mode::Checked)
            .with_validate_chunk_crcs(mode != Mode::CutOff)
            .with_record_length_limit(self.options.max_message.max(CHECKED_CHUNK).saturating_add(64));
        let reader = Box::new(LinearReader::new_with_options(options));
        let unfed = self.records_end(start, end)? - start;
        self.state = State::Chunk { reader, unfed, start, end, mode };
        Ok(())
    }

    /// Where the records of the chunk at `start` end if they are not compressed, otherwise `end`. The reader must not be fed
    /// more: it takes a record that crosses this place, which its arithmetic does not expect (mcap 0.26).
    fn records_end(&mut self, start: u64, end: u64) -> Result<u64, IngestError> {
        /// Record header; two times, the size, the sum; the length of the compression's name; the length of the records.
        const NAME: usize = 9 + 8 + 8 + 8 + 4;
        const FIXED: usize = NAME + 4 + 8;
        if end - start < FIXED as u64 {
            return Ok(end);
        }
        let mut header = [0u8; FIXED];
        self.file.read_exact(&mut header).map_err(|e| self.io(e))?;
        self.seek_to(start)?;
        match header.split_last_chunk::<8>() {
            Some((front, records)) if front[NAME..] == [0; 4] => {
                Ok(start.saturating_add(FIXED as u64).saturating_add(u64::from_le_bytes(*records)).min(end))
            }
            _ => Ok(end),
        }
    }

    /// One event inside the open chunk.
    fn in_chunk(&mut self) -> Result<Step, IngestError> {
        let State::Chunk { mut reader, mut unfed, start, end, mode } =
            std::mem::replace(&mut self.state, State::TopLevel)
        else {
            return Ok(Step::ChunkEnd);
        };
        let step = match reader.next_event() {
            None => Step::ChunkEnd,
            Some(Err(fault)) => Step::Fault(fault),
            Some(Ok(LinearReadEvent::ReadRequest(need))) => {
                let want = need.min(usize::try_from(unfed).unwrap_or(usize::MAX)).min(1 << 20);
                let space = reader.insert(want);
                let read = self.file.read(space).map_err(|e| self.io(e))?;
                unfed -= read as u64;
                reader.notify_read(read);
                Step::Nothing
            }
            Some(Ok(LinearReadEvent::Record { opcode, data })) => match record::parse(opcode, data) {
                Ok(Some(record)) => self.record(record)?.map_or(Step::Nothing, Step::Item),
                Ok(None) => Step::Nothing,
                Err(fault) => Step::Fault(fault),
            },
        };
        match step {
            Step::ChunkEnd => self.seek_to(end)?,
            Step::Fault(fault) => {
                let item = self.chunk_fault(&fault, start, end, mode)?;
                return Ok(item.map_or(Step::Nothing, Step::Item));
            }
            _ => self.state = State::Chunk { reader, unfed, start, end, mode },
        }
        Ok(step)
    }

    /// A chunk that cannot be read on is left, and reading goes on behind it.
    fn chunk_fault(
        &mut self,
        fault: &mcap::McapError,
        start: u64,
        end: u64,
        mode: Mode,
    ) -> Result<Option<SourceItem>, IngestError> {
        let reason = match (mode, fault) {
            (Mode::Checked, mcap::McapError::ChunkTooLarge(_)) => {
                self.open_chunk(start, end, Mode::Streamed)?;
                return Ok(None);
            }
            (Mode::CutOff, _) => {
                let reason = format!(
                    "the recording ends inside the chunk at byte {start}; it was read to its last whole message"
                );
                return Ok(Some(self.end(reason)));
            }
            (Mode::Checked, fault) => format!("the chunk at byte {start} is damaged ({fault}); it was left out"),
            (Mode::Streamed, fault) => {
                format!("the chunk at byte {start} is damaged ({fault}); messages of it may already have been read")
            }
        };
        self.seek_to(end)?;
        Ok(Some(SourceItem::Damaged { reason }))
    }

    /// Reads schemas and channels from the summary at the end, where a closed recording repeats them, so that topics are
    /// known from the start and a damaged first chunk does not cost those behind it. Whatever is odd there is ignored: the
    /// same records come again with the data.
    fn read_summary(&mut self) -> Result<(), IngestError> {
        let data_start = MAGIC.len() as u64;
        let Some(footer_at) =
            self.length.checked_sub(data_start + FOOTER + RECORD_HEADER).filter(|&at| at > data_start)
        else {
            return Ok(());
        };
        self.seek_to(footer_at)?;
        let mut footer = [0u8; 9 + 20];
        self.file.read_exact(&mut footer).map_err(|e| self.io(e))?;
        let [opcode, rest @ ..] = footer;
        let numbers = rest.as_chunks::<8>().0;
        let (length, summary) = (u64::from_le_bytes(numbers[0]), u64::from_le_bytes(numbers[1]));
        if opcode != op::FOOTER || length != FOOTER || summary < data_start || summary >= footer_at {
            return Ok(());
        }
        // Channels name schemas, which may stand behind them.
        self.read_repeated(op::SCHEMA, summary, footer_at)?;
        self.read_repeated(op::CHANNEL, summary, footer_at)
    }

    /// Reads the records of one kind in a range of the file.
    fn read_repeated(&mut self, wanted: u8, mut at: u64, end: u64) -> Result<(), IngestError> {
        while at.saturating_add(RECORD_HEADER) <= end {
            self.seek_to(at)?;
            let mut header = [0u8; 9];
            self.file.read_exact(&mut header).map_err(|e| self.io(e))?;
            let [opcode, length @ ..] = header;
            let length = u64::from_le_bytes(length);
            at = match at.checked_add(RECORD_HEADER).and_then(|body| body.checked_add(length)) {
                Some(next) if next <= end => next,
                _ => break,
            };
            let size = usize::try_from(length).unwrap_or(usize::MAX);
            if opcode != wanted || size > msgdef::MAX_TEXT + 4096 {
                continue;
            }
            let mut body = vec![0; size];
            self.file.read_exact(&mut body).map_err(|e| self.io(e))?;
            let Ok(Some(record)) = record::parse(opcode, &body) else { continue };
            let complete = match &record {
                Record::Channel(channel) => channel.schema_id == 0 || self.schemas.contains_key(&channel.schema_id),
                _ => true,
            };
            if complete {
                let item = self.record(record)?;
                self.waiting.extend(item);
            }
        }
        Ok(())
    }

    /// A schema, channel or message.
    fn record(&mut self, record: Record<'_>) -> Result<Option<SourceItem>, IngestError> {
        match record {
            Record::Schema { header, data } => {
                self.schema_bytes = self.schema_bytes.saturating_add(data.len());
                let known = self.schemas.contains_key(&header.id);
                if known {
                    // Repeated in every chunk by some writers; the first one counts.
                    self.schema_bytes -= data.len();
                    return Ok(None);
                }
                if self.schemas.len() == MAX_CHANNELS {
                    return Err(self.too_many("schemas", MAX_CHANNELS));
                }
                if self.schema_bytes > MAX_SCHEMA_BYTES {
                    return Err(self.too_many("bytes of schemas", MAX_SCHEMA_BYTES));
                }
                let text = (data.len() <= msgdef::MAX_TEXT).then(|| Arc::from(String::from_utf8_lossy(&data)));
                let schema = Schema { name: header.name.into(), encoding: header.encoding.into(), text, plan: None };
                self.schemas.insert(header.id, schema);
                Ok(None)
            }
            Record::Channel(channel) => {
                if self.channels.contains_key(&channel.id) {
                    return Ok(None);
                }
                if self.channels.len() == MAX_CHANNELS {
                    return Err(self.too_many("channels", MAX_CHANNELS));
                }
                Ok(self.add_channel(channel))
            }
            Record::Message { header, data } => {
                let Some(channel) = self.channels.get(&header.channel_id) else {
                    let first = !std::mem::replace(&mut self.unknown_channel, true);
                    let reason = format!(
                        "messages of channel {}, which the recording does not describe, were left out",
                        header.channel_id
                    );
                    return Ok(first.then_some(SourceItem::Damaged { reason }));
                };
                let topic = Arc::clone(&channel.topic);
                Ok(match channel.decoding.content(&data, self.options.max_message) {
                    Ok(None) => None,
                    Ok(Some(content)) => Some(SourceItem::Message(SourceMessage {
                        topic,
                        type_name: Arc::clone(&channel.type_name),
                        log_time_ns: header.log_time,
                        publish_time_ns: header.publish_time,
                        content,
                    })),
                    Err(reason) => Some(SourceItem::Dropped { topic, reason }),
                })
            }
            _ => Ok(None),
        }
    }

    fn too_many(&self, what: &'static str, limit: usize) -> IngestError {
        IngestError::TooMany { path: self.path.clone(), what, limit }
    }

    fn add_channel(&mut self, record: mcap::records::Channel) -> Option<SourceItem> {
        let topic: Arc<str> = record.topic.into();
        let schema = self.schemas.get_mut(&record.schema_id);
        let type_name = schema.as_ref().map_or_else(|| Arc::from(""), |s| Arc::clone(&s.name));
        let decoding = if self.options.topics.contains(&topic) {
            decoding(&record.message_encoding, schema, self.options.raw.contains(&topic), &self.definitions)
        } else {
            Ok(Decoding::Skip)
        };
        let (decoding, lost) = match decoding {
            Ok(decoding) => (decoding, None),
            Err(reason) => (Decoding::Skip, Some(SourceItem::TopicLost { topic: Arc::clone(&topic), reason })),
        };
        self.channels.insert(record.id, Channel { topic, type_name, decoding });
        lost
    }
}

impl Source for McapSource {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        if let Some(item) = self.waiting.pop_front() {
            return Ok(Some(item));
        }
        loop {
            let result = match self.state {
                State::Ended => return Ok(None),
                State::TopLevel => self.top_level(),
                State::Chunk { .. } => self.in_chunk().map(|step| match step {
                    Step::Item(item) => Some(item),
                    _ => None,
                }),
            };
            match result {
                Ok(None) => {}
                Ok(item) => return Ok(item),
                Err(error) => {
                    self.state = State::Ended;
                    return Err(error);
                }
            }
        }
    }

    fn schema_paths(&self, topic: &str) -> Option<SchemaPaths> {
        self.channels.values().find(|c| &*c.topic == topic).and_then(|c| c.decoding.schema_paths())
    }
}
