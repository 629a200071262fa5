//! The buying side against a machine over real sockets on the loopback interface. The machine here is made of the protocol and
//! a store alone, so that it can also lie.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are the helpers of tests")]

mod buyer_suite {
    mod access;
    mod complete;
    mod follow;
    mod join;
    mod pull;
    mod support;
    mod verify;
}
