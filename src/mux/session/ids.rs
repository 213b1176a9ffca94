//! How streams are found by their ids: several times for each frame, so that the standard hasher is a twentieth of a request.

use std::hash::{BuildHasher, Hasher};

/// Hashes with a number that a peer, which may choose ids, does not know.
#[derive(Debug, Clone)]
pub(super) struct ById(u64);

impl Default for ById {
    fn default() -> Self {
        Self(fastrand::u64(..))
    }
}

impl BuildHasher for ById {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.0)
    }
}

/// One id's hash: the last step of MurmurHash3, in which each bit that goes in counts for all that come out.
#[derive(Debug)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u32(&mut self, id: u32) {
        let mut hash = self.0 ^ u64::from(id);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        self.0 = hash ^ (hash >> 33);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer may choose ids that differ in some of their bits only, and it is by the lowest bits of a hash that a table places.
    #[test]
    fn ids_spread_whichever_of_their_bits_differ() {
        const IDS: u32 = 1024;
        for seed in 0..20 {
            fastrand::seed(seed);
            let by_id = ById::default();
            for shift in 0..=22 {
                let mut buckets = [0; IDS as usize];
                (0..IDS).for_each(|n| buckets[(by_id.hash_one(n << shift) % u64::from(IDS)) as usize] += 1);
                let most = buckets.into_iter().max();
                assert!(most < Some(16), "{most:?} of {IDS} ids, {shift} bits to the left, are in one place");
            }
        }
    }
}
