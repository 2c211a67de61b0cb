use common::types::Lane;

/// A set of lanes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneSet(u64);

impl LaneSet {
    /// No lane.
    pub(crate) const EMPTY: Self = Self(0);
    /// All lanes.
    pub(crate) const ALL: Self = Self(u64::MAX);

    /// Adds a lane.
    pub(crate) fn insert(&mut self, lane: Lane) {
        self.0 |= bit(lane);
    }

    /// Whether a lane is in the set.
    #[must_use]
    pub(crate) fn contains(self, lane: Lane) -> bool {
        self.0 & bit(lane) != 0
    }

    /// The lanes that are in both sets.
    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The lanes that are in either set.
    #[must_use]
    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The lanes that are in this set and not in the other.
    #[must_use]
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many lanes there are in the set.
    #[must_use]
    pub(crate) const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    #[must_use]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The lanes in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Lane> {
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

fn bit(lane: Lane) -> u64 {
    1 << lane.number()
}

#[cfg(test)]
mod tests {
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
}
