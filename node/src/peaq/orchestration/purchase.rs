//! A purchase, and what may happen to it. Pure: no clock, no store, no network.
//!
//! ```text
//! delivery_reserving -> delivery_reserved -> payment_pending -> payment_verified -> delivery_released -> active -> completed
//!      (operator)            |                    (proof)             ^                    |               |
//!                            '------ costs nothing -------------------'<---- failed delivery, handoff over -'
//! ```
//!
//! `cancelled` ends a purchase that nobody paid, `failed` one that was paid and will not be delivered. What is asked for again
//! changes nothing and gives the same answer.

use serde::{Deserialize, Serialize};
use tributary_protocol::ids::DatasetId;

use super::reference::Reference;

/// Version of the stored form.
const VERSION: u32 = 1;
/// Handoffs of one purchase. A buyer whose connection breaks gets the next one; nobody is served for ever.
const MAX_HANDOFFS: u32 = 32;
/// An order that nobody paid, or that costs nothing and nobody fetched, is cancelled after this, ms.
const UNPAID_MS: u64 = 24 * 60 * 60 * 1000;
/// A proof, or an order, waits for the operator so long, ms.
const WAITS_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// A purchase that was paid and is over is remembered so long, ms. Its payment reference is never forgotten.
const PAID_KEPT_MS: u64 = 90 * 24 * 60 * 60 * 1000;
/// The same where no money was taken, ms.
const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How far a purchase is. The names are peaq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// It waits for the operator, who decides whether this buyer may buy.
    DeliveryReserving,
    /// It can be paid.
    DeliveryReserved,
    /// The buyer is about to pay, or a proof waits for the operator.
    PaymentPending,
    /// It is paid.
    PaymentVerified,
    /// The buyer was told where to fetch it.
    DeliveryReleased,
    /// The buyer is fetching it.
    Active,
    /// The buyer says that it has everything.
    Completed,
    /// It ended unpaid.
    Cancelled,
    /// It was paid and will not be delivered.
    Failed,
}

/// How far the delivery is. The names are peaq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeliveryStatus {
    /// Nothing is prepared.
    Requested,
    /// A handoff is ready.
    Ready,
    /// Chunks are on their way.
    Active,
    /// Everything has arrived.
    Completed,
    /// The last attempt failed.
    Failed,
}

/// Where the chunks come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Goods {
    /// The first chunks of a dataset of this machine, delivered by this node.
    Dataset {
        /// Which.
        dataset: DatasetId,
        /// Its stream's public name.
        stream: String,
        /// How many chunks, from 0 on.
        chunks: u32,
        /// Whether the buyer named them one by one.
        named: bool,
    },
    /// Chunks that a seller with peaq's SDK delivers.
    Foreign {
        /// Those that the buyer named; empty is all.
        chunk_ids: Vec<String>,
    },
}

/// A transport that a buyer can use, as it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capability {
    /// Its name.
    pub transport_id: String,
    /// Its version.
    pub version: String,
    /// What it can.
    #[serde(default)]
    pub features: Vec<String>,
    /// Its protocols.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// Its encoding.
    #[serde(default)]
    pub encoding: String,
}

/// Who buys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buyer {
    /// What it calls itself.
    pub id: String,
    /// Its X25519 key, as it spelt it.
    pub public_key_hex: String,
    /// Its machine at peaq, if it named one.
    pub machine_id: Option<String>,
    /// What it can use.
    pub capabilities: Vec<Capability>,
}

/// What an order costs, as it stood when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Decimal number.
    pub amount: String,
    /// The token.
    pub token: String,
    /// The chain.
    pub chain: String,
    /// Whom to pay.
    pub pay_to: String,
    /// The token's contract.
    pub token_address: Option<String>,
}

/// A payment that the buyer claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What it is known by.
    pub reference: Reference,
    /// Who says to have paid.
    pub payer: Option<String>,
    /// When it came, ms since 1970.
    pub recorded_ms: u64,
}

/// A purchase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    version: u32,
    /// Its id. Nobody can guess it.
    pub id: String,
    /// Whose token it was made with; only that one sees it.
    pub account: String,
    /// The listing.
    pub listing: String,
    /// What is bought.
    pub goods: Goods,
    /// Who buys.
    pub buyer: Buyer,
    /// What it costs; `None` is nothing.
    pub price: Option<Price>,
    /// How far it is.
    pub status: Status,
    /// The payment that was claimed last.
    pub proof: Option<Proof>,
    /// Who pays, as the buyer announced.
    pub payer: Option<String>,
    /// When it was paid, ms since 1970; for what costs nothing, when that was decided.
    pub verified_ms: Option<u64>,
    /// How far the delivery is.
    pub delivery: DeliveryStatus,
    /// The newest delivery session.
    pub session_id: Option<String>,
    /// Handoffs so far.
    pub handoffs: u32,
    /// Why it ended, where it ended early.
    pub reason: Option<String>,
    /// When it was made, ms since 1970.
    pub created_ms: u64,
    /// When it last changed, ms since 1970.
    pub updated_ms: u64,
}

