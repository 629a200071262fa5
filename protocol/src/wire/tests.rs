use minicbor::Encoder;
use proptest::{collection::vec, prelude::*};

use super::{pull::MAX_HASHES, *};
use crate::{
    access::{Range, Selection},
    ids::{DatasetId, Did, Hash, LogId, LogKey, StreamId},
};

fn did() -> impl Strategy<Value = Did> {
    any::<[u8; 20]>().prop_map(Did::from_bytes)
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash::from_bytes)
}

fn dataset() -> impl Strategy<Value = DatasetId> {
    any::<[u8; 32]>().prop_map(DatasetId::from_bytes)
}

fn log() -> impl Strategy<Value = LogId> {
    any::<[u8; 32]>().prop_map(LogId::from_bytes)
}

fn blobs(longest: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..longest), 1..12)
}

fn sync_requests() -> impl Strategy<Value = SyncRequest> {
    prop_oneof![
        (did(), any::<u64>()).prop_map(|(did, from_serial)| SyncRequest::Bindings { did, from_serial }),
        (did(), log()).prop_map(|(did, from_log)| SyncRequest::Heads { did, from_log }),
        (did(), log(), any::<(u32, u64, u32)>()).prop_map(|(did, log, (incarnation, from, max))| {
            SyncRequest::Entries { log: LogKey { did, log, incarnation }, from, max }
        }),
        (did(), dataset()).prop_map(|(did, dataset)| SyncRequest::Dataset { did, dataset }),
        (did(), dataset(), any::<u32>()).prop_map(|(did, dataset, index)| SyncRequest::Inclusion {
            did,
            dataset,
            index
        }),
    ]
}

fn sync_responses() -> impl Strategy<Value = SyncResponse> {
    let bytes = || vec(any::<u8>(), 0..400);
    prop_oneof![
        (blobs(400), any::<bool>()).prop_map(|(bindings, more)| SyncResponse::Bindings { bindings, more }),
        (blobs(200), any::<bool>()).prop_map(|(heads, more)| SyncResponse::Heads { heads, more }),
        (blobs(400), any::<bool>()).prop_map(|(entries, more)| SyncResponse::Entries { entries, more }),
        bytes().prop_map(|entry| SyncResponse::Dataset { entry }),
        (bytes(), bytes(), bytes()).prop_map(|(entry, record, proof)| SyncResponse::Inclusion { entry, record, proof }),
        Just(SyncResponse::NotFound),
        any::<u32>().prop_map(|retry_ms| SyncResponse::Busy { retry_ms }),
    ]
}

fn access_messages() -> impl Strategy<Value = AccessMessage> {
    let selection = (dataset(), 1..=64usize).prop_map(|(id, count)| Selection::new(vec![Range::Dataset(id); count]));
    prop_oneof![
        (did(), did(), selection).prop_map(|(machine, buyer, selection)| AccessMessage::Quote {
            machine,
            buyer,
            selection: selection.expect("valid"),
        }),
        (vec(any::<u8>(), 0..900), vec(any::<u8>(), 0..900))
            .prop_map(|(quote, request)| AccessMessage::Request { quote, request }),
        (hash(), any::<u16>()).prop_map(|(request_id, from)| AccessMessage::Fetch { request_id, from }),
        (vec(any::<u8>(), 0..400), any::<u16>(), blobs(4000))
            .prop_map(|(deposit, first, grants)| AccessMessage::Deposit { deposit, first, grants }),
    ]
}

fn access_replies() -> impl Strategy<Value = AccessReply> {
    prop_oneof![
        vec(any::<u8>(), 0..900).prop_map(AccessReply::Quote),
        (blobs(4000), 0..100u16).prop_map(|(grants, from)| {
            let total = from + u16::try_from(grants.len()).expect("few") + 1;
            AccessReply::Granted { grants, from, total }
        }),
        hash().prop_map(|request_id| AccessReply::Pending { request_id }),
        "[^\\p{Cc}]{0,60}".prop_map(|reason| AccessReply::Denied { code: DenyCode::PaymentUsed, reason }),
        any::<u32>().prop_map(|retry_ms| AccessReply::Busy { retry_ms }),
        any::<u16>().prop_map(|count| AccessReply::Deposited { count }),
        vec(any::<u8>(), 0..400).prop_map(AccessReply::Statement),
    ]
}

