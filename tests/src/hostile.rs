//! A hostile peer on plain libp2p: none of our own network code stands between it and the node that it attacks.
//!
//! [`Attacker`] is somebody who connects and sends what he likes; [`Impostor`] stands under a machine's stolen node key and
//! serves lies; [`Ground`] is a machine and a buyer who trade honestly meanwhile, with what they must not lose. An attack counts
//! what really left the attacker, so that a test can say that it happened.

mod attacker;
mod ground;
mod impostor;
pub mod raw;

pub use self::{
    attacker::Attacker,
    ground::{Ground, MEMORY, TOPIC, seen},
    impostor::{Impostor, Selling},
};
