//! What the example programs share.

pub mod demo_recording;
