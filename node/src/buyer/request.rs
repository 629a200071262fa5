//! Asking for access: quote, signed request, grants.
//!
//! Owns the buyer's half of `/tributary/access/1`. A request goes to nodes of the machine's newest binding only, and is kept
//! from before it is sent until its grants are in the wallet, so a restart fetches what was asked for instead of asking (or
//! paying) again.
//!
//! Table Follow, key `machine (20) || request id (32)`, value (version 1): `version (1) || quote length (u16) || quote ||
//! signed request`.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use rand::{Rng, rngs::ThreadRng};
use serde::Serialize;
use tributary_protocol::{
    access::{
        AccessRequest, DepositState, Grant, GrantError, Payment, Selection, SignedDeposit, SignedQuote, SignedRequest,
    },
    ids::{Did, Hash},
    wire::{AccessMessage, AccessReply, DenyCode},
};
use tributary_store::{Table, WriteBatch};

use super::{Buyer, error::AccessError, wallet::GrantInfo};
use crate::{
    feeds::{FeedsError, FollowError, backoff, blocking},
    net::Offence,
};

/// A request can be decided for this long.
const REQUEST_LIFE_MS: u64 = 24 * 60 * 60 * 1000;
/// First and longest wait between two questions whether a request is decided.
const POLL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Requests that wait for their grants, per machine, listed at a time.
const MAX_OPEN: usize = 256;
/// Mirrors that are asked for the grants of a request.
const MAX_MIRRORS: usize = 8;
const VERSION: u8 = 1;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum AccessOutcome {
    /// The keys are in the wallet.
    Granted {
        /// The request.
        request_id: Hash,
        /// What was granted.
        grants: Vec<GrantInfo>,
    },
    /// Not decided within the time given: [`Buyer::fetch_access`] asks again.
    Pending {
        /// The request.
        request_id: Hash,
    },
}

/// A request that was made and has no grants yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenRequest {
    /// The machine that was asked.
    pub machine: Did,
    /// Its id.
    pub request_id: Hash,
    /// What was quoted, smallest units.
    pub amount: String,
    /// The token.
    pub token: String,
    /// Until when it can be decided, ms since 1970.
    pub expires_ms: u64,
}

fn row_key(did: &Did, id: &Hash) -> Vec<u8> {
    [did.as_bytes().as_slice(), id.as_bytes()].concat()
}

