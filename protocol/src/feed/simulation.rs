//! Seeded simulation: a machine writes, rotates, rolls back and is restored; thieves use every key it ever retired; messages
//! are lost, repeated and reordered. Whatever a node saw, after one sync with an honest peer it holds the truth.

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use super::testbed::{Machine, Node, copy, rng};
use crate::{
    binding::SignedBinding,
    entry::{SignedEntry, SignedHead},
    ids::LogId,
    keys::FeedKey,
};

#[derive(Clone)]
enum Message {
    Binding(Box<SignedBinding>),
    Entry(Box<SignedEntry>),
    Head(Box<SignedHead>),
}

fn below(rng: &mut ChaCha20Rng, limit: u64) -> u64 {
    rng.next_u64() % limit
}

fn chance(rng: &mut ChaCha20Rng, percent: u64) -> bool {
    below(rng, 100) < percent
}

/// A run of entries that a thief signs, each linked to the one before, from a true position on.
fn forge_branch(machine: &Machine, key: &FeedKey, rng: &mut ChaCha20Rng, out: &mut Vec<Message>) {
    let logs: Vec<(LogId, u32)> = machine.logs.keys().copied().collect();
    if logs.is_empty() {
        return;
    }
    let at = logs[usize::try_from(below(rng, logs.len() as u64)).expect("small")];
    let mut seq = below(rng, machine.len(at) + 2).min(machine.len(at));
    let mut prev = machine.prev(at, seq);
    for _ in 0..=below(rng, 5) {
        let forged = machine.forge(key, at, seq, prev, rng.next_u64());
        (seq, prev) = (seq + 1, forged.hash());
        out.push(Message::Entry(Box::new(forged)));
    }
}

/// What happens in one world: all messages that ever travel.
fn live(seed: u64) -> (Machine, Vec<Message>) {
    let mut machine = Machine::new(seed);
    let mut rng = rng(seed ^ 0x5eed);
    let logs = [LogId::MACHINE, machine.stream(1), machine.stream(2)];
    let mut out = vec![Message::Binding(Box::new(machine.bindings[0].clone()))];
    let mut stolen: Vec<FeedKey> = Vec::new();
    for _ in 0..40 + below(&mut rng, 40) {
        match below(&mut rng, 100) {
            0..70 => {
                let log = logs[usize::try_from(below(&mut rng, 3)).expect("small")];
                out.push(Message::Entry(Box::new(machine.append(log))));
                if chance(&mut rng, 20) {
                    out.push(Message::Head(Box::new(machine.head((log, machine.incarnation)))));
                }
            }
            70..82 => {
                let (new_incarnation, renew) = (chance(&mut rng, 25), chance(&mut rng, 25));
                // Only a new key may go on from an earlier position: one key never signs two entries at one.
                let back = if renew { 0 } else { below(&mut rng, 4) };
                let old = machine.rotate(!renew, new_incarnation, |_, len| len.saturating_sub(back));
                if !renew {
                    stolen.push(old);
                }
                out.push(Message::Binding(Box::new(machine.bindings.last().expect("one").clone())));
            }
            _ => {
                let Some(at) = below(&mut rng, 100).checked_rem(stolen.len() as u64) else { continue };
                let key = copy(&stolen[usize::try_from(at).expect("small")]);
                forge_branch(&machine, &key, &mut rng, &mut out);
            }
        }
    }
    (machine, out)
}

fn deliver(node: &mut Node, message: &Message) {
    match message {
        Message::Binding(binding) => {
            // A gap is what loss and reordering look like; nothing else is wrong with an honest machine's bindings.
            match node.binding(binding) {
                Ok(_) | Err(crate::binding::ChainError::Gap { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Message::Entry(entry) => {
            node.entry(entry);
        }
        Message::Head(head) => {
            node.follower.on_head(head, &node.shelf);
        }
    }
}

#[test]
fn nodes_converge_whatever_order_loss_and_thieves() {
    let (mut applied_forgeries, mut noise, mut accused) = (0, 0, 0);
    for seed in 0..60 {
        let (machine, messages) = live(seed);
        let truth: std::collections::BTreeSet<_> =
            machine.logs.values().flatten().map(|entry| entry.bytes().to_vec()).collect();
        for reader in 0..3 {
            let mut rng = rng(seed << 8 | reader);
            let mut node = Node::new(machine.did());
            // Locally shuffled, so that some of it applies; now and then something arrives very late.
            let mut pending: Vec<(u64, Message)> = Vec::new();
            let mut tick = 0;
            for message in &messages {
                tick += 10;
                if chance(&mut rng, 10) {
                    continue;
                }
                for _ in 0..1 + u64::from(chance(&mut rng, 20)) {
                    let late = if chance(&mut rng, 10) { 2000 } else { 40 * reader };
                    pending.push((tick + below(&mut rng, late + 1), message.clone()));
                }
            }
            pending.sort_by_key(|(at, _)| *at);
            for (_, message) in &pending {
                deliver(&mut node, message);
                if chance(&mut rng, 3) {
                    node.restart(&machine);
                }
            }
            applied_forgeries +=
                node.shelf.0.values().flat_map(|log| log.values()).filter(|bytes| !truth.contains(*bytes)).count();
            accused += node.follower.evidence().len();
            noise += node.follower.noise();
            node.sync(&machine);
            node.assert_equals(&machine);
            // What comes after that changes nothing any more.
            for (_, message) in &pending {
                deliver(&mut node, message);
            }
            node.assert_equals(&machine);
            node.restart(&machine);
            node.assert_equals(&machine);
        }
    }
    // The simulation is worth nothing if the attacks did not bite.
    assert!(applied_forgeries > 50, "forged or cut entries were held before the sync: {applied_forgeries}");
    assert!(noise > 50, "stale entries were counted: {noise}");
    assert!(accused > 0, "the machine looked like a liar before its last binding was known: {accused}");
}
