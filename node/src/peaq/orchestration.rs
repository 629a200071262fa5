//! peaq's orchestration API, offered by the node itself: buyers with peaq's SDK discover, order, pay and receive here, and no
//! other server is needed.
//!
//! Opt-in by `peaq.orchestration` in the configuration. This node is orchestrator and seller in one: it lists the closed datasets
//! of its streams, decides by the same policies as the native access protocol, and when an order is paid it hands the delivery over
//! itself. A seller with peaq's SDK may use it as well, for listings of its own.
//!
//! | part | what |
//! |---|---|
//! | [`purchase`] | what may happen to a purchase; pure |
//! | [`book`] | purchases and used payments, as they are stored |
//! | [`reference`](mod@reference), [`payment`] | one spelling per payment; who says that it is good |
//! | [`goods`] | what is for sale, as chains that peaq's tools verify |
//! | [`desk`] | where deliveries are handed over |
//! | `gate`, `server`, `routes`, `socket`, `wire`, `answer` | HTTP |
//! | `shop`, `foreign` | what the routes do |
//!
//! What cannot be closed, because buyers with peaq's SDK send nothing more: an order is not signed, so a buyer is whoever holds the
//! token; a payment proof is a public transaction hash, so it shows that somebody paid, not who; and a handshake of a delivery
//! names purchase, session and buyer without proof (session ids are random and told only to the token of the purchase).

mod answer;
pub mod book;
pub mod desk;
mod foreign;
mod gate;
pub mod goods;
pub mod payment;
pub mod purchase;
pub mod reference;
mod routes;
mod server;
mod shop;
mod socket;
mod times;
mod wire;

use std::{io, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{Quota, RateLimiter};
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tributary_store::Store;

use self::{
    book::{BookError, OrderBook, Sight},
    desk::{DeliveryDesk, DeskEvent},
    gate::Gate,
    goods::Shelf,
    purchase::Purchase,
    routes::Api,
    shop::Shop,
};
use crate::{
    config::OrchestrationConfig,
    home::HomeError,
    machine::{Clock, Machine},
    peaq::Parties,
    service::access::AccessService,
};

/// Notices that a control socket may be behind.
const NOTICES: usize = 256;
/// Orders of one account.
const ORDERS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(120).expect("it is not zero");
/// How often orders are looked through.
const HOUSEKEEPING: Duration = Duration::from_secs(600);

/// Why the API does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrchestrationError {
    /// The address.
    #[error("the orchestration API cannot listen on {addr}: {source}; look at `peaq.orchestration.listen`")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A token.
    #[error("a token of the orchestration API cannot be used: {0}")]
    Token(#[from] HomeError),
    /// The order book.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The runtime is going down.
    #[error("the node was stopped while the orchestration API started")]
    Stopped,
}

/// What the API works with.
pub struct OrchestrationParts {
    /// Its configuration.
    pub config: OrchestrationConfig,
    /// What it sells.
    pub machine: Arc<Machine>,
    /// Where orders are kept.
    pub store: Store,
    /// Who may buy.
    pub policies: Arc<AccessService>,
    /// What stands in the envelopes.
    pub parties: Parties,
    /// Where deliveries are handed over.
    pub desk: Box<dyn DeliveryDesk>,
    /// What becomes of them.
    pub events: mpsc::Receiver<DeskEvent>,
    /// The time.
    pub clock: Clock,
}

/// The running API. What it does waits for the disk: call it on a thread that may block.
pub struct Orchestration {
    shop: Arc<Shop>,
    addr: SocketAddr,
}

impl Orchestration {
    /// Starts it. Its tasks end when `stop` is cancelled or they are dropped.
    ///
    /// # Errors
    ///
    /// Names what is wrong; nothing runs then.
    pub async fn start(
        parts: OrchestrationParts,
        stop: CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, OrchestrationError> {
        let OrchestrationParts { config, machine, store, policies, parties, desk, mut events, clock } = parts;
        let listen = config.listen;
        let failed = |source| OrchestrationError::Listen { addr: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let opened = tokio::task::spawn_blocking(move || -> Result<Shop, OrchestrationError> {
            let did = machine.did().to_string();
            Ok(Shop {
                gate: Gate::open(&config, addr)?,
                book: OrderBook::open(store.clone())?,
                shelf: Shelf::new(machine, store.clone(), parties),
                store,
                verifier: payment::verifier(&config),
                desk,
                policies,
                clock,
                price: shop::price_of(&config),
                orders: RateLimiter::keyed(Quota::per_minute(ORDERS_PER_MINUTE)),
                did,
                config,
                sessions: std::sync::Mutex::default(),
                notices: broadcast::Sender::new(NOTICES),
            })
        });
        let shop = Arc::new(opened.await.map_err(|_| OrchestrationError::Stopped)??);
        tracing::info!(%addr, "orchestration API for peaq's SDK");
        tracing::warn!(machine_id = %shop.config.machine_id, "the machine's id at peaq is not proven by anything");
        let noted = Arc::clone(&shop);
        tasks.spawn(async move {
            while let Some(event) = events.recv().await {
                let shop = Arc::clone(&noted);
                // One after the other: what came later counts later.
                if tokio::task::spawn_blocking(move || shop.on_desk_event(&event)).await.is_err() {
                    return;
                }
            }
        });
        let kept = Arc::clone(&shop);
        tasks.spawn(async move {
            let mut timer = tokio::time::interval(HOUSEKEEPING);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                timer.tick().await;
                let shop = Arc::clone(&kept);
                match tokio::task::spawn_blocking(move || shop.book.keep_house(shop.now_ms())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "purchases could not be looked through"),
                    Err(_) => return,
                }
            }
        });
        tasks.spawn(server::serve(listener, Api::new(Arc::clone(&shop)), stop));
        Ok(Self { shop, addr })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The purchases, newest first, at most `limit`; with `waiting` only those that wait for the operator.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn orders(&self, waiting: bool, limit: usize) -> Result<Vec<Purchase>, BookError> {
        self.shop.book.list(waiting, limit)
    }

    /// The purchase with this id.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn order(&self, id: &str) -> Result<Purchase, BookError> {
        self.shop.book.get(id, Sight::All)
    }

    /// The operator accepts what a purchase waits for: the order itself, or its payment.
    ///
    /// # Errors
    ///
    /// When it waits for nothing, or the payment was used for another purchase.
    pub fn confirm(&self, id: &str) -> Result<Purchase, BookError> {
        self.shop.confirm(id)
    }

    /// The operator ends a purchase: unpaid it is cancelled, paid it has failed.
    ///
    /// # Errors
    ///
    /// When it is over already.
    pub fn reject(&self, id: &str, reason: &str) -> Result<Purchase, BookError> {
        self.shop.reject(id, reason)
    }

    /// The purchase that the payment of `purchase` was used for, when that is another one.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn used_elsewhere(&self, purchase: &Purchase) -> Result<Option<String>, BookError> {
        let Some(proof) = &purchase.proof else { return Ok(None) };
        Ok(self.shop.book.paid_with(&proof.reference)?.filter(|other| *other != purchase.id))
    }
}
