//! Random changes of inputs, the same ones in every run: the part of fuzzing that needs no instrumentation.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Numbers at which bounds lie.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    1 << 16,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 48,
    i64::MAX as u64,
    u64::MAX,
];

/// Bytes that mean something in texts.
const TEXT: &[u8] = b"{}[]\",:\\/-+.eE0123456789 \n\r\t@#%&=?'~!|>*xutnf\0\x7f";

/// Makes new inputs from old ones.
pub struct Mutator {
    rng: ChaCha8Rng,
    max_len: usize,
}

impl Mutator {
    /// A mutator whose choices follow from `name`. Its inputs have at most `max_len` bytes.
    #[must_use]
    pub fn new(name: &str, max_len: usize) -> Self {
        let seed = name.bytes().fold(0u64, |seed, byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
        Self { rng: ChaCha8Rng::seed_from_u64(seed), max_len }
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.next_u64() % bound.max(1) as u64).unwrap_or(0)
    }

    /// One of `corpus`, or of nothing, changed in one to eight places.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.pick(corpus).to_vec();
        for _ in 0..=self.below(8) {
            self.change(&mut input, corpus);
        }
        input.truncate(self.max_len);
        input
    }

    fn pick<'a>(&mut self, corpus: &'a [Vec<u8>]) -> &'a [u8] {
        let chosen = self.below(corpus.len() + 1);
        corpus.get(chosen).map_or(&[], Vec::as_slice)
    }

    /// A random range of at most `longest` positions of `len`.
    fn range(&mut self, len: usize, longest: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        let end = (start + self.below(longest + 1)).min(len);
        start..end
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        match self.below(10) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.rng.next_u64().to_le_bytes()[0],
            2 if !input.is_empty() => input[at] = TEXT[self.below(TEXT.len())],
            3 => {
                let range = self.range(input.len(), 32);
                input.drain(range);
            }
            4 => {
                let range = self.range(input.len(), 32);
                let part = input[range].to_vec();
                input.splice(at..at, part);
            }
            5 => {
                let byte = TEXT[self.below(TEXT.len())];
                input.insert(at, byte);
            }
            6 => {
                let number = EDGES[self.below(EDGES.len())];
                let width = 1 << self.below(4);
                let bytes = if self.below(2) == 0 {
                    number.to_le_bytes()[..width].to_vec()
                } else {
                    number.to_be_bytes()[8 - width..].to_vec()
                };
                let end = (at + width).min(input.len());
                input.splice(at..end, bytes);
            }
            7 => {
                // The front of one and the back of another.
                let other = self.pick(corpus);
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            8 => {
                let other = self.pick(corpus);
                let range = self.range(other.len(), 64);
                let end = (at + range.len()).min(input.len());
                input.splice(at..end, other[range].iter().copied());
            }
            _ => input.truncate(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_inputs() {
        let corpus = vec![b"{\"a\":1}".to_vec(), vec![0; 100]];
        let make = |name| {
            let mut mutator = Mutator::new(name, 120);
            (0..500).map(|_| mutator.next(&corpus)).collect::<Vec<_>>()
        };
        let inputs = make("a");
        assert_eq!(inputs, make("a"));
        assert_ne!(inputs, make("b"));
        assert!(inputs.iter().all(|input| input.len() <= 120));
        let different: std::collections::BTreeSet<_> = inputs.iter().collect();
        assert!(different.len() > 300, "{}", different.len());
    }
}
