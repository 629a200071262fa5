//! The messages of the network protocols.

use tributary_protocol::wire::{
    AccessMessage, AccessReply, FeedMessage, PullHeader, PullRequest, SyncRequest, SyncResponse, gossip, pull, sync,
};

use crate::protocol::{self, round_trip};

/// `/tributary/sync/1`, request.
pub fn sync_request(data: &[u8]) {
    if round_trip(data, SyncRequest::decode, SyncRequest::encode).is_some() {
        assert!(data.len() <= sync::MAX_REQUEST);
    }
}

/// `/tributary/sync/1`, response, with the signed objects in it.
pub fn sync_response(data: &[u8]) {
    match round_trip(data, SyncResponse::decode, SyncResponse::encode) {
        Some(SyncResponse::Bindings { bindings, .. }) => bindings.iter().for_each(|bytes| protocol::binding(bytes)),
        Some(SyncResponse::Heads { heads, .. }) => heads.iter().for_each(|bytes| protocol::head(bytes)),
        Some(SyncResponse::Entries { entries, .. }) => entries.iter().for_each(|bytes| protocol::entry(bytes)),
        Some(SyncResponse::Dataset { entry }) => protocol::entry(&entry),
        Some(SyncResponse::Inclusion { entry, record, proof }) => {
            protocol::entry(&entry);
            protocol::chunk_record(&record);
            assert!(proof.len() <= 32 * 32);
        }
        Some(SyncResponse::NotFound | SyncResponse::Busy { .. }) | None => {}
    }
}

/// `/tributary/access/1`, from the buyer.
pub fn access_message(data: &[u8]) {
    match round_trip(data, AccessMessage::decode, AccessMessage::encode) {
        Some(AccessMessage::Request { quote, request }) => {
            protocol::quote(&quote);
            protocol::request(&request);
        }
        Some(AccessMessage::Deposit { deposit, grants, .. }) => {
            protocol::deposit(&deposit);
            grants.iter().for_each(|bytes| protocol::grant(bytes));
        }
        _ => {}
    }
}

/// `/tributary/access/1`, from the machine.
pub fn access_reply(data: &[u8]) {
    match round_trip(data, AccessReply::decode, AccessReply::encode) {
        Some(AccessReply::Quote(quote)) => protocol::quote(&quote),
        Some(AccessReply::Granted { grants, .. }) => grants.iter().for_each(|bytes| protocol::grant(bytes)),
        Some(AccessReply::Statement(deposit)) => protocol::deposit(&deposit),
        _ => {}
    }
}

/// `/tributary/pull/1`: a request behind its length, and the header of an answer.
pub fn pull(data: &[u8]) {
    if let Some((prefix, message)) = data.split_first_chunk::<{ pull::PREFIX_LEN }>()
        && let Ok(len) = PullRequest::frame_len(*prefix)
    {
        assert!(len <= pull::MAX_REQUEST);
        if let Ok(request) = PullRequest::decode(message) {
            assert!((1..=pull::MAX_HASHES).contains(&request.hashes.len()));
            let frame = request.encode_frame().expect("what was read can be written");
            assert_eq!(PullRequest::decode(&frame[pull::PREFIX_LEN..]).expect("its own bytes"), request);
        }
    }
    if let Ok(bytes) = data.try_into()
        && let Ok(header) = PullHeader::decode(bytes)
    {
        assert!(PullHeader::decode(&header.encode()).is_ok_and(|again| again == header));
    }
}

/// A gossip message, with the signed object in it.
pub fn feed_message(data: &[u8]) {
    match round_trip(data, FeedMessage::decode, FeedMessage::encode) {
        Some(FeedMessage::Entry { entry, attachment }) => {
            assert!(attachment.is_none_or(|bytes| bytes.len() <= gossip::MAX_ATTACHMENT));
            protocol::entry(&entry);
        }
        Some(FeedMessage::Head(head)) => protocol::head(&head),
        None => {}
    }
}
