use std::{fmt, str::FromStr};

use thiserror::Error;

use super::Lane;

/// How many hexadecimal digits a set's text has.
const DIGITS: usize = 16;

/// A set of lanes, one bit each: lane 0 is the lowest. Its text, which a hint carries, is the 64 bits
/// in 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneSet(u64);

impl LaneSet {
    /// No lane.
    pub const EMPTY: Self = Self(0);
    /// All lanes.
    pub const ALL: Self = Self(u64::MAX);

    /// Adds a lane.
    pub fn insert(&mut self, lane: Lane) {
        self.0 |= bit(lane);
    }

    /// Whether a lane is in the set.
    #[must_use]
    pub fn contains(self, lane: Lane) -> bool {
        self.0 & bit(lane) != 0
    }

    /// The lanes that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The lanes that are in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The lanes that are in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many lanes there are in the set.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as its 64 bits, for an atomic that holds one.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set of these 64 bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The lanes in order.
    pub fn iter(self) -> impl Iterator<Item = Lane> {
        Lane::all().filter(move |lane| self.contains(*lane))
    }
}

impl FromIterator<Lane> for LaneSet {
    fn from_iter<I: IntoIterator<Item = Lane>>(lanes: I) -> Self {
        let mut set = Self::EMPTY;
        lanes.into_iter().for_each(|lane| set.insert(lane));
        set
    }
}

/// A text that is no set of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a set of lanes is 16 hexadecimal digits")]
pub struct MalformedLaneSet;

impl fmt::Display for LaneSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl FromStr for LaneSet {
    type Err = MalformedLaneSet;

    fn from_str(text: &str) -> Result<Self, MalformedLaneSet> {
        // The number's own parser would take a sign, too.
        let digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then_some(()).ok_or(MalformedLaneSet)?;
        let bits = u64::from_str_radix(text, 16);
        bits.map(Self).map_err(|_| MalformedLaneSet)
    }
}

fn bit(lane: Lane) -> u64 {
    1 << lane.number()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_holds_the_lanes_put_into_it() {
        let lanes: Vec<Lane> = Lane::all().step_by(9).collect();
        let set: LaneSet = lanes.iter().copied().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), lanes);
        assert_eq!(set.len(), lanes.len());
        assert!(set.contains(lanes[0]) && !set.contains(Lane::all().nth(1).unwrap()));
        assert_eq!(LaneSet::ALL.without(set).len(), 64 - set.len());
        assert_eq!(LaneSet::ALL.and(set), set);
        assert_eq!(Lane::all().collect::<LaneSet>(), LaneSet::ALL);
    }

    #[test]
    fn the_text_of_a_set_never_changes() {
        let lanes = [0, 5, 63].map(|number| Lane::from_number(number).unwrap());
        let set: LaneSet = lanes.into_iter().collect();
        assert_eq!(set.to_string(), "8000000000000021");
        assert_eq!(LaneSet::EMPTY.to_string(), "0000000000000000");
        assert_eq!(LaneSet::ALL.to_string(), "ffffffffffffffff");
    }

    #[test]
    fn what_is_no_set_is_not_read_as_one() {
        for text in [
            "",
            "f",
            "+00000000000000f",
            "00000000000000021",
            "lanes 0 and five",
        ] {
            assert_eq!(text.parse::<LaneSet>(), Err(MalformedLaneSet), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_set_survives_its_text(bits in any::<u64>()) {
            let set = LaneSet::from_bits(bits);
            prop_assert_eq!(set.to_string().parse(), Ok(set));
            prop_assert_eq!(set.bits(), bits);
        }
    }
}
