use std::{cmp::Ordering, collections::HashMap};

use metrics::counter;
use tracing::{error, warn};

use crate::event::Place;

/// The offset that has to come next in each partition, within one assignment.
///
/// The topic is neither compacted nor transactional, so its offsets have no gaps. Where the log loses
/// what an assigned consumer has not read, the client starts at the log's beginning, with no more
/// than a warning: the offsets tell.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// By partition: the epoch, and the next offset in it.
    expected: HashMap<i32, (u64, i64)>,
}

/// Records that were expected and are not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    partition: i32,
    expected: i64,
    found: i64,
}

impl Gaps {
    /// Says where an assignment starts, unless it is under way already: what the log loses before
    /// the first record came is noticed, too.
    pub(super) fn start(&mut self, at: Place) {
        let known = self.expected.get(&at.partition);
        if known.is_none_or(|(epoch, _)| *epoch < at.epoch) {
            self.expected.insert(at.partition, (at.epoch, at.offset));
        }
    }

    /// Follows a record that came; answers the gap before it.
    pub(super) fn follow(&mut self, place: Place) -> Option<Gap> {
        let next = (place.epoch, place.offset + 1);
        let (epoch, expected) = self.expected.insert(place.partition, next)?;
        if epoch != place.epoch {
            // What a new assignment begins with is compared with the log on its own.
            return None;
        }
        match place.offset.cmp(&expected) {
            Ordering::Equal => None,
            Ordering::Less => {
                warn!(
                    partition = place.partition,
                    offset = place.offset,
                    expected,
                    "records come again; repeats are recognised"
                );
                None
            }
            Ordering::Greater => Some(Gap {
                partition: place.partition,
                expected,
                found: place.offset,
            }),
        }
    }
}

impl Gap {
    /// Says it aloud.
    pub(super) fn report(self, topic: &str) {
        let Self {
            partition,
            expected,
            found,
        } = self;
        counter!(
            "consumer_offset_out_of_range_total",
            "topic" => topic.to_owned(), "partition" => partition.to_string(),
        )
        .increment(1);
        error!(
            topic,
            partition,
            expected,
            found,
            "the log lost events that were not applied: look for transactions still PENDING and \
             send them again (publisher resend)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: i32, offset: i64, epoch: u64) -> Place {
        Place {
            partition,
            offset,
            epoch,
        }
    }

    #[test]
    fn only_a_jump_ahead_within_an_assignment_is_a_gap() {
        let mut gaps = Gaps::default();
        for quiet in [
            place(0, 5, 1),
            place(0, 6, 1),
            place(1, 90, 1),
            place(0, 7, 1),
        ] {
            assert_eq!(gaps.follow(quiet), None);
        }
        let gap = Gap {
            partition: 0,
            expected: 8,
            found: 10,
        };
        assert_eq!(gaps.follow(place(0, 10, 1)), Some(gap));
        assert_eq!(gaps.follow(place(0, 11, 1)), None);
        // A log that went back, then on.
        assert_eq!(gaps.follow(place(0, 3, 1)), None);
        assert_eq!(gaps.follow(place(0, 4, 1)), None);
        // Another assignment begins where it begins.
        assert_eq!(gaps.follow(place(0, 50, 2)), None);
        assert!(gaps.follow(place(0, 52, 2)).is_some());
    }

    #[test]
    fn a_gap_before_an_assignments_first_record_is_found() {
        let mut gaps = Gaps::default();
        gaps.start(place(0, 5, 1));
        assert!(gaps.follow(place(0, 6, 1)).is_some());
        gaps.start(place(0, 7, 2));
        assert_eq!(gaps.follow(place(0, 7, 2)), None);
        // The answer came later than the first record, or for an assignment that is over.
        gaps.start(place(0, 3, 2));
        gaps.start(place(0, 3, 1));
        assert_eq!(gaps.follow(place(0, 8, 2)), None);
        assert_eq!(gaps.follow(place(0, 20, 3)), None);
    }
}
