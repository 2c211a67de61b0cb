//! Postonce's worker: reads `transaction.created` events and posts their transactions to the ledger.

pub mod event;
pub mod ledger;
pub mod slice;
