//! Real nodes on networks as robots have them: NAT, relays, lost and slow links, partitions, addresses that change. Each test
//! asserts that what it is about really happened.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

mod network {
    mod common;
    mod links;
    mod moves;
    mod nat;
    mod neighbours;
    mod relays;
}
