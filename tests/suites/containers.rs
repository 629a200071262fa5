//! The image and the testnet of `docker/`, built and run by Docker: what the Dockerfile and the compose file promise.
//!
//! Not in the runner's default profile: `tests/run.sh` builds the image and runs these where there is a Docker engine, and elsewhere says
//! that there is none. A run without them counts them as skipped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

mod containers {
    mod image;
    mod market;
}
