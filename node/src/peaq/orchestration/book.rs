//! The order book: purchases as they are stored, and the payments that were used up.
//!
//! | table | key | value |
//! |---|---|---|
//! | Order | `peaq/order/`, purchase id | JSON of [`Purchase`] |
//! | Order | `peaq/paid/`, BLAKE3 of the payment reference (32) | the purchase id |
//! | Grant | `peaq/access/`, purchase id | JSON of what a seller with peaq's SDK prepared |
//!
//! One change at a time, and each is durable before anybody hears of it. A payment is used up in the same batch as the purchase
//! becomes paid, so after a crash there are both or neither. A row of a used payment is never deleted. Everything here waits for
//! the disk.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tributary_store::{Store, StoreError, Table, WriteBatch};

use super::{
    purchase::{Order, Proof, Purchase, Refused, Report},
    reference::Reference,
};

const ORDERS: &[u8] = b"peaq/order/";
const PAID: &[u8] = b"peaq/paid/";
const ACCESS: &[u8] = b"peaq/access/";
/// Rows read at a time.
const PAGE: usize = 256;
/// Purchases that are not over and took no money, in all.
const MAX_UNPAID: usize = 4_096;
/// The same, of one token. The token that buyers share is one.
const MAX_UNPAID_OF_ONE: usize = 1_024;
/// Purchases that are over and took no money; the oldest are forgotten.
const MAX_REMEMBERED: usize = 16_384;

/// Why the book could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// No such purchase for whom asked.
    #[error("there is no purchase {id}; `tributary peaq orders ls` lists them")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// It cannot happen to the purchase as it is.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The payment paid for something else.
    #[error("payment {reference} was used for another purchase already")]
    Used {
        /// The payment.
        reference: Reference,
    },
    /// Too many purchases wait.
    #[error("too many orders are not paid or not fetched yet; finish some of them first")]
    Full,
    /// A stored row cannot be read.
    #[error("a stored purchase cannot be read ({0}); run `tributary store check`")]
    Damaged(String),
    /// The store failed.
    #[error("the purchase could not be stored or read: {0}")]
    Store(#[from] StoreError),
}

/// Which purchases whoever asks may see.
#[derive(Debug, Clone, Copy)]
pub enum Sight<'a> {
    /// Those made with this token.
    Account(&'a str),
    /// All.
    All,
}

impl Sight<'_> {
    fn covers(self, purchase: &Purchase) -> bool {
        match self {
            Self::Account(account) => purchase.account == account,
            Self::All => true,
        }
    }
}

/// See the module.
pub struct OrderBook {
    store: Store,
    /// Purchases that are not over and took no money, with their token. Held from the look at a purchase to the commit.
    unpaid: Mutex<BTreeMap<String, String>>,
}

impl OrderBook {
    /// Opens the book of a store.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn open(store: Store) -> Result<Self, BookError> {
        let book = Self { store, unpaid: Mutex::default() };
        let mut unpaid = BTreeMap::new();
        book.for_each(|purchase| note(&mut unpaid, &purchase))?;
        *book.lock() = unpaid;
        Ok(book)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.unpaid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new purchase.
    ///
    /// # Errors
    ///
    /// When too many wait already, or it cannot be stored.
    pub fn create(&self, order: Order, now_ms: u64) -> Result<Purchase, BookError> {
        let mut unpaid = self.lock();
        let mine = unpaid.values().filter(|account| **account == order.account).count();
        if unpaid.len() >= MAX_UNPAID || mine >= MAX_UNPAID_OF_ONE {
            return Err(BookError::Full);
        }
        let purchase = Purchase::new(order, now_ms);
        self.commit(&mut unpaid, &purchase, WriteBatch::new())?;
        Ok(purchase)
    }

    /// A purchase.
    ///
    /// # Errors
    ///
    /// When there is none that `sight` covers.
    pub fn get(&self, id: &str, sight: Sight<'_>) -> Result<Purchase, BookError> {
        self.load(id)?
            .filter(|purchase| sight.covers(purchase))
            .ok_or_else(|| BookError::NotFound { id: id.to_owned() })
    }

    /// Changes a purchase; `change` says whether there is anything to store.
    ///
    /// # Errors
    ///
    /// What `change` says, or when it cannot be stored.
    pub fn change(
        &self,
        id: &str,
        sight: Sight<'_>,
        change: impl FnOnce(&mut Purchase) -> Result<bool, Refused>,
    ) -> Result<Purchase, BookError> {
        let mut unpaid = self.lock();
        let mut purchase = self.get(id, sight)?;
        if change(&mut purchase)? {
            self.commit(&mut unpaid, &purchase, WriteBatch::new())?;
        }
        Ok(purchase)
    }