fn encode_row(quote: &SignedQuote, request: &SignedRequest) -> Vec<u8> {
    let mut out = vec![VERSION];
    let len = u16::try_from(quote.bytes().len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(quote.bytes());
    out.extend_from_slice(&request.encode());
    out
}

fn decode_row(bytes: &[u8]) -> Result<(SignedQuote, SignedRequest), FeedsError> {
    let bad = |reason: String| FeedsError::Row { what: "access request", reason };
    let [VERSION, high, low, rest @ ..] = bytes else { return Err(bad("unknown version".into())) };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let (quote, request) = rest.split_at_checked(len).ok_or_else(|| bad("it is cut off".into()))?;
    let quote = SignedQuote::decode(quote).map_err(|error| bad(error.to_string()))?;
    let request = SignedRequest::decode(request).map_err(|error| bad(error.to_string()))?;
    Ok((quote, request))
}

impl Buyer {
    /// A connected node of the machine: nobody else learns what is asked for.
    async fn machine_node(&self, did: &Did) -> Result<PeerId, AccessError> {
        let handle = self.feeds().handle(did)?;
        let mut last = None;
        for peer in self.feeds().machine_peers(&handle).await? {
            match self.feeds().reach(&handle, peer).await {
                Ok(()) => return Ok(peer),
                Err(error) => last = Some(Box::new(error)),
            }
        }
        Err(AccessError::Unreachable { did: *did, source: last })
    }

    /// Sends an access message, again while the peer is busy.
    async fn say(&self, peer: PeerId, message: &AccessMessage) -> Result<AccessReply, AccessError> {
        let net = self.feeds().net()?;
        let bytes = message.encode().map_err(|source| FollowError::Malformed { peer, source: Box::new(source) })?;
        let mut waits = backoff();
        loop {
            let reply = net
                .access(peer, bytes.clone())
                .await
                .map_err(|source| FollowError::Request { peer, source: Box::new(source) })?;
            let reply = match AccessReply::decode(&reply) {
                Ok(reply) => reply,
                Err(source) => {
                    net.penalize(peer, Offence::Malformed).await.map_err(FollowError::from)?;
                    return Err(FollowError::Malformed { peer, source: Box::new(source) }.into());
                }
            };
            let AccessReply::Busy { retry_ms } = reply else { return Ok(reply) };
            let Some(wait) = waits.next() else { return Err(FollowError::Busy { peer }.into()) };
            tokio::time::sleep(wait.max(Duration::from_millis(retry_ms.into()).min(POLL.1))).await;
        }
    }

    /// Asks what a selection costs. The quote is checked: by the machine, for this buyer, for exactly this.
    ///
    /// # Errors
    ///
    /// See [`AccessError`].
    pub async fn quote(&self, did: &Did, selection: Selection) -> Result<SignedQuote, AccessError> {
        let peer = self.machine_node(did).await?;
        let message = AccessMessage::Quote { machine: *did, buyer: self.did(), selection: selection.clone() };
        let bytes = match self.say(peer, &message).await? {
            AccessReply::Quote(bytes) => bytes,
            AccessReply::Denied { code, reason } => return Err(AccessError::Denied { did: *did, code, reason }),
            _ => return Err(FollowError::Answer { peer, what: "it was asked for a quote" }.into()),
        };
        let bad = |source| AccessError::Quote { did: *did, source };
        let quote = SignedQuote::decode(&bytes).map_err(bad)?;
        let ours = i64::try_from(self.feeds().now()).unwrap_or(i64::MAX);
        let theirs = i64::try_from(quote.quote().issued_ms).unwrap_or(i64::MAX);
        // The key may have changed since we looked.
        if self.check_quote(did, &quote).await?.is_err() {
            self.feeds().fetch_bindings(&self.feeds().handle(did)?, peer).await?;
            self.check_quote(did, &quote).await?.map_err(bad)?;
        }
        if quote.quote().selection != selection {
            return Err(AccessError::OtherSelection(*did));
        }
        self.feeds().handle(did)?.clock_is(theirs.saturating_sub(ours));
        Ok(quote)
    }

    async fn check_quote(
        &self,
        did: &Did,
        quote: &SignedQuote,
    ) -> Result<Result<(), tributary_protocol::access::QuoteError>, AccessError> {
        let (handle, quote, buyer) = (self.feeds().handle(did)?, quote.clone(), self.did());
        // It has just come. Whether it is past its time is for the machine to say, when it is taken: by this node's clock, which may be
        // an hour off, it could be over before it was made.
        let now = quote.quote().issued_ms;
        Ok(blocking(move || {
            let feed = handle.feed();
            let chain = feed.follower().chain().ok_or(FeedsError::NotFollowed(handle.did))?;
            Ok::<_, FeedsError>(quote.verify(chain.current(), &buyer, now))
        })
        .await??)
    }

    /// Asks for access to a selection that costs nothing, and waits for the decision up to `timeout`.
    ///
    /// # Errors
    ///
    /// [`AccessError::Denied`] when the machine says no, [`AccessError::PaymentRequired`] when it costs something.
    pub async fn request_access(
        &self,
        did: &Did,
        selection: Selection,
        timeout: Duration,
    ) -> Result<AccessOutcome, AccessError> {
        let quote = self.quote(did, selection).await?;
        self.take_quote(&quote, None, timeout).await
    }

    /// Takes a quote, with the payment it asks for, and waits for the decision up to `timeout`. The payer must be this buyer.
    ///
    /// # Errors
    ///
    /// As [`Buyer::request_access`].
    pub async fn take_quote(
        &self,
        quote: &SignedQuote,
        payment: Option<Payment>,
        timeout: Duration,
    ) -> Result<AccessOutcome, AccessError> {
        let price = &quote.quote().price;
        if price.amount > 0 && payment.is_none() {
            return Err(AccessError::PaymentRequired {
                amount: price.amount,
                token: price.token.clone(),
                chain: price.chain.clone(),
                pay_to: price.pay_to.clone(),
            });
        }
        let did = quote.quote().machine;
        let mut nonce = [0; 32];
        ThreadRng::default().fill_bytes(&mut nonce);
        let request = AccessRequest {
            machine: did,
            quote_hash: quote.hash(),
            buyer: self.did(),
            buyer_enc: self.inner.encryption.public(),
            nonce,
            // By the machine's clock, which judges it.
            expires_ms: quote.quote().issued_ms.saturating_add(REQUEST_LIFE_MS),
            payment,
        };
        let request = SignedRequest::sign(request, &self.inner.identity)?;
        let (store, row, key) =
            (self.feeds().store().clone(), encode_row(quote, &request), row_key(&did, &request.id()));
        blocking(move || {
            let mut batch = WriteBatch::new();
            batch.put_row(Table::Follow, key, row);
            store.commit(batch)
        })
        .await??;
        let outcome = self.settle(quote, &request, true, timeout).await;
        if matches!(outcome, Ok(AccessOutcome::Granted { .. }) | Err(AccessError::Denied { .. })) {
            self.forget(&did, request.id()).await?;
        }
        outcome
    }

    /// Asks again for the grants of a request that was pending, also one made before a restart.
    ///
    /// # Errors
    ///
    /// As [`Buyer::request_access`].
    pub async fn fetch_access(
        &self,
        did: &Did,
        request_id: Hash,
        timeout: Duration,
    ) -> Result<AccessOutcome, AccessError> {
        let (store, key) = (self.feeds().store().clone(), row_key(did, &request_id));
        let row = blocking(move || store.row(Table::Follow, &key)).await??;
        let (quote, request) = decode_row(&row.ok_or(AccessError::UnknownRequest(request_id))?)?;
        let outcome = self.settle(&quote, &request, false, timeout).await;
        if matches!(outcome, Ok(AccessOutcome::Granted { .. }) | Err(AccessError::Denied { .. })) {
            self.forget(did, request_id).await?;
        }
        outcome
    }

    async fn forget(&self, did: &Did, id: Hash) -> Result<(), AccessError> {
        let (store, key) = (self.feeds().store().clone(), row_key(did, &id));
        blocking(move || {
            let mut batch = WriteBatch::new();
            batch.delete_row(Table::Follow, key);
            store.commit(batch)
        })
        .await??;
        Ok(())
    }

    /// The requests that wait for their grants, at most 256.
    ///
    /// # Errors
    ///
    /// What cannot be read.
    pub async fn open_requests(&self, did: &Did) -> Result<Vec<OpenRequest>, AccessError> {
        let (store, did) = (self.feeds().store().clone(), *did);
        Ok(blocking(move || {
            let rows = store.rows(Table::Follow, did.as_bytes(), Some(did.as_bytes()), MAX_OPEN)?;
            let requests = rows.iter().filter(|(key, _)| key.len() == Did::LEN + Hash::LEN);
            requests
                .map(|(_, row)| {
                    let (quote, request) = decode_row(row)?;
                    Ok(OpenRequest {
                        machine: did,
                        request_id: request.id(),
                        amount: quote.quote().price.amount.to_string(),
                        token: quote.quote().price.token.clone(),
                        expires_ms: request.request().expires_ms,
                    })
                })
                .collect::<Result<Vec<_>, FeedsError>>()
        })
        .await??)
    }

    /// Sends a request (or asks for it) until it is decided or the time is over.
    async fn settle(
        &self,
        quote: &SignedQuote,
        request: &SignedRequest,
        send: bool,
        timeout: Duration,
    ) -> Result<AccessOutcome, AccessError> {
        let (did, request_id, begun) = (request.request().machine, request.id(), Instant::now());
        let mut wait = POLL.0;
        let fetch = |from| AccessMessage::Fetch { request_id, from };
        let ask = || AccessMessage::Request { quote: quote.bytes().to_vec(), request: request.encode() };
        let (mut sent, mut message) = if send { (true, ask()) } else { (false, fetch(0)) };
        let mut collected: Vec<Grant> = Vec::new();
        loop {
            let peer = match (self.machine_node(&did).await, &message) {
                (Ok(peer), _) => peer,
                // What a request came to may have been left with others; a request itself goes to the machine alone.
                (Err(error @ AccessError::Unreachable { .. }), AccessMessage::Fetch { .. }) => {
                    return match self.fetch_from_mirrors(quote, request).await? {
                        Some(grants) => Ok(AccessOutcome::Granted { request_id, grants }),
                        None => Err(error),
                    };
                }
                (Err(error), _) => return Err(error),
            };
            match self.say(peer, &message).await? {
                AccessReply::Granted { grants, from, total } => {
                    if usize::from(from) != collected.len() {
                        return Err(FollowError::Answer { peer, what: "other grants than were asked for" }.into());
                    }
                    for bytes in &grants {
                        let bad = |source| AccessError::Grant { did, source };
                        collected.push(Grant::decode(bytes).map_err(bad)?);
                    }
                    if collected.len() >= usize::from(total) {
                        let grants = self.keep_grants(did, peer, collected, request_id, quote.terms_hash()).await?;
                        return Ok(AccessOutcome::Granted { request_id, grants });
                    }
                    message = fetch(u16::try_from(collected.len()).unwrap_or(u16::MAX));
                }
                AccessReply::Pending { request_id: found } if found == request_id => {
                    let left = timeout.saturating_sub(begun.elapsed());
                    if left.is_zero() {
                        return Ok(AccessOutcome::Pending { request_id });
                    }
                    tokio::time::sleep(wait.min(left)).await;
                    wait = (wait * 2).min(POLL.1);
                    message = fetch(0);
                    collected.clear();
                }
                // The connection broke before the request arrived: it is sent again, and is still the same request.
                AccessReply::Denied { code: DenyCode::NotFound, .. } if !sent => {
                    sent = true;
                    message = ask();
                }
                AccessReply::Denied { code, reason } => return Err(AccessError::Denied { did, code, reason }),
                _ => return Err(FollowError::Answer { peer, what: "it was asked for access" }.into()),
            }
        }
    }

    /// Fetches what the machine left with its mirrors about a request; `None` when nobody who can be reached has anything.
    async fn fetch_from_mirrors(
        &self,
        quote: &SignedQuote,
        request: &SignedRequest,
    ) -> Result<Option<Vec<GrantInfo>>, AccessError> {
        let (did, request_id) = (request.request().machine, request.id());
        let handle = self.feeds().handle(&did)?;
        for peer in self.feeds().others(&handle).await?.into_iter().take(MAX_MIRRORS) {
            if self.feeds().reach(&handle, peer).await.is_err() {
                continue;
            }
            match self.collect(peer, &did, request_id).await {
                Ok(grants) if grants.is_empty() => {}
                Ok(grants) => match self.keep_grants(did, peer, grants, request_id, quote.terms_hash()).await {
                    Ok(kept) => return Ok(Some(kept)),
                    Err(error) => tracing::debug!(%did, %peer, %error, "what a mirror has is of no use"),
                },
                Err(error @ AccessError::Denied { .. }) => return Err(error),
                Err(error) => tracing::debug!(%did, %peer, %error, "a mirror has nothing to give"),
            }
        }
        Ok(None)
    }

    /// All grants that a mirror has for a request. [`AccessError::Denied`] is the machine's own word, signed by it.
    async fn collect(&self, peer: PeerId, did: &Did, request_id: Hash) -> Result<Vec<Grant>, AccessError> {
        let mut collected: Vec<Grant> = Vec::new();
        loop {
            let from = u16::try_from(collected.len()).unwrap_or(u16::MAX);
            match self.say(peer, &AccessMessage::Fetch { request_id, from }).await? {
                AccessReply::Granted { grants, from: first, total } if first == from => {
                    for bytes in &grants {
                        let bad = |source| AccessError::Grant { did: *did, source };
                        collected.push(Grant::decode(bytes).map_err(bad)?);
                    }
                    if collected.len() >= usize::from(total) {
                        return Ok(collected);
                    }
                }
                AccessReply::Statement(bytes) => {
                    let (handle, now) = (self.feeds().handle(did)?, self.feeds().now());
                    let said = blocking(move || {
                        let signed = SignedDeposit::decode(&bytes).ok()?;
                        let feed = handle.feed();
                        let chain = feed.follower().chain()?;
                        signed.verify(chain.current(), now).ok()?;
                        (signed.deposit().request_id == request_id).then(|| signed.deposit().state.clone())
                    });
                    if let Some(DepositState::Denied { code, reason }) = said.await? {
                        return Err(AccessError::Denied { did: *did, code, reason });
                    }
                    return Err(FollowError::Answer { peer, what: "a statement that is not the machine's" }.into());
                }
                // A mirror's own no says nothing about the machine's answer.
                _ => return Ok(Vec::new()),
            }
        }
    }

    /// Checks grants and puts them into the wallet; fetches bindings first if they are signed under a newer one.
    async fn keep_grants(
        &self,
        did: Did,
        peer: PeerId,
        grants: Vec<Grant>,
        request_id: Hash,
        terms_hash: Hash,
    ) -> Result<Vec<GrantInfo>, AccessError> {
        let mut result = self.receive_grants(did, grants.clone(), request_id, terms_hash).await?;
        if matches!(result, Err(GrantError::OtherBinding { .. })) {
            self.feeds().fetch_bindings(&self.feeds().handle(&did)?, peer).await?;
            result = self.receive_grants(did, grants, request_id, terms_hash).await?;
        }
        if result.is_err() {
            self.feeds().net()?.penalize(peer, Offence::BadProof).await.map_err(FollowError::from)?;
        }
        result.map_err(|source| AccessError::Grant { did, source })
    }
}
