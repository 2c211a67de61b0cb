use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::Snapshot;
use crate::book::Sent;

impl Snapshot {
    /// A payment sent after another's acknowledgement, same account, is decided after it, and so is one
    /// behind another in the batch that created both: by the numbers of the entries, and by the order of
    /// the result events, where refusals stand too. One that somebody replayed or discarded has a place
    /// of its own.
    pub(super) fn order_is_kept(&self, book: &[Sent], wrongs: &mut Vec<String>) {
        let letters = self
            .dead_letters
            .iter()
            .filter(|letter| letter.left_the_order());
        let elsewhere: HashSet<Uuid> = letters.filter_map(|letter| letter.transaction_id).collect();
        let sent: HashMap<Uuid, &Sent> = book
            .iter()
            .filter_map(|sent| Some((sent.acknowledged?.1, sent)))
            .filter(|(id, _)| !elsewhere.contains(id))
            .collect();
        let entries = self.entries.iter();
        let posted: Vec<_> = entries.map(|e| (e.account_id, e.transaction_id)).collect();
        let told: Vec<_> = self.decided().collect();
        for (what, happened) in [("entries", &posted), ("results", &told)] {
            overtaken(what, happened, &sent, wrongs);
            out_of_their_batch(what, happened, &sent, wrongs);
        }
    }
}

/// Walks through what happened, account and transaction, in order, and finds what stands behind something
/// that was sent only after its acknowledgement.
fn overtaken(
    what: &str,
    happened: &[(Uuid, Uuid)],
    sent: &HashMap<Uuid, &Sent>,
    wrongs: &mut Vec<String>,
) {
    let mut latest: HashMap<Uuid, &Sent> = HashMap::new();
    for (account, transaction) in happened {
        let Some(&this) = sent.get(transaction) else {
            continue;
        };
        let before = latest.entry(*account).or_insert(this);
        if this
            .acknowledged
            .is_some_and(|(at, _)| at < before.first_sent)
        {
            let (late, early) = (&this.payment, &before.payment);
            wrongs.push(format!("{what}: {late:?} was overtaken by {early:?}"));
        }
        if this.first_sent > before.first_sent {
            *before = this;
        }
    }
}

/// Finds what happened before something that stood before it in the batch which created both.
fn out_of_their_batch(
    what: &str,
    happened: &[(Uuid, Uuid)],
    sent: &HashMap<Uuid, &Sent>,
    wrongs: &mut Vec<String>,
) {
    let mut places: HashMap<(Uuid, &str), usize> = HashMap::new();
    for (place, (account, transaction)) in happened.iter().enumerate() {
        if let Some(this) = sent.get(transaction) {
            places.insert((*account, &this.payment.key), place);
        }
    }
    for this in sent.values() {
        let (account, key) = (this.payment.account, &*this.payment.key);
        let before = this.behind.as_deref();
        let before = before.and_then(|before| places.get(&(account, before)));
        let place = places.get(&(account, key));
        if let (Some(before), Some(place)) = (before, place)
            && place < before
        {
            wrongs.push(format!("{what}: left its place in its batch: {this:?}"));
        }
    }
}
