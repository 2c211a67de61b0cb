//! Dead letters of records that can never be applied: what cannot be read, and what claims anything but
//! what the transaction's row says.
//!
//! Such a letter touches neither `processed_events` nor a transaction. A forged event bears the id of
//! somebody else's: closing that would lose the genuine one.

mod sql;

use std::collections::HashMap;

use common::types::{AccountId, DeadLetterClass, DeadLetterStage, DeadLetterState, EventId};
use sqlx::PgConnection;
use tracing::error;
use uuid::Uuid;

use crate::{
    config::KafkaSettings,
    event::{Item, Place, Raw, Undecodable},
    failure::{chain, storable},
    metrics,
    slice::{ApplyError, Inapplicable},
};

/// The header by which a replayed record names the dead letter that it was.
const DEAD_LETTER_ID: &str = "dlq.id";

/// A record that is given up.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    place: Place,
    raw: &'a Raw,
    account_id: AccountId,
    event_id: Option<EventId>,
    class: DeadLetterClass,
    stage: DeadLetterStage,
    message: String,
    /// The dead letter that it was before, as it says itself.
    claimed_id: Option<Uuid>,
}

impl<'a> Letter<'a> {
    /// The letter of a record that is no event.
    pub(crate) fn unusable(item: &'a Item, reason: &Undecodable) -> Self {
        let stage = DeadLetterStage::Decode;
        Self::new(item, reason.class(), stage, &chain(reason))
    }

    /// The letter of an event that claims what its transaction's row does not say.
    pub(crate) fn inapplicable(item: &'a Item, reason: Inapplicable) -> Self {
        let (class, stage) = (DeadLetterClass::Mismatch, DeadLetterStage::Compare);
        Self::new(item, class, stage, &reason.to_string())
    }

    fn new(item: &'a Item, class: DeadLetterClass, stage: DeadLetterStage, message: &str) -> Self {
        Self {
            place: item.place(),
            raw: item.raw(),
            account_id: item.account_id(),
            event_id: item.event_id(),
            class,
            stage,
            message: storable(message),
            claimed_id: claimed_id(item.raw()),
        }
    }
}

fn claimed_id(raw: &Raw) -> Option<Uuid> {
    let headers = raw.headers();
    // The publisher appends its own behind whatever the record brought along.
    let mut latest_first = headers.0.iter().rev();
    let (_, value) = latest_first.find(|(name, _)| name == DEAD_LETTER_ID)?;
    Uuid::try_parse_ascii(value.bytes()?).ok()
}

/// Writes letters down, once each, and answers for each the id under which it died now; none where that
/// was written before. The publisher is told through the outbox. The caller commits, and then reports.
///
/// A record that was replayed and dies again comes back to its own letter. That its value is the letter's
/// keeps whoever writes to the topic from touching any other.
///
/// # Errors
/// The database's.
pub(crate) async fn write(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    letters: &[Letter<'_>],
) -> Result<Vec<Option<Uuid>>, ApplyError> {
    if letters.is_empty() {
        return Ok(Vec::new());
    }
    let replayed: Vec<&Letter<'_>> = letters
        .iter()
        .filter(|letter| letter.claimed_id.is_some())
        .collect();
    let known = if replayed.is_empty() {
        HashMap::new()
    } else {
        sql::states(connection, &replayed).await?
    };
    let state_of = |letter: &Letter<'_>| known.get(&(letter.claimed_id?, letter.place)).copied();
    let (mut first, mut again) = (Vec::new(), Vec::<(Uuid, &Letter<'_>)>::new());
    for letter in letters {
        match (state_of(letter), letter.claimed_id) {
            (Some(DeadLetterState::Replayed), Some(id)) => {
                if again.iter().all(|(known, _)| *known != id) {
                    again.push((id, letter));
                }
            }
            // It came back already, and this is a repeat.
            (Some(_), _) => {}
            (None, _) => first.push((Uuid::now_v7(), letter)),
        }
    }
    let mut died = sql::insert(connection, &kafka.transactions_topic, &first).await?;
    died.extend(sql::die_again(connection, &again).await?);
    let dead: Vec<_> = first
        .into_iter()
        .chain(again)
        .filter(|(id, _)| died.contains(id))
        .collect();
    let announced: Vec<Announced> = dead
        .iter()
        .map(|(id, letter)| Announced {
            id: *id,
            account_id: letter.account_id,
            event_id: letter.event_id.map(|id| id.0),
        })
        .collect();
    announce(connection, &kafka.dead_letters_topic, &announced).await?;
    let ids: HashMap<Place, Uuid> = dead
        .iter()
        .map(|(id, letter)| (letter.place, *id))
        .collect();
    Ok(letters
        .iter()
        .map(|letter| ids.get(&letter.place).copied())
        .collect())
}

/// A letter that is to leave on the dead letter topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    pub(crate) id: Uuid,
    pub(crate) account_id: AccountId,
    pub(crate) event_id: Option<Uuid>,
}

/// Writes the outbox rows that bring letters to their topic. The caller commits.
///
/// # Errors
/// The database's, or that rows were not as planned.
pub(crate) async fn announce(
    connection: &mut PgConnection,
    topic: &str,
    letters: &[Announced],
) -> Result<(), ApplyError> {
    if letters.is_empty() {
        return Ok(());
    }
    let written = sql::announce(connection, topic, letters).await?;
    ApplyError::check("outbox_events", letters.len(), written)
}

/// Tells of letters that were committed.
pub(crate) fn report(letters: &[Letter<'_>], ids: &[Option<Uuid>]) {
    for (letter, id) in letters.iter().zip(ids) {
        let Some(dead_letter_id) = id else { continue };
        metrics::dead_lettered(letter.class, 1);
        error!(
            %dead_letter_id,
            class = letter.class.as_str(),
            partition = letter.place.partition,
            offset = letter.place.offset,
            event_id = letter.event_id.map(tracing::field::display),
            account_id = %letter.account_id,
            reason = letter.message,
            "a record can never be applied: it is a dead letter"
        );
    }
}
