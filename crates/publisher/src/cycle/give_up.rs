//! A row that the broker refuses for good becomes a dead letter, and its lane goes on.

mod sql;

use common::{
    faults,
    types::{AccountId, EventEnvelope, EventId, EventType, RecordHeaders},
};
use sqlx::{Connection, Error, PgConnection};
use tracing::{error, warn};
use uuid::Uuid;

use self::sql::{Failure, RefusedRow};
use super::Refusal;

/// Makes a dead letter of a refused row, in one transaction with all that belongs to it, and takes
/// the row off; the answer is the letter's id.
///
/// There is none if the row is gone, or was sent before by somebody whose mark was lost and its event
/// is in the worker's hands: then nothing waits for a letter.
pub(super) async fn give_up(
    connection: &mut PgConnection,
    refusal: &Refusal,
    dead_letters_topic: &str,
    keeps_row: bool,
) -> Result<Option<Uuid>, Error> {
    let mut transaction = connection.begin().await?;
    sql::commit_durably(&mut transaction).await?;
    let (seq, account_id) = (refusal.row.seq, refusal.row.account_id);
    let Some(row) = sql::lock_row(&mut transaction, seq, account_id).await? else {
        return Ok(None);
    };
    let letter = match row.dead_letter_id {
        None => lay_down(&mut transaction, &row, &refusal.reason).await?,
        Some(id) => bring_back(&mut transaction, id, &row, &refusal.reason).await?,
    };
    if let Some(id) = letter {
        expect_one(sql::announce(&mut transaction, id, &row, dead_letters_topic).await?)?;
    }
    let taken = sql::take_off(&mut transaction, &row, keeps_row, &refusal.reason).await?;
    expect_one(taken)?;
    faults::point("publisher.letter_before_commit");
    transaction.commit().await?;
    faults::point("publisher.letter_after_commit");
    tell(refusal, letter);
    Ok(letter)
}

/// Writes an event's letter.
async fn lay_down(
    connection: &mut PgConnection,
    row: &RefusedRow,
    reason: &str,
) -> Result<Option<Uuid>, Error> {
    let mut transaction_id = None;
    if row.event_type == Some(EventType::TransactionCreated) {
        let waits = sql::lock_transaction(connection, row.aggregate_id, row.account_id).await?;
        if waits == Some(false) {
            return Ok(None);
        }
        transaction_id = waits.map(|_| row.aggregate_id);
    }
    let failure = Failure::of(reason, row);
    let headers = headers(row)?;
    // A letter that is there and was not replayed would have its transaction wait for it, not for us.
    let letter = sql::insert_letter(connection, row, transaction_id, &headers, &failure).await?;
    let letter = letter.ok_or(Error::RowNotFound)?;
    if let Some(transaction_id) = transaction_id {
        close(connection, row, transaction_id).await?;
    }
    Ok(Some(letter))
}

/// Takes a replay that was refused back to the letter it is the replay of.
async fn bring_back(
    connection: &mut PgConnection,
    id: Uuid,
    row: &RefusedRow,
    reason: &str,
) -> Result<Option<Uuid>, Error> {
    let Some(transaction_id) = sql::lock_replayed(connection, id, row.account_id).await? else {
        return Ok(None);
    };
    if let Some(transaction_id) = transaction_id {
        let waits = sql::lock_transaction(connection, transaction_id, row.account_id).await?;
        if !waits.ok_or(Error::RowNotFound)? {
            return Ok(None);
        }
        close(connection, row, transaction_id).await?;
    }
    let failure = Failure::of(reason, row);
    expect_one(sql::return_letter(connection, id, row.account_id, &failure).await?)?;
    Ok(Some(id))
}

/// The transaction waits for its letter, and its event is closed meanwhile.
async fn close(
    connection: &mut PgConnection,
    row: &RefusedRow,
    transaction_id: Uuid,
) -> Result<(), Error> {
    sql::close_event(connection, transaction_id, row.account_id).await?;
    expect_one(sql::suspend(connection, transaction_id, row.account_id).await?)
}

/// The headers that the row was sent with.
fn headers(row: &RefusedRow) -> Result<String, Error> {
    let envelope = EventEnvelope {
        id: EventId(row.event_id),
        event_type: row.event_type.ok_or(Error::RowNotFound)?,
        time: row.created_at,
        account_id: AccountId(row.account_id),
    };
    let headers = envelope.headers();
    let headers: RecordHeaders = headers
        .iter()
        .map(|(name, value)| (*name, Some(value.as_bytes())))
        .collect();
    serde_json::to_string(&headers).map_err(|error| Error::Encode(error.into()))
}

fn expect_one(rows: u64) -> Result<(), Error> {
    if rows == 1 {
        Ok(())
    } else {
        Err(Error::RowNotFound)
    }
}

fn tell(refusal: &Refusal, letter: Option<Uuid>) {
    let (seq, account_id) = (refusal.row.seq, refusal.row.account_id);
    let reason = &refusal.reason;
    let Some(dead_letter_id) = letter else {
        warn!(
            seq,
            %account_id,
            reason,
            "an outbox row is refused for good, but it was sent before: it is taken off"
        );
        return;
    };
    error!(
        seq,
        %account_id,
        %dead_letter_id,
        reason,
        "an outbox row is refused for good: it is a dead letter now"
    );
}
