//! Postonce's REST service: accepts payment instructions and shows what became of them.

pub mod intake;
pub mod transactions;
