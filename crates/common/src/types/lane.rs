use super::AccountId;

/// How many lanes there are. Fixed for the life of a database: the lane is stored in each row.
pub const LANES: u8 = 64;

/// A slice of all accounts, 0 to 63. A lane is owned by one publisher at a time and all its events
/// go to one partition, which keeps an account's events in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u8);

impl Lane {
    /// The lane of an account: its id's two halves through the finalizer of SplitMix64 (Steele, Lea
    /// and Flood, OOPSLA 2014), of which the top 6 bits count. Ids of version 7 share their leading
    /// bytes and counted ones all but their last, so every bit has to reach the top ones.
    #[must_use]
    pub fn of(account: AccountId) -> Self {
        let (high, low) = account.0.as_u64_pair();
        Self((mix(high ^ mix(low)) >> 58).to_le_bytes()[0])
    }

    /// All lanes, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..LANES).map(Self)
    }

    /// The lane's number, 0 to 63, as the database stores it.
    #[must_use]
    pub fn number(self) -> i16 {
        i16::from(self.0)
    }

    /// The partition this lane's events go to, for a topic of so many partitions (at least 1).
    #[must_use]
    pub fn partition(self, partitions: i32) -> i32 {
        i32::from(self.0) % partitions.max(1)
    }

    /// The lane of a number from the database; none if it is not 0 to 63.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        u8::try_from(number)
            .ok()
            .filter(|lane| *lane < LANES)
            .map(Self)
    }
}

/// The finalizer of SplitMix64: a bijection in which each input bit flips half of the output bits.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_hash_never_changes() {
        let vectors = [
            ("00000000-0000-0000-0000-000000000000", 0),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", 53),
            ("018f4e6c-0000-7000-8000-000000000001", 47),
            ("018f4e6c-0000-7000-8000-000000000002", 50),
            ("6f9619ff-8b86-d011-b42d-00c04fc964ff", 24),
        ];
        for (id, lane) in vectors {
            assert_eq!(
                Lane::of(AccountId(id.parse().unwrap())).number(),
                lane,
                "{id}"
            );
        }
    }

    #[test]
    fn new_accounts_spread_over_the_lanes() {
        let mut seen = [0_u32; LANES as usize];
        for _ in 0..6400 {
            seen[usize::try_from(Lane::of(AccountId::new()).number()).unwrap()] += 1;
        }
        // 100 are expected in each, with a standard deviation of 10.
        assert!(
            seen.iter().all(|count| (30..200).contains(count)),
            "{seen:?}"
        );
    }

    proptest! {
        #[test]
        fn a_lane_survives_the_database(id in any::<u128>()) {
            let lane = Lane::of(AccountId(Uuid::from_u128(id)));
            prop_assert_eq!(Lane::from_number(lane.number()), Some(lane));
        }

        #[test]
        fn a_partition_is_one_of_the_topic(id in any::<u128>(), partitions in 1..1000_i32) {
            let lane = Lane::of(AccountId(Uuid::from_u128(id)));
            prop_assert!((0..partitions).contains(&lane.partition(partitions)));
        }
    }
}
