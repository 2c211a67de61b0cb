//! Records that nobody of ours wrote.

use common::types::{AccountId, EventEnvelope, EventId, EventType};
use serde_json::json;
use uuid::Uuid;

use super::seed::Dice;
use crate::{book::Sent, kafka::Record};

/// The header that tells a forged record from ours when they are counted. The worker does not know it.
pub(super) const MARK: &str = "forged-by";

/// A record that claims something about a payment which its row does not say, or that cannot be read.
pub(super) fn forge(victim: &Sent, partitions: i32, dice: &mut Dice) -> Record {
    let payment = &victim.payment;
    let id = victim.acknowledged.map_or_else(Uuid::now_v7, |(_, id)| id);
    let mut payload = payment.body();
    payload["schema_version"] = 1.into();
    payload["transaction_id"] = id.to_string().into();
    let mut record = Record {
        partition: i32::try_from(dice.below(u64::from(partitions.unsigned_abs()))).unwrap_or(0),
        offset: 0,
        key: payment.account.to_string(),
        headers: headers(id, payment.account),
        value: Vec::new(),
    };
    match dice.below(5) {
        0 => payload["amount_cents"] = json!(payment.amount_cents + 1_000_000),
        1 => payload["schema_version"] = json!(99),
        2 => payload["currency"] = json!("USD"),
        3 => {
            let stranger = Uuid::now_v7();
            payload["transaction_id"] = stranger.to_string().into();
            record.headers = headers(stranger, payment.account);
        }
        _ => payload = json!("no event at all"),
    }
    // No two are alike: each has to have a dead letter of its own.
    let serial = dice.below(u64::MAX).to_string();
    record.headers.push((MARK.to_owned(), serial));
    record.value = payload.to_string().into_bytes();
    record
}

fn headers(id: Uuid, account: Uuid) -> Vec<(String, String)> {
    let envelope = EventEnvelope {
        id: EventId(id),
        event_type: EventType::TransactionCreated,
        time: "2026-11-21T10:00:00.123456Z".parse().expect("a time"),
        account_id: AccountId(account),
    };
    let headers = envelope.headers().into_iter();
    headers
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
