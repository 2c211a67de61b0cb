use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

/// Cents of a CREDIT.
const CREDIT_CENTS: u32 = 100;
/// Cents of a DEBIT: less than the credits bring, so that no account runs dry.
const DEBIT_CENTS: u32 = 50;
/// One of so many instructions is a DEBIT.
const DEBIT_EVERY: u64 = 4;
/// The length of a UUID as text.
const UUID_TEXT: usize = 36;

/// An endless supply of payment instructions, each under a key of its own, spread over accounts
/// without a pattern that a cache could like. Clones draw from the same supply.
#[derive(Clone, Debug)]
pub struct Instructions(Arc<Supply>);

#[derive(Debug)]
struct Supply {
    accounts: Vec<Uuid>,
    seed: u64,
    next: AtomicU64,
}

/// One payment instruction.
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    account: Uuid,
    key: Uuid,
    debit: bool,
}

impl Instructions {
    /// A supply for these accounts. Two supplies must not share a seed.
    ///
    /// # Panics
    /// If there is no account.
    #[must_use]
    pub fn new(accounts: Vec<Uuid>, seed: u64) -> Self {
        assert!(!accounts.is_empty(), "instructions need an account");
        Self(Arc::new(Supply {
            accounts,
            seed,
            next: AtomicU64::new(0),
        }))
    }

    /// The accounts that the payments are for.
    #[must_use]
    pub fn accounts(&self) -> &[Uuid] {
        &self.0.accounts
    }

    /// The next one.
    #[must_use]
    pub fn draw(&self) -> Instruction {
        let Supply { accounts, seed, .. } = &*self.0;
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mixed = mix(number.wrapping_add(*seed));
        let place = usize::try_from(mixed >> 16).unwrap_or_default() % accounts.len();
        Instruction {
            account: accounts[place],
            key: Uuid::from_u64_pair(mixed, *seed),
            debit: number % DEBIT_EVERY == DEBIT_EVERY - 1,
        }
    }
}

impl Instruction {
    /// The idempotency key, as it stands in the header.
    #[must_use]
    pub fn key(&self) -> [u8; UUID_TEXT] {
        text(self.key)
    }

    /// Appends the body of a request.
    pub fn write_body(&self, to: &mut Vec<u8>) {
        self.write_fields(to);
        to.push(b'}');
    }

    /// Appends an item of a batch, which has its key with it.
    pub fn write_item(&self, to: &mut Vec<u8>) {
        self.write_fields(to);
        to.extend_from_slice(b",\"idempotency_key\":\"");
        to.extend_from_slice(&self.key());
        to.extend_from_slice(b"\"}");
    }

    fn write_fields(&self, to: &mut Vec<u8>) {
        let (kind, cents) = if self.debit {
            ("DEBIT", DEBIT_CENTS)
        } else {
            ("CREDIT", CREDIT_CENTS)
        };
        to.extend_from_slice(b"{\"account_id\":\"");
        to.extend_from_slice(&text(self.account));
        to.extend_from_slice(b"\",\"amount_cents\":");
        // Writing to a Vec cannot fail.
        let _ = write!(to, "{cents},\"currency\":\"EUR\",\"type\":\"{kind}\"");
    }
}

/// The body of a batch of so many instructions.
#[must_use]
pub(super) fn batch(instructions: &Instructions, items: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + items * 180);
    body.extend_from_slice(b"{\"transactions\":[");
    for item in 0..items {
        if item > 0 {
            body.push(b',');
        }
        instructions.draw().write_item(&mut body);
    }
    body.extend_from_slice(b"]}");
    body
}

fn text(id: Uuid) -> [u8; UUID_TEXT] {
    let mut text = [0; UUID_TEXT];
    id.hyphenated().encode_lower(&mut text);
    text
}

/// `SplitMix64`'s finalizer (Steele, Lea, Flood 2014): one to one, so that keys never repeat, and
/// without order, so that they meet the index as keys of real clients do.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn keys_never_repeat_and_accounts_get_even_shares() {
        let accounts: Vec<_> = (0..10).map(|_| Uuid::now_v7()).collect();
        let supply = Instructions::new(accounts, 7);
        let drawn: Vec<_> = (0..10_000).map(|_| supply.draw()).collect();
        let keys: HashSet<_> = drawn.iter().map(Instruction::key).collect();
        assert_eq!(keys.len(), drawn.len());
        for account in supply.accounts() {
            let share = drawn.iter().filter(|i| i.account == *account).count();
            assert!((800..1_200).contains(&share), "{share} of 10,000");
        }
    }

    #[test]
    fn a_batch_is_json_with_a_key_for_each_item() {
        let supply = Instructions::new(vec![Uuid::now_v7()], 1);
        let body: Value = serde_json::from_slice(&batch(&supply, 8)).unwrap();
        let items = body["transactions"].as_array().unwrap();
        assert_eq!(items.len(), 8);
        assert!(items.iter().all(|item| item["idempotency_key"].is_string()));
        let debits = items.iter().filter(|item| item["type"] == "DEBIT").count();
        assert_eq!(debits, 2);
    }
}