    /// Records a claimed payment; with `paid` the purchase is paid with it, and the payment is used up. The same claim again
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// When the payment was used for another purchase, or this one cannot be paid.
    pub fn claim(
        &self,
        id: &str,
        sight: Sight<'_>,
        proof: Proof,
        paid: bool,
        now_ms: u64,
    ) -> Result<(Purchase, bool), BookError> {
        let mut unpaid = self.lock();
        let mut purchase = self.get(id, sight)?;
        self.check_unused(&proof.reference, id)?;
        let was_paid = purchase.is_paid();
        let mut news = purchase.claim(proof)?;
        let mut batch = WriteBatch::new();
        if paid && !was_paid {
            batch.put_row(Table::Order, paid_key(purchase.settle(now_ms)?), id.as_bytes().to_vec());
            news = true;
        }
        if news {
            self.commit(&mut unpaid, &purchase, batch)?;
        }
        Ok((purchase, news))
    }

    /// The operator accepts what the purchase waits for: the order, or its payment.
    ///
    /// # Errors
    ///
    /// When it waits for nothing, or the payment was used for another purchase.
    pub fn confirm(&self, id: &str, now_ms: u64) -> Result<Purchase, BookError> {
        let mut unpaid = self.lock();
        let mut purchase = self.get(id, Sight::All)?;
        let mut batch = WriteBatch::new();
        match &purchase.proof {
            Some(proof) if !purchase.is_paid() => {
                self.check_unused(&proof.reference, id)?;
                batch.put_row(Table::Order, paid_key(purchase.settle(now_ms)?), id.as_bytes().to_vec());
            }
            _ => purchase.accept_order(now_ms)?,
        }
        self.commit(&mut unpaid, &purchase, batch)?;
        Ok(purchase)
    }

    /// Stores what a seller with peaq's SDK prepared, and releases the purchase with it.
    ///
    /// # Errors
    ///
    /// When the purchase is not to be delivered, or it cannot be stored.
    pub fn prepare(
        &self,
        id: &str,
        session_id: &str,
        prepared: &impl Serialize,
        now_ms: u64,
    ) -> Result<Purchase, BookError> {
        let mut unpaid = self.lock();
        let mut purchase = self.get(id, Sight::All)?;
        purchase.release(session_id, now_ms)?;
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Grant, access_key(id), encode(prepared)?);
        self.commit(&mut unpaid, &purchase, batch)?;
        Ok(purchase)
    }

    /// What [`OrderBook::prepare`] stored last.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn prepared<T: serde::de::DeserializeOwned>(&self, id: &str) -> Result<Option<T>, BookError> {
        let row = self.store.row(Table::Grant, &access_key(id))?;
        row.map(|row| serde_json::from_slice(&row).map_err(|error| BookError::Damaged(error.to_string()))).transpose()
    }

    /// Notes what somebody reports about the delivery of session `session_id`, or of whichever is the newest. Returns the
    /// purchase and whether the report changed it.
    ///
    /// # Errors
    ///
    /// When there is no such purchase, or it cannot be stored.
    pub fn report(
        &self,
        id: &str,
        sight: Sight<'_>,
        session_id: Option<&str>,
        report: Report,
        now_ms: u64,
    ) -> Result<(Purchase, bool), BookError> {
        let mut changed = false;
        let purchase = self.change(id, sight, |purchase| {
            let newest = session_id.is_none_or(|session| purchase.session_id.as_deref() == Some(session));
            changed = newest && purchase.report(report, now_ms);
            Ok(changed)
        })?;
        Ok((purchase, changed))
    }

    /// Purchases, newest first, at most `limit`; with `waiting` only those that wait for the operator.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn list(&self, waiting: bool, limit: usize) -> Result<Vec<Purchase>, BookError> {
        self.newest(limit, |purchase| !waiting || purchase.waits_for_operator())
    }

    /// The newest `limit` purchases that `wanted` wants, newest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn newest(&self, limit: usize, wanted: impl Fn(&Purchase) -> bool) -> Result<Vec<Purchase>, BookError> {
        let mut newest: BTreeMap<(u64, String), Purchase> = BTreeMap::new();
        self.for_each(|purchase| {
            if wanted(&purchase) {
                newest.insert((purchase.created_ms, purchase.id.clone()), purchase);
                if newest.len() > limit {
                    newest.pop_first();
                }
            }
        })?;
        Ok(newest.into_values().rev().collect())
    }

    /// The purchase that a payment was used for.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn paid_with(&self, reference: &Reference) -> Result<Option<String>, BookError> {
        let row = self.store.row(Table::Order, &paid_key(reference))?;
        Ok(row.map(|row| String::from_utf8_lossy(&row).into_owned()))
    }

    /// Ends what waited too long and forgets what is long over.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub fn keep_house(&self, now_ms: u64) -> Result<(), BookError> {
        let mut late = Vec::new();
        let mut remembered: BTreeMap<(u64, String), ()> = BTreeMap::new();
        self.for_each(|purchase| {
            if purchase.overdue(now_ms).is_some() || purchase.is_old(now_ms) {
                late.push(purchase.id);
            } else if purchase.is_over() && !purchase.is_settled() {
                remembered.insert((purchase.updated_ms, purchase.id), ());
                if remembered.len() > MAX_REMEMBERED {
                    late.extend(remembered.pop_first().map(|((_, id), ())| id));
                }
            }
        })?;
        for id in late {
            let mut unpaid = self.lock();
            let Some(mut purchase) = self.load(&id)? else { continue };
            if let Some(reason) = purchase.overdue(now_ms) {
                purchase.end(reason, now_ms)?;
                self.commit(&mut unpaid, &purchase, WriteBatch::new())?;
            } else if purchase.is_over() {
                let mut batch = WriteBatch::new();
                batch.delete_row(Table::Order, order_key(&id));
                batch.delete_row(Table::Grant, access_key(&id));
                self.store.commit(batch)?;
            }
        }
        Ok(())
    }

    fn check_unused(&self, reference: &Reference, id: &str) -> Result<(), BookError> {
        match self.paid_with(reference)? {
            Some(other) if other != id => Err(BookError::Used { reference: reference.clone() }),
            _ => Ok(()),
        }
    }

    fn commit(
        &self,
        unpaid: &mut BTreeMap<String, String>,
        purchase: &Purchase,
        mut batch: WriteBatch,
    ) -> Result<(), BookError> {
        batch.put_row(Table::Order, order_key(&purchase.id), encode(purchase)?);
        self.store.commit(batch)?;
        note(unpaid, purchase);
        Ok(())
    }

    fn load(&self, id: &str) -> Result<Option<Purchase>, BookError> {
        self.store.row(Table::Order, &order_key(id))?.map(|row| decode(&row)).transpose()
    }

    fn for_each(&self, mut each: impl FnMut(Purchase)) -> Result<(), BookError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self.store.rows(Table::Order, ORDERS, after.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            for (_, row) in rows {
                match decode(&row) {
                    Ok(purchase) => each(purchase),
                    // One bad row must not hide the others.
                    Err(error) => tracing::error!(%error, "a purchase is left out"),
                }
            }
        }
    }
}

