//! Fuzz targets for everything that reads bytes of others: one plain function for each decoder.
//!
//! A target takes any bytes and must return: it never panics, allocates without bound or runs for long, and it asserts what
//! holds for every input that is accepted (what was read is written and reads back as the same; signed layouts have one
//! encoding). The tests of this crate run every target over its corpus and over mutations of it, on the stable compiler;
//! `libfuzzer/` runs the same functions under libFuzzer. Nothing here is part of the node.

mod corpus;
mod delivery;
mod known;
mod mutate;
mod node;
mod peaq;
mod protocol;
mod split;
mod store;
mod wire;

pub use corpus::{Seed, seeds};
pub use mutate::Mutator;

/// What runs a target.
pub type Target = fn(&[u8]);

/// Hands the list of targets, `name: module, cost`, to another macro. The cost is how many times longer than the cheap ones
/// an execution takes, roughly.
#[macro_export]
macro_rules! for_each_target {
    ($then:ident) => {
        $then! {
            access_message: wire, 1;
            access_reply: wire, 1;
            binding: protocol, 1;
            cdr_builtin: node, 1;
            cdr_defined: node, 1;
            chunk: protocol, 1;
            chunk_record: protocol, 1;
            config: node, 4;
            cover: protocol, 1;
            data_package: protocol, 1;
            dataset_entry: protocol, 1;
            db3: node, 10;
            entry: protocol, 1;
            evidence: protocol, 1;
            export_mcap: node, 10;
            feed_link: node, 1;
            feed_message: wire, 1;
            follower: protocol, 4;
            grant: protocol, 1;
            head: protocol, 1;
            inclusion: protocol, 1;
            json: protocol, 1;
            mcap: node, 4;
            msgdef: node, 1;
            ndjson: node, 1;
            peaq_access_file: peaq, 1;
            peaq_agent: delivery, 1;
            peaq_connect: delivery, 1;
            peaq_envelope: peaq, 1;
            peaq_frames: delivery, 1;
            peaq_hex: peaq, 1;
            peaq_manifest: peaq, 1;
            peaq_receiver: delivery, 4;
            peaq_sealed_box: peaq, 1;
            plaintext: node, 1;
            pull: wire, 1;
            quote: protocol, 1;
            request: protocol, 1;
            selection: protocol, 1;
            store_frames: store, 40;
            store_segment: store, 40;
            sync_request: wire, 1;
            sync_response: wire, 1;
            texts: protocol, 1;
        }
    };
}

macro_rules! table {
    ($($name:ident: $module:ident, $cost:literal;)*) => {
        $(pub use $module::$name;)*

        /// Every target by name, in alphabetical order.
        pub const TARGETS: &[(&str, Target)] = &[$((stringify!($name), $name)),*];
    };
}

for_each_target!(table);

/// The input as text, for decoders of text.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// A directory for one execution, in memory where there is such a place: files are read, not kept.
fn scratch() -> tempfile::TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.expect("there is a directory for temporary files")
}