/// What a new purchase is made of.
pub struct Order {
    /// Its id.
    pub id: String,
    /// Whose token it is made with.
    pub account: String,
    /// The listing.
    pub listing: String,
    /// What is bought.
    pub goods: Goods,
    /// Who buys.
    pub buyer: Buyer,
    /// What it costs.
    pub price: Option<Price>,
    /// Whether the operator decides first.
    pub waits: bool,
}

/// What cannot happen to a purchase as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The operator has not decided.
    #[error("the machine's operator has not accepted this order yet; ask again later")]
    NotAccepted,
    /// It is over.
    #[error("the purchase is over: {0}")]
    Over(String),
    /// Another proof waits.
    #[error(
        "another payment proof of this purchase waits for a decision; send that one again, or ask the seller to reject it"
    )]
    ProofWaits,
    /// It is paid already.
    #[error("the purchase is paid already, with another payment")]
    Paid,
    /// It is not paid.
    #[error("the purchase is not paid; send a payment proof first")]
    NotPaid,
    /// There is nothing to decide.
    #[error("the order waits for nothing that an operator could decide: {0}")]
    NothingWaits(String),
    /// It was handed over too often.
    #[error("the purchase was handed over {MAX_HANDOFFS} times; make a new order")]
    TooManyHandoffs,
}

/// What somebody reports about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Chunks are on their way.
    Started,
    /// The buyer has everything.
    Received,
    /// It broke off.
    Failed,
}

impl Purchase {
    /// A new purchase.
    #[must_use]
    pub fn new(order: Order, now_ms: u64) -> Self {
        let Order { id, account, listing, goods, buyer, price, waits } = order;
        let mut purchase = Self {
            version: VERSION,
            id,
            account,
            listing,
            goods,
            buyer,
            price,
            status: Status::DeliveryReserving,
            proof: None,
            payer: None,
            verified_ms: None,
            delivery: DeliveryStatus::Requested,
            session_id: None,
            handoffs: 0,
            reason: None,
            created_ms: now_ms,
            updated_ms: now_ms,
        };
        if !waits {
            purchase.accept(now_ms);
        }
        purchase
    }

