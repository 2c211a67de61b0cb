//! What of a slice is not posted: events that are parked, and records that become dead letters.

use common::{faults, types::DeadLetterClass};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{ApplyError, Outcome};
use crate::{
    config::KafkaSettings,
    dead_letters::{self, Letter},
    event::{Event, Item},
    metrics,
    parked::{self, FirstFailure},
    rejections,
};

/// What was set aside, to be told once it is committed.
#[derive(Debug, Default)]
pub(super) struct SetAside<'a> {
    letters: Vec<Letter<'a>>,
    letter_ids: Vec<Option<Uuid>>,
    parked: usize,
    /// Copies of rejections.
    copies: usize,
}

/// Writes down what is not posted, behind the accounts' locks. An outcome whose record was parked or made
/// a dead letter before turns into a duplicate. Most slices have nothing of the kind.
pub(super) async fn write<'a>(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    items: &'a [Item],
    outcomes: &mut [Outcome],
    head: Option<&FirstFailure>,
) -> Result<SetAside<'a>, ApplyError> {
    let mut aside = SetAside {
        copies: copy_rejections(connection, kafka, items, outcomes).await?,
        ..SetAside::default()
    };
    if outcomes.iter().all(Outcome::is_common) {
        return Ok(aside);
    }
    aside.parked = park(connection, kafka, items, outcomes, head).await?;
    aside.letters = letters(items, outcomes);
    aside.letter_ids = dead_letters::write(connection, kafka, &aside.letters).await?;
    let dead = outcomes.iter_mut().filter(|outcome| outcome.is_dead());
    for (outcome, id) in dead.zip(&aside.letter_ids) {
        if id.is_none() {
            *outcome = Outcome::Duplicate;
        }
    }
    if aside.parked > 0 {
        faults::point("worker.park_before_commit");
    }
    Ok(aside)
}

/// Copies what was rejected, where that is asked for.
async fn copy_rejections(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    items: &[Item],
    outcomes: &[Outcome],
) -> Result<usize, ApplyError> {
    if !kafka.dead_letter_rejections {
        return Ok(0);
    }
    let rejected: Vec<_> = items
        .iter()
        .zip(outcomes)
        .filter_map(|(item, outcome)| Some((item.event()?, outcome.posting()?.failure_reason()?)))
        .collect();
    rejections::copy(connection, kafka, &rejected).await
}

/// Parks what is to be parked, and answers how many that were.
async fn park(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    items: &[Item],
    outcomes: &mut [Outcome],
    head: Option<&FirstFailure>,
) -> Result<usize, ApplyError> {
    let mut waiting: Vec<(&Event, &mut Outcome)> = items
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| **outcome == Outcome::Parked)
        .filter_map(|(item, outcome)| Some((item.event()?, outcome)))
        .collect();
    let events: Vec<&Event> = waiting.iter().map(|(event, _)| *event).collect();
    let mut parked = parked::park(connection, &kafka.transactions_topic, &events, head).await?;
    let count = parked.len();
    for (event, outcome) in &mut waiting {
        // Of repeats in the slice it is the first that was parked.
        if !parked.remove(&event.id()) {
            **outcome = Outcome::Duplicate;
        }
    }
    Ok(count)
}

/// The letters of the records that are dead, in their order.
fn letters<'a>(items: &'a [Item], outcomes: &[Outcome]) -> Vec<Letter<'a>> {
    let letter = |(item, outcome): (&'a Item, &Outcome)| match (outcome, item) {
        (Outcome::Dead(reason), _) => Some(Letter::inapplicable(item, *reason)),
        (Outcome::Unusable, Item::Unusable(unusable)) => {
            Some(Letter::unusable(item, &unusable.reason))
        }
        _ => None,
    };
    items.iter().zip(outcomes).filter_map(letter).collect()
}

impl SetAside<'_> {
    /// Tells of it, behind the commit.
    pub(super) fn committed(&self) {
        if self.parked > 0 {
            faults::point("worker.park_after_commit");
        }
        dead_letters::report(&self.letters, &self.letter_ids);
        metrics::dead_lettered(DeadLetterClass::Rejected, self.copies);
    }
}
