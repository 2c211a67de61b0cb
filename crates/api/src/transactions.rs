//! Transactions: taken in, shown, listed.

mod model;

pub use model::Transaction;
