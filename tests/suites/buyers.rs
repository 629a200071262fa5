//! What a buyer keeps up by itself, and where it begins: whole nodes, as their operators run them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

mod buyers {
    mod join;
    mod rotation;
    mod sources;
    mod subscriptions;
}
