use std::{collections::BTreeMap, fmt::Write, time::Duration};

use common::types::{Lane, LaneSet};
use tokio::time::Instant;

use super::letter::Form;

/// How many stopped lanes are named in a reason; the rest are counted.
const NAMED_MAX: usize = 3;

/// A lane whose rows are sent one at a time, and alone, because some were refused.
#[derive(Debug)]
struct Trouble {
    /// The last row to be sent so; behind it the lane is like the others again.
    until_seq: i64,
    /// When the next row may be tried.
    due: Instant,
    /// The row that stops the lane, once it is found, and why it is refused.
    culprit: Option<(i64, String)>,
    /// A dead letter that did not fit, and the form in which to try it next.
    shortened: Option<(i64, Form)>,
}

/// The lanes that are in trouble.
#[derive(Debug)]
pub(super) struct Troubles {
    by_lane: BTreeMap<Lane, Trouble>,
    retry_interval: Duration,
}

impl Troubles {
    pub(super) const fn new(retry_interval: Duration) -> Self {
        Self {
            by_lane: BTreeMap::new(),
            retry_interval,
        }
    }

    /// A row was refused in a batch with others: it may be the culprit, or any beside it.
    pub(super) fn suspect(&mut self, lane: Lane, seq: i64, now: Instant) {
        let trouble = self.by_lane.entry(lane).or_insert(Trouble {
            until_seq: seq,
            due: now,
            culprit: None,
            shortened: None,
        });
        trouble.until_seq = trouble.until_seq.max(seq);
    }

    /// A row was refused by itself: it stops its lane, until it is tried again.
    pub(super) fn stop(&mut self, lane: Lane, seq: i64, reason: String, now: Instant) {
        self.suspect(lane, seq, now);
        if let Some(trouble) = self.by_lane.get_mut(&lane) {
            trouble.culprit = Some((seq, reason));
            trouble.due = now + self.retry_interval;
        }
    }

    /// A dead letter was refused by itself in this form, because it did not fit: it is to be tried
    /// shorter. Whether that is possible is the answer.
    pub(super) fn shorten(&mut self, lane: Lane, seq: i64, form: Form) -> bool {
        if let (Some(trouble), Some(shorter)) = (self.by_lane.get_mut(&lane), form.shorter()) {
            trouble.shortened = Some((seq, shorter));
            return true;
        }
        false
    }

    /// In which form a dead letter is to be tried.
    pub(super) fn form(&self, lane: Lane, seq: i64) -> Form {
        let shortened = self.by_lane.get(&lane).and_then(|it| it.shortened);
        let own = shortened.filter(|(shortened, _)| *shortened == seq);
        own.map_or(Form::Whole, |(_, form)| form)
    }

    /// A lane in trouble is past this row: it arrived, or it became a dead letter.
    pub(super) fn passed(&mut self, lane: Lane, seq: i64, now: Instant) {
        let Some(trouble) = self.by_lane.get_mut(&lane) else {
            return;
        };
        if trouble.until_seq <= seq {
            self.by_lane.remove(&lane);
        } else if trouble
            .culprit
            .as_ref()
            .is_some_and(|(culprit, _)| *culprit <= seq)
        {
            trouble.culprit = None;
            trouble.due = now;
        }
    }

    /// A lane's first pending row lies behind all that were refused (or there is none).
    pub(super) fn over(&mut self, lane: Lane) {
        self.by_lane.remove(&lane);
    }

    /// The last row of a lane in trouble that is sent alone.
    pub(super) fn until_seq(&self, lane: Lane) -> Option<i64> {
        Some(self.by_lane.get(&lane)?.until_seq)
    }

    /// The lane that has waited longest for its next try, if one is due.
    pub(super) fn next_due(&self, now: Instant) -> Option<Lane> {
        let due = self
            .by_lane
            .iter()
            .filter(|(_, trouble)| trouble.due <= now);
        let first = due.min_by_key(|(_, trouble)| trouble.due);
        first.map(|(lane, _)| *lane)
    }

