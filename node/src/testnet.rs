//! A market of machines and buyers on one computer: real nodes as processes, to watch and to break.
//!
//! [`up`] makes homes in one folder, starts the nodes of this very program in them, feeds every machine, and lets every buyer buy.
//! It then ends and leaves the processes running. There is no supervisor that could fail: what belongs to a testnet stands in
//! `testnet.json` in its folder, written before and after every step, and every process carries the testnet's id in its environment.
//! So [`down`] finds everything, whatever became of who started it. A process gets a signal only if its id and the time of its start
//! are those of a process that was started here, or if it carries the id.
//!
//! ```text
//! plan      what there is to be: nodes, who buys what, their configurations; pure
//! state     what there is: testnet.json, and the lock under which it changes
//! process   starting, finding and ending processes
//! namespaces  a network of each node's own, which can be cut
//! feeder    the process that feeds the machines
//! running   up, down, kill, restart, partition, heal
//! buying    the buyers' purchases at the beginning
//! status    how the nodes stand        verify   whether everything arrived, and nothing else
//! scenario  all of it by a file, with faults and expectations
//! ```

mod buying;
pub mod dashboard;
mod error;
pub mod feeder;
mod namespaces;
mod plan;
mod process;
mod running;
pub mod scenario;
mod state;
pub mod status;
pub mod verify;

pub use self::{
    error::TestnetError,
    plan::{Feed, MAX_BUYERS, MAX_MACHINES, MAX_MIRRORS, NodeRole, Topology},
    process::ProcessId,
    running::{Brought, Ended, Healed, UpOptions, down, heal, kill, partition, restart, up},
    state::{Folder, NodeState, Phase, State},
};