fn feed_messages() -> impl Strategy<Value = FeedMessage> {
    prop_oneof![
        (vec(any::<u8>(), 0..900), proptest::option::of(vec(any::<u8>(), 0..900)))
            .prop_map(|(entry, attachment)| FeedMessage::Entry { entry, attachment }),
        vec(any::<u8>(), 0..=201).prop_map(FeedMessage::Head),
    ]
}

/// Round trip, no cut and no extended message.
macro_rules! survives {
    ($type:ident, $message:expr) => {{
        let bytes = $message.encode().expect("within the limits");
        prop_assert_eq!($type::decode(&bytes).expect("its own bytes"), $message);
        prop_assert!($type::decode(&bytes[..bytes.len() - 1]).is_err());
        prop_assert!($type::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }};
}

proptest! {
    #[test]
    fn sync_messages_survive_their_bytes(request in sync_requests(), response in sync_responses()) {
        survives!(SyncRequest, request);
        survives!(SyncResponse, response);
    }

    #[test]
    fn access_messages_survive_their_bytes(message in access_messages(), reply in access_replies()) {
        survives!(AccessMessage, message);
        survives!(AccessReply, reply);
    }

    #[test]
    fn feed_messages_survive_their_bytes(message in feed_messages()) {
        survives!(FeedMessage, message);
    }

    #[test]
    fn pull_requests_survive_their_bytes(hashes in vec(hash(), 1..200)) {
        let request = PullRequest { hashes };
        let frame = request.encode_frame().expect("within the limits");
        let (prefix, message) = frame.split_first_chunk().expect("a prefix");
        prop_assert_eq!(PullRequest::frame_len(*prefix).expect("within the limits"), message.len());
        prop_assert_eq!(PullRequest::decode(message).expect("its own bytes"), request);
        prop_assert!(PullRequest::decode(&message[..message.len() - 1]).is_err());
    }

    #[test]
    fn pull_headers_survive_their_bytes(hash in hash(), len in 1..=1_048_592u32, retry_ms: u32, status in 4u8..) {
        for status in [PullStatus::Found { len }, PullStatus::NotFound, PullStatus::Busy { retry_ms }, PullStatus::Gone] {
            let header = PullHeader { hash, status };
            prop_assert_eq!(PullHeader::decode(&header.encode()).expect("its own bytes"), header);
        }
        let mut bytes = PullHeader { hash, status: PullStatus::Found { len } }.encode();
        bytes[32] = status;
        prop_assert!(PullHeader::decode(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), number in 0..8u8, fields in 0..5u8) {
        let begun = [&[0x80 | fields, number], bytes.as_slice()].concat();
        for bytes in [bytes.as_slice(), &begun] {
            let _ = SyncRequest::decode(bytes);
            let _ = SyncResponse::decode(bytes);
            let _ = AccessMessage::decode(bytes);
            let _ = AccessReply::decode(bytes);
            let _ = FeedMessage::decode(bytes);
            let _ = PullRequest::decode(bytes);
        }
    }

    #[test]
    fn topics_name_one_log_in_one_spelling(did in did(), log in log()) {
        let stream = StreamId::from_bytes(log.to_bytes());
        prop_assert_eq!(parse_topic(&topic_stream(&did, &stream)), Some((did, log)));
        prop_assert_eq!(parse_topic(&topic_machine(&did)), Some((did, LogId::MACHINE)));
        prop_assert_eq!(parse_topic(&gossip::topic_log(&did, &LogId::MACHINE)), Some((did, LogId::MACHINE)));
        for wrong in ["", "/", "/tributary/feed/2/x"] {
            prop_assert_eq!(parse_topic(wrong), None);
        }
        prop_assert_eq!(parse_topic(&format!("{}/", topic_machine(&did))), None);
        prop_assert_eq!(parse_topic(&format!("{}/x", topic_stream(&did, &stream))), None);
        prop_assert_eq!(parse_topic(&topic_stream(&did, &StreamId::from_bytes([0; 32]))), None);
    }
}

/// A message with a list that promises `len` elements and holds none.
fn promise(number: u8, len: u64) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    encoder.array(3).and_then(|e| e.u8(number)).and_then(|e| e.array(len)).expect("memory");
    encoder.into_writer()
}

#[test]
fn a_promised_length_allocates_nothing() {
    for len in [1, 5000, 1 << 32, u64::MAX] {
        for number in 0..3 {
            assert!(matches!(
                SyncResponse::decode(&promise(number, len)),
                Err(WireError::TooMany { .. } | WireError::Cbor(_))
            ));
        }
        assert!(AccessReply::decode(&promise(1, len)).is_err());
        assert!(PullRequest::decode(&promise(0, len)).is_err());
    }
    // A byte string that promises more than there is.
    let mut bytes = vec![0x82, 0x00, 0x5b];
    bytes.extend_from_slice(&u64::MAX.to_be_bytes());
    assert!(matches!(AccessReply::decode(&bytes), Err(WireError::Value { .. } | WireError::Cbor(_))));
    assert!(matches!(FeedMessage::decode(&bytes), Err(WireError::Cbor(_))));
}

#[test]
fn lists_of_no_definite_length_and_deep_nesting_are_refused() {
    assert!(SyncRequest::decode(&[0x9f, 0x00, 0xff]).is_err());
    assert!(SyncRequest::decode(&[0x81; 4096]).is_err());
    assert!(SyncResponse::decode(&vec![0x81; 1 << 20]).is_err());
}

#[test]
fn too_large_is_refused_before_reading() {
    let too_large = |result: Result<(), WireError>| matches!(result, Err(WireError::TooLarge { .. }));
    assert!(too_large(SyncRequest::decode(&[0; sync::MAX_REQUEST + 1]).map(drop)));
    assert!(too_large(SyncResponse::decode(&vec![0; sync::MAX_RESPONSE + 1]).map(drop)));
    assert!(too_large(AccessMessage::decode(&vec![0; access::MAX_MESSAGE + 1]).map(drop)));
    assert!(too_large(AccessReply::decode(&vec![0; access::MAX_MESSAGE + 1]).map(drop)));
    assert!(too_large(FeedMessage::decode(&vec![0; gossip::MAX_MESSAGE + 1]).map(drop)));
    assert!(too_large(PullRequest::decode(&vec![0; pull::MAX_REQUEST + 1]).map(drop)));
    assert!(too_large(PullRequest::frame_len(u32::MAX.to_be_bytes()).map(drop)));
    let entries = vec![vec![0; 16 * 1024]; 64];
    assert!(too_large(SyncResponse::Entries { entries, more: true }.encode().map(drop)));
    let message = FeedMessage::Entry { entry: vec![0; 10], attachment: Some(vec![0; gossip::MAX_ATTACHMENT + 1]) };
    assert!(too_large(message.encode().map(drop)));
}

#[test]
fn the_largest_of_everything_fits() {
    let largest = FeedMessage::Entry { entry: vec![1; 16 * 1024], attachment: Some(vec![2; gossip::MAX_ATTACHMENT]) };
    assert_eq!(FeedMessage::decode(&largest.encode().expect("fits")).expect("fits"), largest);
    let request = PullRequest { hashes: vec![Hash::ZERO; MAX_HASHES] };
    assert!(request.encode_frame().expect("fits").len() <= pull::PREFIX_LEN + pull::MAX_REQUEST);
    assert!(PullRequest { hashes: vec![Hash::ZERO; MAX_HASHES + 1] }.encode_frame().is_err());
    assert!(PullRequest { hashes: vec![] }.encode_frame().is_err());
    let grants = vec![vec![0; crate::access::grant::MAX_GRANT_LEN]; access::MAX_GRANTS];
    assert!(AccessReply::Granted { grants, from: 0, total: 64 }.encode().is_ok());
    let item = crate::entry::MAX_ENTRY_LEN;
    let count = (sync::MAX_RESPONSE - sync::ENVELOPE) / (item + 5);
    assert!(SyncResponse::Entries { entries: vec![vec![0; item]; count], more: true }.encode().is_ok());
}

#[test]
fn a_reply_that_makes_a_reader_ask_for_ever_is_refused() {
    let nothing = SyncResponse::Entries { entries: vec![], more: true }.encode().expect("fits");
    assert!(matches!(SyncResponse::decode(&nothing), Err(WireError::Value { .. })));
    for (from, total) in [(0, 3), (9, 3), (0, u16::MAX)] {
        let stuck = AccessReply::Granted { grants: vec![], from, total }.encode().expect("fits");
        assert!(AccessReply::decode(&stuck).is_err(), "{from} of {total}");
    }
}
