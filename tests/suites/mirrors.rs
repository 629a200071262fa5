//! Mirrors: a machine that is gone is missed by nobody who follows it. Whole nodes, as their operators run them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

mod mirrors {
    mod common;
    mod deposits;
    mod keeps;
    mod outlives;
    mod rotations;
}
