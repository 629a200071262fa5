//! Opening a machine: is it still the one that published, and where does it go on?

use std::{
    cmp::Ordering,
    sync::{Arc, Mutex, PoisonError},
};

use tributary_protocol::{
    binding::BindingChain,
    entry::{self, EntryBody, StreamInfo},
    ids::{LogId, LogKey, StreamId},
    keys::EncryptionPublicKey,
    record::{Content, ContentEncoding},
};
use tributary_store::{Table, WriteBatch};

use super::{
    Displaced, Keys, Kind, LaneError, Machine, MachineError, MachineOptions, OriginError, OwnBindingError, SourceStats,
    Stream, bindings,
    epochs::{Epochs, stream_log},
    lane::{self, Lane, LaneParts, committer::Committer, packer::Packer, sealer::Sealer, stats::LaneStats},
    log_writer::LogWriter,
    machine_log::MachineLog,
    numbers::Numbers,
    origin::Origin,
    proposals, publish, rules_of,
    seeds::Seeds,
    selection,
    streams::{Streams, known_streams},
};
use crate::{
    config::{Compression, Mode, Policy, StreamConfig},
    home::MachineKeys,
    proposal::Change,
};

impl Machine {
    /// Opens the machine: its first binding is made here, datasets that a crash left open are closed, new streams are announced.
    ///
    /// # Errors
    ///
    /// Names what is wrong and what to run. Nothing is published then.
    pub fn open(options: MachineOptions<'_>) -> Result<Self, MachineError> {
        let MachineOptions { home, keys: home_keys, store, streams, forget_epochs, announcer, clock } = options;
        let owner = home.owner()?;
        let keys = Arc::new(keys_of(home_keys, owner.encryption));
        let key_dir = home.keys_dir();
        let origin = Origin::open(home.path(), &key_dir, !store.logs(Some(&keys.did))?.is_empty())?;
        let chain = match bindings::load(&store, &keys.did)? {
            Some((chain, _)) => chain,
            None => {
                let terms = bindings::Terms {
                    owner: owner.address,
                    owner_enc: owner.encryption,
                    node_key: node_key(home_keys),
                };
                let first = bindings::first(&keys, &terms, clock())?;
                let mut batch = WriteBatch::new();
                bindings::put(&mut batch, &first);
                store.commit(batch)?;
                BindingChain::new(&first).map_err(OwnBindingError::from)?
            }
        };
        let binding = chain.current();
        let (incarnation, serial) = (binding.incarnation, binding.serial);
        let key_of = |log| LogKey { did: keys.did, log, incarnation };
        // A binding of a later incarnation than the home has settled in was made for this home as it is now.
        let displaced = match incarnation.cmp(&origin.incarnation()) {
            Ordering::Less => Some(Displaced::Restored),
            Ordering::Equal => origin.displaced(&key_dir, &store, key_of)?,
            Ordering::Greater => None,
        };
        if let Some(reason) = displaced {
            return Err(MachineError::Displaced { reason, incarnation });
        }
        if binding.feed_key != keys.feed.public() {
            return Err(MachineError::FeedKey { serial });
        }
        if let Some(waiting) = proposals::waiting(home, binding)?
            && waiting.change() != Change::Renew
        {
            return Err(MachineError::Waiting { change: waiting.change(), serial: serial + 1 });
        }
        let before = chain.origin(&LogId::MACHINE, incarnation);
        let log = MachineLog::recover(store.clone(), Arc::clone(&keys), incarnation, before, Arc::clone(&announcer))?;
        let seeds = Arc::new(Seeds::open(store.clone(), home, Arc::clone(&keys))?);
        let machine = Self {
            store,
            seeds,
            forget_epochs,
            keys,
            log: Arc::new(log),
            announcer,
            clock,
            origin: Mutex::new(origin),
            displaced: Mutex::new(None),
            home: home.clone(),
            node_key: node_key(home_keys),
            binding: Mutex::new(binding.clone()),
            plaintext_hashes: Arc::default(),
            streams: Streams::new(streams),
        };
        machine.settle(incarnation)?;
        machine.write_bindings()?;
        machine.close_left_open()?;
        for config in known_streams(&machine.store, streams)? {
            let stream = machine.start_stream(config, &chain)?;
            machine.streams.push(stream);
        }
        machine.forget_ended_epochs()?;
        Ok(machine)
    }

    /// A new incarnation makes this place the home's own.
    fn settle(&self, incarnation: u32) -> Result<(), MachineError> {
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        if origin.incarnation() == incarnation {
            // Made anew with every start, so that a copy from before it can be told from what was there then. A full disk
            // costs only that: the record that is there stays good.
            match origin.save() {
                Err(OriginError::Io { source, path }) if source.kind() == std::io::ErrorKind::StorageFull => {
                    tracing::warn!(path = %path.display(), "the disk is full; the origin record stays as it is");
                }
                saved => saved?,
            }
        } else {
            origin.settle(&self.home.keys_dir(), &self.store, incarnation)?;
        }
        Ok(())
    }

    /// Bindings stand in the machine log too, so that a follower meets them where they begin to count.
    fn write_bindings(&self) -> Result<(), MachineError> {
        let Some((_, all)) = bindings::load(&self.store, &self.keys.did)? else { return Ok(()) };
        let name = bindings_written(self.incarnation());
        // The counter is the serial after the last one written; 0 means none.
        let written = self.store.counter(&name)?;
        for signed in all {
            let binding = signed.binding();
            if binding.incarnation != self.incarnation() || binding.serial < written {
                continue;
            }
            let mut batch = WriteBatch::new();
            batch.set_counter(name.as_str(), binding.serial + 1);
            self.log.append((self.clock)(), EntryBody::Binding(signed), batch)?;
        }
        Ok(())
    }

