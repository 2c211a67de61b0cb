use common::{
    outbox::OutboxEvent,
    types::{EventId, EventType, TransactionCreated, TransactionFailed, TransactionProcessed},
};

use crate::ledger::Posting;

/// The events that tell how transactions ended.
pub(super) fn results(
    postings: &[(TransactionCreated, Posting)],
) -> Result<Vec<OutboxEvent>, serde_json::Error> {
    postings
        .iter()
        .map(|(transaction, posting)| result(*transaction, *posting))
        .collect()
}

/// The event that tells how a transaction ended.
fn result(
    transaction: TransactionCreated,
    posting: Posting,
) -> Result<OutboxEvent, serde_json::Error> {
    let (event_type, payload) = match posting {
        Posting::Applied(entry) => (
            EventType::TransactionProcessed,
            serde_json::to_string(&TransactionProcessed {
                transaction,
                entry_no: entry.entry_no,
                balance_after_cents: entry.balance_after_cents,
            })?,
        ),
        Posting::Rejected(failure_reason) => (
            EventType::TransactionFailed,
            serde_json::to_string(&TransactionFailed {
                transaction,
                failure_reason,
            })?,
        ),
    };
    Ok(OutboxEvent {
        event_id: EventId::new(),
        account_id: transaction.account_id,
        transaction_id: transaction.transaction_id,
        event_type,
        payload,
    })
}
