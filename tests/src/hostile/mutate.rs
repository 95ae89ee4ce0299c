//! Bytes that are nearly right: seeded changes of inputs that decode.

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

/// Longest input that is made, in bytes.
const BYTES_MAX: usize = 4_096;

/// Makes inputs, the same ones for the same seed.
#[derive(Debug)]
pub struct Mutator {
    random: StdRng,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// Begins from these inputs.
    #[must_use]
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { random: StdRng::seed_from_u64(seed), seeds }
    }

    /// The next input: mostly a known one with a few changes, now and then nothing but noise.
    pub fn next_input(&mut self) -> Vec<u8> {
        if self.seeds.is_empty() || self.random.random_ratio(1, 8) {
            let mut noise = vec![0; self.random.random_range(0..200)];
            self.random.fill_bytes(&mut noise);
            return noise;
        }
        let mut input = self.any_seed();
        for _ in 0..self.random.random_range(0..4) {
            self.change(&mut input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn any_seed(&mut self) -> Vec<u8> {
        self.seeds[self.random.random_range(0..self.seeds.len())].clone()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        if input.is_empty() {
            input.push(self.random.random());
            return;
        }
        let at = self.random.random_range(0..input.len());
        match self.random.random_range(0..7) {
            0 => input[at] ^= 1 << self.random.random_range(0..8),
            1 => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.random.random_range(0..5)],
            2 => input.truncate(at),
            3 => input.insert(at, self.random.random()),
            4 => drop(input.remove(at)),
            5 => {
                // The largest number of eight bytes, and of a varint.
                let huge: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
                let bytes = [8, 10][self.random.random_range(0..2)];
                input.splice(at..(at + 8).min(input.len()), huge[..bytes].iter().copied());
            }
            _ => {
                let other = self.any_seed();
                let from = self.random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}