    /// Closes the datasets that a crash left open, in every log of this incarnation, whatever the configuration says now.
    fn close_left_open(&self) -> Result<(), MachineError> {
        for log in self.store.logs(Some(&self.keys.did))? {
            if log.incarnation != self.incarnation() || log.log == LogId::MACHINE {
                continue;
            }
            let Some(newest) = selection::newest_record(&self.store, &log)? else { continue };
            if self.store.row(Table::Dataset, newest.dataset.as_bytes())?.is_some() {
                continue;
            }
            let open = publish::reopen(&self.store, &log, &newest)?;
            if let Some(open) = open {
                let close = || lane::close(&self.log, &open, (self.clock)());
                close().map_err(|source| MachineError::Lane { stream: log.log.to_string(), source })?;
            }
        }
        Ok(())
    }

    pub(super) fn start_stream(&self, config: StreamConfig, chain: &BindingChain) -> Result<Stream, MachineError> {
        let id = StreamId::of(&self.keys.did, config.name());
        self.announce_stream(&config, id)?;
        let log = stream_log(&self.keys, id, self.incarnation());
        let before = chain.origin(&log.log, self.incarnation());
        let writer = LogWriter::recover(&self.store, log, Arc::clone(&self.keys.feed), before)?;
        let newest = selection::newest_record(&self.store, &log)?;
        let failed = |source: LaneError| MachineError::Lane { stream: config.name().to_owned(), source };
        let epochs = Epochs::recover(
            Arc::clone(&self.seeds),
            Arc::clone(&self.keys),
            Arc::clone(&self.log),
            id,
            newest.as_ref(),
            self.forget_epochs,
        )
        .map_err(|error| failed(error.into()))?;
        let content = if config.mode == Mode::File { Content::File } else { Content::Packages };
        let encoding = ContentEncoding { content, zstd: config.compression == Compression::Zstd };
        let hashes = Arc::clone(&self.plaintext_hashes);
        let sealer = Sealer::new(id, Arc::clone(&self.keys.feed), writer, epochs, encoding, hashes);
        let stats = Arc::new(LaneStats::default());
        let committer = Committer::new(self.store.clone(), Arc::clone(&self.announcer), Arc::clone(&stats));
        let kind = if config.mode == Mode::File {
            let stream = publish::FileStream::new(sealer, committer, Arc::clone(&stats), config.chunk.bytes);
            Kind::Files(Box::new(Mutex::new(stream)), stats)
        } else {
            let rules = rules_of(&config)?;
            let packer = Packer::new(Arc::clone(&self.keys.identity), rules, config.name());
            let numbers = Numbers::open(self.store.clone(), id, self.incarnation(), config.queue.messages)
                .map_err(|e| failed(e.into()))?;
            let parts = LaneParts {
                stream: id,
                packer,
                sealer,
                committer,
                machine_log: Arc::clone(&self.log),
                stats,
                clock: Arc::clone(&self.clock),
                chunk: config.chunk,
                close_after: config.close_after,
            };
            Kind::Messages(Box::new(Lane::start(parts, numbers, config.queue).map_err(failed)?))
        };
        Ok(Stream { config: Arc::new(config), id, kind, source: SourceStats::default() })
    }

    /// Writes what the stream is into the machine log, when that is news.
    fn announce_stream(&self, config: &StreamConfig, id: StreamId) -> Result<(), MachineError> {
        let info = StreamInfo {
            stream: id,
            name: config.name().to_owned(),
            message_type: config.message_type.clone().unwrap_or_default(),
            mode: match config.mode {
                Mode::Fields { .. } => entry::Mode::Fields,
                Mode::Raw => entry::Mode::Raw,
                Mode::File => entry::Mode::File,
            },
            policy: match config.access.policy {
                Policy::Free => entry::Policy::Free,
                Policy::Allowlist(_) => entry::Policy::Allowlist,
                Policy::Manual => entry::Policy::Manual,
            },
            price: String::new(),
            chunk_target: config.chunk.bytes,
        };
        let key = format!("stream/{}/{id}", self.incarnation()).into_bytes();
        let value = format!("{info:?}").into_bytes();
        if self.store.row(Table::Meta, &key)?.as_deref() == Some(&value) {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Meta, key, value);
        self.log.append((self.clock)(), EntryBody::Stream(info), batch)?;
        Ok(())
    }
}

pub(super) fn keys_of(home: &MachineKeys, owner: EncryptionPublicKey) -> Keys {
    Keys {
        did: home.identity.did(),
        identity: Arc::clone(&home.identity),
        feed: Arc::clone(&home.feed),
        encryption: Arc::clone(&home.encryption),
        owner,
    }
}

/// The Ed25519 key behind the node's PeerId.
pub(super) fn node_key(home: &MachineKeys) -> [u8; 32] {
    home.node.public().try_into_ed25519().map(|key| key.to_bytes()).unwrap_or_default()
}

/// The counter of the bindings that stand in the machine log of an incarnation: the serial after the last one.
pub(super) fn bindings_written(incarnation: u32) -> String {
    format!("binding/{incarnation}")
}
