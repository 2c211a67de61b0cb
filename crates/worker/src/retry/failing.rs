//! What the loop does when something fails.

use std::iter;

use common::types::{DeadLetterClass, DeadLetterStage, Lane};
use tracing::{debug, error, warn};

use super::{
    Retries, Step, attempt,
    dead_letter::{self, Cause},
    queue::Parked,
    sql,
};
use crate::{
    failure::{self, Class},
    metrics,
    slice::{ApplyError, Inapplicable},
};

/// How many heads are looked at, at least, for failures that are alike.
const COMPARED_MIN: u32 = 1_000;

impl Retries {
    /// Events that were tried together failed.
    pub(super) async fn failed(
        &mut self,
        events: &[Parked],
        error: ApplyError,
        is_probe: bool,
    ) -> Result<Step, ApplyError> {
        match (failure::classify(&error), events) {
            (Class::OfOneEvent, [head]) => self.head_failed(head, &error, is_probe).await,
            (Class::OfOneEvent | Class::TooLong, [_, _, ..]) => Ok(self.divide()),
            _ => Err(error),
        }
    }

    /// One of the events that were tried together has no transaction, and can never be applied.
    pub(super) async fn found_no_row(
        &mut self,
        events: &[Parked],
        is_probe: bool,
    ) -> Result<Step, ApplyError> {
        let [head] = events else {
            return Ok(self.divide());
        };
        if is_probe && self.failures.another_complains() {
            return Ok(Step::StandingStill);
        }
        let cause = Cause {
            class: DeadLetterClass::Mismatch,
            stage: DeadLetterStage::Compare,
            message: &Inapplicable::NoSuchTransaction.to_string(),
            has_transaction: false,
        };
        self.give_up(head, cause).await
    }

    /// The first event of those that were tried is tried alone next.
    fn divide(&mut self) -> Step {
        self.ambition = 1;
        Step::Divided
    }

    /// A head failed alone, by itself.
    ///
    /// Where this loop alone complains, it may be that failures could not be written down: to write this
    /// one down shows whether they can be. It is not counted towards a fault of the system, or head after
    /// head would make one of what is not mended yet.
    async fn head_failed(
        &mut self,
        head: &Parked,
        error: &ApplyError,
        is_probe: bool,
    ) -> Result<Step, ApplyError> {
        let is_systemic = if is_probe {
            self.failures.another_complains()
        } else {
            let signature = failure::signature(error);
            self.failures.failed(head.account, &signature)
        };
        if is_systemic {
            return Ok(self.leaves_it_to_others());
        }
        let message = failure::describe(error);
        let retries_max = i32::try_from(self.settings.retries_max).unwrap_or(i32::MAX);
        // The first attempt is no retry.
        if head.attempts < retries_max {
            return self.try_again_later(head, &message).await;
        }
        if self.is_one_of_many(head, &message).await? {
            return Ok(self.leaves_it_to_others());
        }
        let cause = Cause {
            class: DeadLetterClass::RetriesExhausted,
            stage: DeadLetterStage::Apply,
            message: &message,
            has_transaction: true,
        };
        self.give_up(head, cause).await
    }

    /// Something else says that the system is at fault. What this loop complained of is over, as it came as
    /// far as the head's own failure, and must not keep the one that could show the rest.
    fn leaves_it_to_others(&mut self) -> Step {
        self.goes_on();
        Step::StandingStill
    }

    /// Whether so many other heads failed alike that this one may not be given up. Other workers may have
    /// met them, and have found the system at fault: a worker that has nothing else to do would give them
    /// up one by one. What failed before this worker applied something shows nothing.
    async fn is_one_of_many(&self, head: &Parked, message: &str) -> Result<bool, ApplyError> {
        let since = self.failures.since_posted();
        let max = self.settings.systemic_failures_max;
        let heads_max = i64::from(max.saturating_mul(2).max(COMPARED_MIN));
        let others = self
            .read(async |connection| {
                sql::failures_of_others(connection, head.account, since, heads_max).await
            })
            .await?;
        let alike = others
            .iter()
            .filter(|other| failure::are_alike(other, message));
        Ok(self.failures.others_failed(alike.count(), message))
    }

    async fn try_again_later(&mut self, head: &Parked, message: &str) -> Result<Step, ApplyError> {
        let attempts = head.attempts.saturating_add(1);
        let pauses = self.settings.retry_pauses();
        let pause = pauses.pause(attempts.unsigned_abs(), rand::random());
        let written = self.work(async |connection| {
            attempt::record_failure(connection, head, pause, message).await
        });
        if !written.await? {
            return Ok(Step::Busy);
        }
        self.goes_on();
        metrics::parked_retried(usize::from(head.attempts > 0));
        warn!(
            event_id = %head.event, account_id = %head.account, attempts, ?pause, reason = message,
            "a parked event failed again, and is tried again after the pause"
        );
        Ok(Step::Failed)
    }

    async fn give_up(&mut self, head: &Parked, cause: Cause<'_>) -> Result<Step, ApplyError> {
        let topic = &self.kafka.dead_letters_topic;
        let letter =
            self.work(async |connection| dead_letter::bury(connection, topic, head, cause).await);
        let Some(dead_letter_id) = letter.await? else {
            return Ok(Step::Busy);
        };
        self.goes_on();
        self.wake_up
            .hint(iter::once(Lane::of(head.account)).collect());
        metrics::parked_retried(usize::from(head.attempts > 0));
        metrics::dead_lettered(cause.class, 1);
        error!(
            %dead_letter_id,
            class = cause.class.as_str(),
            event_id = %head.event,
            account_id = %head.account,
            attempts = head.attempts.saturating_add(1),
            reason = cause.message,
            "a parked event is given up: it is a dead letter, and its account goes on"
        );
        Ok(Step::GaveUp)
    }

    /// Neither events nor their failure could be written down.
    pub(super) fn gave_no_answer(&mut self, error: &ApplyError) -> Step {
        match failure::classify(error) {
            Class::Collision => {
                self.ambition = (self.ambition / 2).max(1);
                debug!(%error, "a retry collided with another transaction");
                Step::Collided
            }
            Class::Away | Class::TooLong => {
                if let ApplyError::Database(error) = error {
                    metrics::acquire_failed(error);
                }
                warn!(%error, sqlstate = error.sqlstate(), "parked events are tried again later");
                self.ambition = 1;
                self.database.set_unready(error.to_string());
                Step::Away
            }
            // An event that fails by itself has its own way; here its failure could not be written
            // down, and there is no place left to put it.
            Class::Systemic | Class::OfOneEvent => {
                self.database.set_ready();
                self.ambition = 1;
                self.stands_still = true;
                self.failures.stand_still(&failure::describe(error));
                Step::StandingStill
            }
        }
    }

    /// Takes back what this loop complained of, if it did: something came to its end, be it that a failure
    /// was written down, or nothing is left to do.
    pub(super) fn goes_on(&mut self) {
        if std::mem::take(&mut self.stands_still) {
            self.failures.recovered();
        }
    }
}
