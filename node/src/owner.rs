//! The owner's side: what the holder of the owner's key does, away from the machine.
//!
//! Nothing here needs the machine, its home or its node. The owner's key is read from its file for one act and is never sent
//! anywhere.

pub mod grants;
mod ledger;

pub use ledger::{Ledger, LedgerError};
