//! Whole nodes, with homes, stores and sockets of their own, on the loopback interface.

// Helpers outside of test functions may unwrap and panic too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod service_suite {
    mod access;
    mod life;
    mod support;
    mod sync;
    mod trade;
}
