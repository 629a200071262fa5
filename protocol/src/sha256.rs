//! SHA-256 of two messages in one pass.
//!
//! Each step of SHA-256 needs the one before, so a processor with instructions for it still waits most of the time. Two
//! messages that take turns block by block give it two chains of steps to overlap.

use sha2::{Digest, Sha256};

/// The block of SHA-256, bytes: the shorter the turns, the more of the two chains is in sight of the processor.
const TURN: usize = 64;

/// SHA-256 of each of the two.
pub(crate) fn digest_both(first: &[u8], second: &[u8]) -> ([u8; 32], [u8; 32]) {
    let shared = first.len().min(second.len()) / TURN * TURN;
    let (mut one, mut other) = (Sha256::new(), Sha256::new());
    for (a, b) in first[..shared].chunks_exact(TURN).zip(second[..shared].chunks_exact(TURN)) {
        one.update(a);
        other.update(b);
    }
    one.update(&first[shared..]);
    other.update(&second[shared..]);
    (one.finalize().into(), other.finalize().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_is_the_hash_of_its_own_message(
            first in proptest::collection::vec(any::<u8>(), 0..400), second in proptest::collection::vec(any::<u8>(), 0..400)
        ) {
            let expected = (Sha256::digest(&first).into(), Sha256::digest(&second).into());
            prop_assert_eq!(digest_both(&first, &second), expected);
        }
    }

    #[test]
    fn lengths_around_a_block_differ_freely() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        for first in [0, 1, 55, 56, 63, 64, 65, 128, 256] {
            for second in [0, 16, 64, 80, 256] {
                let (first, second) = (&bytes[..first], &bytes[..second]);
                let expected = (Sha256::digest(first).into(), Sha256::digest(second).into());
                assert_eq!(digest_both(first, second), expected);
            }
        }
    }
}
