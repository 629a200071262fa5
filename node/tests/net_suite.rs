//! The network between real nodes over real sockets on the loopback interface.

// Helpers outside of test functions may unwrap and panic too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod net_suite {
    mod addresses;
    mod gossip;
    mod providers;
    mod pull;
    mod rates;
    mod relay;
    mod requests;
    mod soak;
    mod support;
}
