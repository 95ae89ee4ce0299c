//! Which keys are touched, and what their values look like.
//!
//! A value begins with a mark that derives from its key, so that a read can tell that it got the value of that key.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use rand::{Rng, RngExt as _, rngs::SmallRng};
use rand_distr::{Distribution as _, Zipf};

/// Bytes of a mark; a shorter value has its beginning.
const MARK_BYTES: usize = 8;
/// Bytes of the counter that follows the mark in the values of `cas`.
const COUNTER_BYTES: usize = 8;
/// The shortest value that has a counter.
pub(super) const COUNTED_BYTES_MIN: usize = MARK_BYTES + COUNTER_BYTES;

/// How popular the keys are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Distribution {
    /// All alike.
    Uniform,
    /// The n-th key in proportion to 1 / n^theta.
    Zipf(f64),
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            Some(("zipf", theta)) => match theta.parse::<f64>() {
                Ok(theta) if theta > 0.0 && theta <= 10.0 => Ok(Self::Zipf(theta)),
                _ => Err("theta is a number above 0 and up to 10, such as zipf:0.99".to_owned()),
            },
            _ => Err("expected uniform, or zipf:THETA such as zipf:0.99".to_owned()),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(theta) => write!(f, "zipf:{theta}"),
        }
    }
}

/// Chooses numbers of keys.
#[derive(Debug, Clone)]
pub(super) struct Chooser {
    count: u64,
    zipf: Option<Zipf<f64>>,
}

impl Chooser {
    /// Of the numbers from 0 to before `count`, which is at least one.
    pub(super) fn new(distribution: Distribution, count: u64) -> Self {
        let zipf = match distribution {
            Distribution::Uniform => None,
            // A count is far below 2^53, so it is exact.
            Distribution::Zipf(theta) => Zipf::new(count as f64, theta).ok(),
        };
        Self { count, zipf }
    }

    pub(super) fn choose(&self, random: &mut SmallRng) -> u64 {
        match &self.zipf {
            Some(zipf) => (zipf.sample(random) as u64).clamp(1, self.count) - 1,
            None => random.random_range(0..self.count),
        }
    }
}

/// The keys of a run and their values.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) prefix: String,
    pub(super) count: u64,
    pub(super) value_bytes: usize,
}

impl Keys {
    /// The name of a key. Names sort as their numbers do.
    pub(super) fn name(&self, number: u64) -> String {
        format!("{}{number:012}", self.prefix)
    }

    /// Random bytes for values.
    pub(super) fn noise(&self, random: &mut SmallRng) -> Vec<u8> {
        let mut noise = vec![0; self.value_bytes];
        random.fill_bytes(&mut noise);
        noise
    }

    /// A value for a key: its mark, then noise.
    pub(super) fn value(&self, number: u64, noise: &[u8]) -> Bytes {
        let mut value = noise.to_vec();
        let marked = MARK_BYTES.min(value.len());
        value[..marked].copy_from_slice(&mark(number)[..marked]);
        value.into()
    }

    /// A value of a key that counts.
    pub(super) fn counted(&self, number: u64, counter: u64, noise: &[u8]) -> Bytes {
        let mut value = Vec::from(self.value(number, noise));
        value[MARK_BYTES..COUNTED_BYTES_MIN].copy_from_slice(&counter.to_le_bytes());
        value.into()
    }

    /// Whether a value has the right size and its key's mark; what is wrong, if not.
    pub(super) fn verify(&self, number: u64, value: &[u8]) -> Result<(), String> {
        if value.len() != self.value_bytes {
            return Err(format!(
                "key {number} has a value of {} bytes, not {}",
                value.len(),
                self.value_bytes
            ));
        }
        let marked = MARK_BYTES.min(value.len());
        if value[..marked] == mark(number)[..marked] {
            return Ok(());
        }
        Err(format!("key {number} has a value that was not written for it"))
    }

    /// The counter in a verified value.
    pub(super) fn counter(value: &[u8]) -> Option<u64> {
        value.get(MARK_BYTES..COUNTED_BYTES_MIN)?.try_into().ok().map(u64::from_le_bytes)
    }
}

/// Differs from key to key in its first byte already.
fn mark(number: u64) -> [u8; MARK_BYTES] {
    (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn counts(distribution: Distribution, keys: u64, samples: usize) -> Vec<usize> {
        let chooser = Chooser::new(distribution, keys);
        let mut random = SmallRng::seed_from_u64(1);
        let mut counts = vec![0; usize::try_from(keys).unwrap()];
        for _ in 0..samples {
            counts[usize::try_from(chooser.choose(&mut random)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_are_equally_popular() {
        for count in counts(Distribution::Uniform, 10, 10_000) {
            assert!((850..1_150).contains(&count), "{count}");
        }
    }

    #[test]
    fn zipf_follows_its_law_and_stays_among_the_keys() {
        let counts = counts(Distribution::Zipf(0.99), 100, 100_000);
        // Keys 1 and 10, of 100: 1 / H and 10^-0.99 / H with H = 5.29.
        assert!((18_000..20_000).contains(&counts[0]), "{}", counts[0]);
        assert!((1_700..2_200).contains(&counts[9]), "{}", counts[9]);
        assert!(counts[99] > 0, "the last key has its turn");
        assert_eq!(Chooser::new(Distribution::Zipf(2.0), 1).choose(&mut SmallRng::seed_from_u64(1)), 0);
    }

    #[test]
    fn the_same_seed_chooses_the_same_keys() {
        let chosen = |seed| {
            let (chooser, mut random) =
                (Chooser::new(Distribution::Uniform, 1_000), SmallRng::seed_from_u64(seed));
            (0..20).map(|_| chooser.choose(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(chosen(7), chosen(7));
        assert_ne!(chosen(7), chosen(8));
    }

    #[test]
    fn distributions_are_read_as_they_are_printed() {
        for text in ["uniform", "zipf:0.99", "zipf:1.2"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
        for bad in ["", "zipf", "zipf:", "zipf:0", "zipf:-1", "zipf:NaN", "zipf:11", "pareto:1", "uniform:1"]
        {
            assert!(bad.parse::<Distribution>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_value_fits_its_key_and_no_other() {
        for value_bytes in [0, 1, 3, 8, 16, 500] {
            let keys = Keys { prefix: "p/".into(), count: 10, value_bytes };
            let noise = keys.noise(&mut SmallRng::seed_from_u64(1));
            let value = keys.value(3, &noise);
            assert_eq!(keys.verify(3, &value), Ok(()));
            assert_eq!(keys.verify(4, &value).is_err(), value_bytes > 0);
            assert!(keys.verify(3, &[&value[..], b"x"].concat()).is_err());
        }
    }

    #[test]
    fn a_counter_comes_back() {
        let keys = Keys { prefix: "p/".into(), count: 10, value_bytes: 20 };
        let value = keys.counted(3, 77, &keys.noise(&mut SmallRng::seed_from_u64(1)));
        assert_eq!((keys.verify(3, &value), Keys::counter(&value)), (Ok(()), Some(77)));
        assert_eq!(Keys::counter(b"short"), None);
    }
}