fn note(unpaid: &mut BTreeMap<String, String>, purchase: &Purchase) {
    if purchase.is_over() || purchase.is_settled() {
        unpaid.remove(&purchase.id);
    } else {
        unpaid.insert(purchase.id.clone(), purchase.account.clone());
    }
}

fn order_key(id: &str) -> Vec<u8> {
    [ORDERS, id.as_bytes()].concat()
}

fn access_key(id: &str) -> Vec<u8> {
    [ACCESS, id.as_bytes()].concat()
}

fn paid_key(reference: &Reference) -> Vec<u8> {
    [PAID, blake3::hash(reference.as_str().as_bytes()).as_bytes()].concat()
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, BookError> {
    serde_json::to_vec(value).map_err(|error| BookError::Damaged(error.to_string()))
}

fn decode(row: &[u8]) -> Result<Purchase, BookError> {
    let purchase: Purchase = serde_json::from_slice(row).map_err(|error| BookError::Damaged(error.to_string()))?;
    if purchase.is_readable() { Ok(purchase) } else { Err(BookError::Damaged("a later version wrote it".to_owned())) }
}

#[cfg(test)]
mod tests {
    use tributary_store::StoreOptions;

    use super::*;
    use crate::peaq::orchestration::purchase::{
        Status,
        tests::{order, price},
    };

    fn proof(text: &str) -> Proof {
        Proof { reference: Reference::new("peaq", text).unwrap(), payer: None, recorded_ms: 1 }
    }

    fn store(path: &std::path::Path) -> Store {
        let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::default() };
        Store::open(path, &options).unwrap().0
    }

    #[test]
    fn one_payment_pays_for_one_purchase_however_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let book = OrderBook::open(store(dir.path())).unwrap();
        for id in ["p", "q", "r"] {
            book.create(order(id, Some(price()), false), 0).unwrap();
        }
        // Both may claim it; whoever is confirmed first has it.
        book.claim("p", Sight::All, proof("0xAA"), false, 1).unwrap();
        book.claim("q", Sight::All, proof("0xaa"), false, 1).unwrap();
        assert_eq!(book.confirm("q", 2).unwrap().status, Status::PaymentVerified);
        assert!(matches!(book.confirm("p", 3), Err(BookError::Used { .. })));
        assert!(matches!(book.claim("r", Sight::All, proof("0Xaa"), true, 3), Err(BookError::Used { .. })));
        assert_eq!(book.get("r", Sight::All).unwrap().status, Status::DeliveryReserved);
        // Told again by its owner: nothing new.
        let (again, news) = book.claim("q", Sight::All, proof("0xaa"), true, 4).unwrap();
        assert_eq!((again.status, again.verified_ms, news), (Status::PaymentVerified, Some(2), false));
        assert!(matches!(book.confirm("q", 5), Err(BookError::Refused(Refused::NothingWaits(_)))));
    }

    #[test]
    fn what_was_decided_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let book = OrderBook::open(store(dir.path())).unwrap();
        book.create(order("p", Some(price()), false), 0).unwrap();
        book.create(order("q", Some(price()), false), 0).unwrap();
        book.claim("p", Sight::All, proof("aa"), true, 1).unwrap();
        book.store.clone().close().unwrap();
        drop(book);
        let book = OrderBook::open(store(dir.path())).unwrap();
        assert!(book.get("p", Sight::All).unwrap().is_paid());
        assert_eq!(book.paid_with(&proof("aa").reference).unwrap().as_deref(), Some("p"));
        assert!(matches!(book.claim("q", Sight::All, proof("aa"), true, 2), Err(BookError::Used { .. })));
        assert_eq!(book.lock().keys().collect::<Vec<_>>(), ["q"]);
    }

    #[test]
    fn a_used_payment_outlives_its_purchase() {
        let dir = tempfile::tempdir().unwrap();
        let book = OrderBook::open(store(dir.path())).unwrap();
        book.create(order("p", Some(price()), false), 0).unwrap();
        book.claim("p", Sight::All, proof("aa"), true, 1).unwrap();
        book.change("p", Sight::All, |p| p.end("gone", 2).map(|()| true)).unwrap();
        book.keep_house(u64::MAX).unwrap();
        assert!(matches!(book.get("p", Sight::All), Err(BookError::NotFound { .. })));
        book.create(order("q", Some(price()), false), 3).unwrap();
        assert!(matches!(book.claim("q", Sight::All, proof("aa"), true, 4), Err(BookError::Used { .. })));
    }

    #[test]
    fn unpaid_orders_are_bounded_and_lapse() {
        let dir = tempfile::tempdir().unwrap();
        let book = OrderBook::open(store(dir.path())).unwrap();
        for n in 0..MAX_UNPAID_OF_ONE {
            book.unpaid.lock().unwrap().insert(n.to_string(), "a".to_owned());
        }
        assert!(matches!(book.create(order("p", Some(price()), false), 0), Err(BookError::Full)));
        book.unpaid.lock().unwrap().clear();
        book.create(order("p", Some(price()), false), 0).unwrap();
        // What costs nothing is there for the asking, so it is bounded in the same way until it is fetched.
        book.create(order("q", None, false), 0).unwrap();
        assert_eq!(book.lock().len(), 2);
        book.keep_house(24 * 60 * 60 * 1000).unwrap();
        for id in ["p", "q"] {
            assert_eq!(book.get(id, Sight::All).unwrap().status, Status::Cancelled);
        }
        assert!(book.lock().is_empty());
        book.keep_house(8 * 24 * 60 * 60 * 1000 + 1).unwrap();
        assert!(matches!(book.get("p", Sight::All), Err(BookError::NotFound { .. })));
    }

    #[test]
    fn nobody_sees_the_purchases_of_another_token() {
        let dir = tempfile::tempdir().unwrap();
        let book = OrderBook::open(store(dir.path())).unwrap();
        book.create(order("p", None, false), 0).unwrap();
        assert!(book.get("p", Sight::Account("a")).is_ok());
        assert!(matches!(book.get("p", Sight::Account("b")), Err(BookError::NotFound { .. })));
        let report = book.report("p", Sight::Account("b"), None, Report::Received, 1);
        assert!(matches!(report, Err(BookError::NotFound { .. })));
    }

    #[test]
    fn a_report_about_an_old_session_says_nothing_about_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let book = OrderBook::open(store(dir.path())).unwrap();
        book.create(order("p", None, false), 0).unwrap();
        for session in ["old", "new"] {
            book.change("p", Sight::All, |p| p.release(session, 1).map(|()| true)).unwrap();
        }
        assert!(!book.report("p", Sight::All, Some("old"), Report::Failed, 2).unwrap().1);
        assert!(book.report("p", Sight::All, Some("new"), Report::Failed, 2).unwrap().1);
    }
}
