//! The local testnet as its users run it: by commands, with real nodes, killed, cut off and tampered with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

mod testnet {
    mod common;
    mod crashes;
    mod life;
    mod networks;
    mod scenarios;
    mod tampering;
}