    /// When the next try is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.by_lane.values().map(|trouble| trouble.due).min()
    }

    /// Forgets lanes that belong to another instance now: it finds out by itself.
    pub(super) fn keep_only(&mut self, owned: LaneSet) {
        self.by_lane.retain(|lane, _| owned.contains(*lane));
    }

    /// The lanes in trouble.
    pub(super) fn lanes(&self) -> LaneSet {
        self.by_lane.keys().copied().collect()
    }

    /// Says which lanes are stopped by which rows; nothing if none is.
    pub(super) fn reason(&self) -> Option<String> {
        let mut stopped = self
            .by_lane
            .iter()
            .filter_map(|(lane, trouble)| Some((lane, trouble.culprit.as_ref()?)));
        let mut text = String::new();
        for (lane, (seq, reason)) in stopped.by_ref().take(NAMED_MAX) {
            let comma = if text.is_empty() { "" } else { "; " };
            let lane = lane.number();
            let _ = write!(
                text,
                "{comma}lane {lane} is stopped at outbox seq {seq}: {reason}"
            );
        }
        match stopped.count() {
            0 => (!text.is_empty()).then_some(text),
            more => Some(format!("{text}; and {more} more")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(30);

    fn lane(number: i16) -> Lane {
        Lane::from_number(number).unwrap()
    }

    #[test]
    fn a_suspect_lane_is_over_its_trouble_behind_the_last_refused_row() {
        let now = Instant::now();
        let mut troubles = Troubles::new(RETRY);
        troubles.suspect(lane(3), 10, now);
        troubles.suspect(lane(3), 12, now);
        troubles.suspect(lane(3), 11, now);
        assert_eq!(troubles.next_due(now), Some(lane(3)));
        assert_eq!(troubles.reason(), None, "nothing is found yet");
        troubles.passed(lane(3), 10, now);
        troubles.passed(lane(3), 11, now);
        assert_eq!(troubles.until_seq(lane(3)), Some(12));
        troubles.passed(lane(3), 12, now);
        assert!(troubles.lanes().is_empty());
    }

    #[test]
    fn a_stopped_lane_is_tried_again_after_the_interval() {
        let now = Instant::now();
        let mut troubles = Troubles::new(RETRY);
        troubles.suspect(lane(3), 12, now);
        troubles.stop(lane(3), 11, "too large".to_owned(), now);
        assert_eq!(troubles.next_due(now), None);
        assert_eq!(troubles.due_at(), Some(now + RETRY));
        assert_eq!(troubles.next_due(now + RETRY), Some(lane(3)));
        let reason = troubles.reason().unwrap();
        assert_eq!(reason, "lane 3 is stopped at outbox seq 11: too large");
        troubles.passed(lane(3), 11, now + RETRY);
        assert_eq!(troubles.reason(), None);
        assert_eq!(
            troubles.next_due(now + RETRY),
            Some(lane(3)),
            "row 12 is next"
        );
    }

    #[test]
    fn a_letter_that_does_not_fit_is_tried_shorter_until_its_last_form() {
        let now = Instant::now();
        let mut troubles = Troubles::new(RETRY);
        let (whole, no_value) = (Form::Whole, Form::NoValue);
        assert!(!troubles.shorten(lane(3), 11, whole), "no lane in trouble");
        troubles.suspect(lane(3), 12, now);
        assert_eq!(troubles.form(lane(3), 11), whole);
        assert!(troubles.shorten(lane(3), 11, whole));
        assert_eq!(troubles.form(lane(3), 11), no_value);
        assert_eq!(troubles.form(lane(3), 12), whole, "another letter");
        assert_eq!(troubles.next_due(now), Some(lane(3)), "at once");
        assert!(troubles.shorten(lane(3), 11, no_value));
        assert_eq!(troubles.form(lane(3), 11), Form::Bare);
        assert!(!troubles.shorten(lane(3), 11, Form::Bare));
    }

    #[test]
    fn many_stopped_lanes_are_counted() {
        let now = Instant::now();
        let mut troubles = Troubles::new(RETRY);
        for number in 0..10 {
            troubles.stop(lane(number), 1, "no".to_owned(), now);
        }
        let reason = troubles.reason().unwrap();
        assert!(reason.ends_with("; and 7 more"), "{reason}");
        troubles.keep_only([lane(9)].into_iter().collect());
        assert_eq!(
            troubles.reason().unwrap(),
            "lane 9 is stopped at outbox seq 1: no"
        );
    }
}