    /// Whether this program can read the stored form.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.version == VERSION
    }

    fn to(&mut self, status: Status, now_ms: u64) {
        self.status = status;
        self.updated_ms = now_ms;
    }

    fn accept(&mut self, now_ms: u64) {
        if self.price.is_some() {
            self.to(Status::DeliveryReserved, now_ms);
        } else {
            self.verified_ms = Some(now_ms);
            self.to(Status::PaymentVerified, now_ms);
        }
    }

    fn over(&self) -> Refused {
        let why = self.reason.as_deref().unwrap_or("it was delivered");
        Refused::Over(why.to_owned())
    }

    /// Whether nothing can happen to it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status, Status::Completed | Status::Cancelled | Status::Failed)
    }

    /// Whether it was paid, or costs nothing and was accepted.
    #[must_use]
    pub fn is_paid(&self) -> bool {
        self.verified_ms.is_some()
    }

    /// Whether money was taken for it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_paid() && self.price.is_some()
    }

    /// Whether the operator has to decide: about the order, or about the payment.
    #[must_use]
    pub fn waits_for_operator(&self) -> bool {
        match self.status {
            Status::DeliveryReserving => true,
            Status::PaymentPending => self.proof.is_some(),
            _ => false,
        }
    }

    /// The buyer is about to pay. Returns whether that is news.
    ///
    /// # Errors
    ///
    /// When it cannot be paid now.
    pub fn intend(&mut self, payer: Option<String>, now_ms: u64) -> Result<bool, Refused> {
        match self.status {
            Status::DeliveryReserving => Err(Refused::NotAccepted),
            Status::Cancelled | Status::Failed => Err(self.over()),
            // Nothing is to be paid, so it is as good as intended.
            _ if self.price.is_none() => Ok(false),
            Status::DeliveryReserved | Status::PaymentPending => {
                let news = self.status == Status::DeliveryReserved || self.payer != payer;
                self.payer = payer;
                self.to(Status::PaymentPending, now_ms);
                Ok(news)
            }
            _ => Err(Refused::Paid),
        }
    }

    /// The buyer claims a payment. Returns whether that is news: the same claim again is none.
    ///
    /// # Errors
    ///
    /// When another payment stands in its way, or the purchase cannot be paid.
    pub fn claim(&mut self, proof: Proof) -> Result<bool, Refused> {
        if matches!(self.status, Status::Cancelled | Status::Failed) {
            return Err(self.over());
        }
        if self.status == Status::DeliveryReserving {
            return Err(Refused::NotAccepted);
        }
        if self.price.is_none() {
            return Ok(false);
        }
        match &self.proof {
            Some(held) if held.reference == proof.reference => Ok(false),
            Some(_) if self.is_paid() => Err(Refused::Paid),
            Some(_) => Err(Refused::ProofWaits),
            None => {
                self.to(Status::PaymentPending, proof.recorded_ms);
                self.proof = Some(proof);
                Ok(true)
            }
        }
    }

    /// The claimed payment is good. The caller consumes its reference in the same batch.
    ///
    /// # Errors
    ///
    /// When there is no claim to decide about.
    pub fn settle(&mut self, now_ms: u64) -> Result<&Reference, Refused> {
        match (&self.proof, self.status) {
            (Some(_), Status::PaymentPending) => {
                self.verified_ms = Some(now_ms);
                self.to(Status::PaymentVerified, now_ms);
            }
            _ => return Err(self.nothing_waits()),
        }
        self.proof.as_ref().map(|proof| &proof.reference).ok_or(Refused::NotPaid)
    }

    /// The operator accepts an order that waits for that.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn accept_order(&mut self, now_ms: u64) -> Result<(), Refused> {
        if self.status != Status::DeliveryReserving {
            return Err(self.nothing_waits());
        }
        self.accept(now_ms);
        Ok(())
    }

    fn nothing_waits(&self) -> Refused {
        Refused::NothingWaits(match (self.status, &self.reason) {
            (Status::DeliveryReserved | Status::PaymentPending, _) => "the buyer has sent no payment proof".to_owned(),
            (_, Some(reason)) => reason.clone(),
            (Status::Completed, None) => "it was delivered".to_owned(),
            _ => "it is paid, and the buyer can fetch it".to_owned(),
        })
    }

    /// Ends it: it is cancelled, or has failed where money was taken.
    ///
    /// # Errors
    ///
    /// When it is over already.
    pub fn end(&mut self, reason: &str, now_ms: u64) -> Result<(), Refused> {
        if self.is_over() {
            return Err(self.over());
        }
        self.reason = Some(reason.to_owned());
        self.to(if self.is_settled() { Status::Failed } else { Status::Cancelled }, now_ms);
        Ok(())
    }

    /// Whether a handoff may be made.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check_release(&self) -> Result<(), Refused> {
        match self.status {
            Status::DeliveryReserving => Err(Refused::NotAccepted),
            Status::DeliveryReserved | Status::PaymentPending => Err(Refused::NotPaid),
            Status::Completed | Status::Cancelled | Status::Failed => Err(self.over()),
            _ if self.handoffs >= MAX_HANDOFFS => Err(Refused::TooManyHandoffs),
            _ => Ok(()),
        }
    }

    /// A handoff is made; one that was made before counts no more.
    ///
    /// # Errors
    ///
    /// As [`Purchase::check_release`].
    pub fn release(&mut self, session_id: &str, now_ms: u64) -> Result<(), Refused> {
        self.check_release()?;
        self.session_id = Some(session_id.to_owned());
        self.handoffs += 1;
        self.delivery = DeliveryStatus::Ready;
        self.to(Status::DeliveryReleased, now_ms);
        Ok(())
    }

    /// Somebody reports how the delivery goes. Returns whether that changes anything; what comes too late does not.
    pub fn report(&mut self, report: Report, now_ms: u64) -> bool {
        let under_way = matches!(self.status, Status::DeliveryReleased | Status::Active);
        match report {
            Report::Started if self.status == Status::DeliveryReleased => {
                self.delivery = DeliveryStatus::Active;
                self.to(Status::Active, now_ms);
            }
            Report::Received if under_way => {
                self.delivery = DeliveryStatus::Completed;
                self.to(Status::Completed, now_ms);
            }
            // It stays paid: the next handoff can be made.
            Report::Failed if under_way => {
                self.delivery = DeliveryStatus::Failed;
                self.to(Status::PaymentVerified, now_ms);
            }
            _ => return false,
        }
        true
    }

    /// Whether it has waited too long, and for what.
    #[must_use]
    pub fn overdue(&self, now_ms: u64) -> Option<&'static str> {
        let since = now_ms.saturating_sub(self.updated_ms);
        match self.status {
            Status::DeliveryReserving if since >= WAITS_MS => Some("the seller did not decide in time"),
            Status::PaymentPending if self.proof.is_some() => {
                (since >= WAITS_MS).then_some("the seller did not decide about the payment in time")
            }
            Status::DeliveryReserved | Status::PaymentPending if since >= UNPAID_MS => Some("it was not paid in time"),
            Status::PaymentVerified | Status::DeliveryReleased | Status::Active
                if self.price.is_none() && since >= UNPAID_MS =>
            {
                Some("it was not fetched in time")
            }
            _ => None,
        }
    }

    /// Whether it can be forgotten.
    #[must_use]
    pub fn is_old(&self, now_ms: u64) -> bool {
        let kept = if self.is_settled() { PAID_KEPT_MS } else { KEPT_MS };
        self.is_over() && now_ms.saturating_sub(self.updated_ms) >= kept
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn price() -> Price {
        Price {
            amount: "1.5".to_owned(),
            token: "USDC".to_owned(),
            chain: "peaq".to_owned(),
            pay_to: "0xabc".to_owned(),
            token_address: None,
        }
    }

    pub(in super::super) fn order(id: &str, price: Option<Price>, waits: bool) -> Order {
        Order {
            id: id.to_owned(),
            account: "a".to_owned(),
            listing: "l".to_owned(),
            goods: Goods::Foreign { chunk_ids: Vec::new() },
            buyer: Buyer {
                id: "b".to_owned(),
                public_key_hex: "00".to_owned(),
                machine_id: None,
                capabilities: Vec::new(),
            },
            price,
            waits,
        }
    }

    fn proof(text: &str) -> Proof {
        Proof { reference: Reference::new("peaq", text).unwrap(), payer: None, recorded_ms: 1 }
    }

    #[test]
    fn the_usual_way_from_order_to_delivery() {
        let mut purchase = Purchase::new(order("p", Some(price()), false), 0);
        assert_eq!(purchase.status, Status::DeliveryReserved);
        assert_eq!(purchase.check_release(), Err(Refused::NotPaid));
        assert_eq!(purchase.intend(None, 1), Ok(true));
        assert_eq!(purchase.intend(None, 1), Ok(false));
        assert_eq!(purchase.settle(2).err(), Some(purchase.nothing_waits()));
        assert_eq!(purchase.claim(proof("aa")), Ok(true));
        assert!(purchase.waits_for_operator());
        assert_eq!(purchase.check_release(), Err(Refused::NotPaid));
        assert!(purchase.settle(2).is_ok());
        assert_eq!(purchase.status, Status::PaymentVerified);
        purchase.release("s", 3).unwrap();
        assert!(purchase.report(Report::Started, 4));
        assert!(!purchase.report(Report::Started, 4));
        assert_eq!(purchase.status, Status::Active);
        assert!(purchase.report(Report::Received, 5));
        assert_eq!((purchase.status, purchase.delivery), (Status::Completed, DeliveryStatus::Completed));
        assert!(!purchase.report(Report::Failed, 6), "what was received cannot fail any more");
        assert!(matches!(purchase.check_release(), Err(Refused::Over(_))));
    }

    #[test]
    fn what_costs_nothing_is_paid_when_it_is_accepted() {
        let mut purchase = Purchase::new(order("p", None, true), 0);
        assert_eq!(purchase.intend(None, 0), Err(Refused::NotAccepted));
        assert_eq!(purchase.claim(proof("aa")), Err(Refused::NotAccepted));
        purchase.accept_order(1).unwrap();
        assert_eq!(purchase.status, Status::PaymentVerified);
        assert_eq!((purchase.intend(None, 2), purchase.claim(proof("aa"))), (Ok(false), Ok(false)));
        assert!(purchase.proof.is_none());
    }

    #[test]
    fn one_payment_at_a_time_and_never_a_second() {
        let mut purchase = Purchase::new(order("p", Some(price()), false), 0);
        assert_eq!(purchase.claim(proof("aa")), Ok(true));
        assert_eq!(purchase.claim(proof("aa")), Ok(false));
        assert_eq!(purchase.claim(proof("bb")), Err(Refused::ProofWaits));
        assert!(purchase.settle(1).is_ok());
        assert_eq!(purchase.claim(proof("aa")), Ok(false));
        assert_eq!(purchase.claim(proof("bb")), Err(Refused::Paid));
        assert_eq!(purchase.intend(None, 2), Err(Refused::Paid));
        assert!(purchase.settle(3).is_err(), "settled twice");
    }

    #[test]
    fn a_failed_delivery_stays_paid_and_can_be_handed_over_again() {
        let mut purchase = Purchase::new(order("p", None, false), 0);
        for n in 0..MAX_HANDOFFS {
            purchase.release(&n.to_string(), 1).unwrap();
            assert!(purchase.report(Report::Failed, 2));
            assert_eq!((purchase.status, purchase.delivery), (Status::PaymentVerified, DeliveryStatus::Failed));
        }
        assert_eq!(purchase.release("s", 3), Err(Refused::TooManyHandoffs));
    }

    #[test]
    fn rejecting_says_whether_money_was_taken() {
        let mut unpaid = Purchase::new(order("p", Some(price()), false), 0);
        unpaid.end("no", 1).unwrap();
        assert_eq!(unpaid.status, Status::Cancelled);
        assert_eq!(unpaid.claim(proof("aa")), Err(Refused::Over("no".to_owned())));
        assert_eq!(unpaid.end("no", 1), Err(Refused::Over("no".to_owned())));
        let mut paid = Purchase::new(order("p", Some(price()), false), 0);
        paid.claim(proof("aa")).unwrap();
        paid.settle(1).unwrap();
        paid.end("gone", 2).unwrap();
        assert_eq!(paid.status, Status::Failed);
    }

    #[test]
    fn a_proof_waits_longer_than_an_unpaid_order() {
        let mut purchase = Purchase::new(order("p", Some(price()), false), 0);
        assert_eq!(purchase.overdue(UNPAID_MS - 1), None);
        assert!(purchase.overdue(UNPAID_MS).is_some());
        purchase.claim(proof("aa")).unwrap();
        assert_eq!(purchase.overdue(UNPAID_MS + 1), None);
        assert!(purchase.overdue(WAITS_MS + 1).is_some());
        purchase.settle(2).unwrap();
        assert_eq!(purchase.overdue(u64::MAX), None, "what was paid never lapses");
        assert!(!purchase.is_old(u64::MAX));
        let mut free = Purchase::new(order("p", None, false), 0);
        assert_eq!(free.overdue(UNPAID_MS - 1), None);
        let reason = free.overdue(UNPAID_MS).unwrap();
        free.end(reason, 1).unwrap();
        assert_eq!(free.status, Status::Cancelled);
        assert!(!free.is_old(KEPT_MS) && free.is_old(KEPT_MS + 1));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Intend,
        Claim(u8),
        Settle,
        Accept,
        End,
        Release,
        Report(u8),
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Intend),
            (0..3u8).prop_map(Step::Claim),
            Just(Step::Settle),
            Just(Step::Accept),
            Just(Step::End),
            Just(Step::Release),
            (0..3u8).prop_map(Step::Report),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_released_unpaid_and_nothing_paid_becomes_unpaid(
            costs: bool,
            waits: bool,
            steps in prop::collection::vec(steps(), 0..40),
        ) {
            let mut purchase = Purchase::new(order("p", costs.then(price), waits), 0);
            let mut settled: Option<Reference> = None;
            for step in steps {
                let before = purchase.clone();
                match step {
                    Step::Intend => drop(purchase.intend(None, 1)),
                    Step::Claim(n) => drop(purchase.claim(proof(&format!("{n:02}")))),
                    Step::Settle => {
                        if let Ok(reference) = purchase.settle(1) {
                            prop_assert!(settled.is_none(), "settled twice");
                            settled = Some(reference.clone());
                        }
                    }
                    Step::Accept => drop(purchase.accept_order(1)),
                    Step::End => drop(purchase.end("x", 1)),
                    Step::Release => {
                        let released = purchase.release("s", 1).is_ok();
                        prop_assert!(!released || !costs || settled.is_some());
                    }
                    Step::Report(n) => {
                        let report = [Report::Started, Report::Received, Report::Failed][usize::from(n)];
                        purchase.report(report, 1);
                    }
                }
                prop_assert!(!before.is_paid() || purchase.is_paid());
                prop_assert!(!before.is_over() || before == purchase, "{before:?} {purchase:?}");
                if let Some(reference) = &settled {
                    prop_assert_eq!(&purchase.proof.as_ref().unwrap().reference, reference);
                }
            }
        }
    }
}
