use std::time::Duration;

use common::faults::{self, Mutation};
use tracing::warn;

use super::{Worker, setback::Setback};
use crate::{
    event::Item,
    failure::{describe, signature},
    parked::FirstFailure,
    slice::{self, ApplyError, Expected, Outcome},
};

/// How long one attempt may take before its connection counts as dead. Statements have a shorter
/// limit of their own, which only a server that is alive enforces. With the wait for a connection it
/// stays below the grace period of a shutdown, so that a slow attempt comes to its end and the
/// group is left behind it.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);

impl Worker {
    /// Tries a part once; a record that fails by itself, and is alone, is parked.
    pub(super) async fn attempt(
        &mut self,
        items: &[Item],
        is_suspect: bool,
    ) -> Result<Vec<Outcome>, Setback> {
        if faults::mutated(Mutation::OffsetsBeforeCommit) {
            self.intake.commit(items);
        }
        let expected = if self.cautious_slices == 0 && !is_suspect {
            Expected::New
        } else {
            Expected::Any
        };
        let work = slice::apply(&self.pool, ATTEMPT_MAX, &self.kafka, items, expected);
        match self.intake.serve_during(work).await {
            Ok(outcomes) => Ok(outcomes),
            Err(error) => match Setback::of(error, items.len()) {
                Setback::Alone(error) => Ok(vec![self.park(&items[0], &error).await?]),
                setback => Err(setback),
            },
        }
    }

    /// Parks an event that failed by itself, for the loop that retries; unless so many accounts fail
    /// alike that it is not the event's fault.
    async fn park(&mut self, item: &Item, error: &ApplyError) -> Result<Outcome, Setback> {
        let Item::Event(event) = item else {
            // Its letter could not be written, and there is nowhere else to put it.
            return Err(Setback::Systemic(Some(describe(error))));
        };
        let account = event.transaction.account_id;
        if self.failures.failed(account, &signature(error)) {
            return Err(Setback::Systemic(None));
        }
        let failure = FirstFailure {
            error: describe(error),
            pause: self.retry_pauses.pause(1, rand::random()),
        };
        let parking = slice::park(&self.pool, ATTEMPT_MAX, &self.kafka, item, &failure);
        let outcome = self.intake.serve_during(parking).await;
        let outcome = outcome.map_err(|error| match Setback::of(error, 1) {
            Setback::Alone(error) => Setback::Systemic(Some(format!(
                "event {} can be neither applied nor parked: {}",
                event.id(),
                describe(&error)
            ))),
            setback => setback,
        })?;
        if outcome == Outcome::Parked {
            self.failures.parked();
            warn!(
                event_id = %event.id(), account_id = %account, sqlstate = error.sqlstate(),
                error = failure.error, attempt = 1, pause = ?failure.pause,
                "an event cannot be applied: it is parked, and later ones of its account behind it",
            );
        }
        Ok(outcome)
    }
}
