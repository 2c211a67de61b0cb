//! The way back: reports come in, rows are marked.

use std::mem;

use common::{
    db::ErrorClass,
    faults,
    types::{Lane, LaneSet},
};
use rdkafka::error::RDKafkaErrorCode;
use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::{debug, error};

use super::{
    Cycle, Refusal,
    flights::{Kind, Route, SentRow},
    give_up::give_up,
    seconds_since, sql,
};
use crate::{
    courier::{Report, Verdict, is_for_good},
    settings::DEAD_LETTERS,
};

impl Cycle {
    /// Takes in the reports that are there. Whether there were any is the answer.
    pub(super) fn gather(&mut self) -> bool {
        let mut any = false;
        for route in [Route::Main, Route::Probe] {
            while let Some(report) = self.couriers.next_report(route) {
                any = true;
                self.land(route, report);
            }
        }
        any
    }

    fn land(&mut self, route: Route, report: Report) {
        let Some((lane, row)) = self.flights.land(report.slot) else {
            return;
        };
        if report.verdict != Verdict::Delivered {
            // The row still waits, and no hint tells of it again.
            self.parts.hinted.keep(LaneSet::from_iter([lane]));
        }
        match report.verdict {
            Verdict::Delivered => self.arrived(route, lane, row),
            Verdict::Unknown => self.metrics.unknown[row.topic].increment(1),
            Verdict::TopicGone => {
                self.metrics.unknown[row.topic].increment(1);
                self.parts.recheck_topics.notify_one();
            }
            Verdict::Refused(code) if route == Route::Probe => {
                self.refused(lane, row, code, format!("the broker refuses it: {code}"));
            }
            Verdict::Refused(_) => {
                self.metrics.unknown[row.topic].increment(1);
                self.troubles.suspect(lane, row.seq, Instant::now());
            }
        }
    }

    fn arrived(&mut self, route: Route, lane: Lane, row: SentRow) {
        faults::point("publisher.after_ack");
        self.landed.push(row);
        self.guard.delivered(row.topic);
        self.metrics.acknowledged[row.topic].increment(1);
        self.metrics
            .insert_to_ack
            .record(seconds_since(row.created_at));
        let partition = lane.partition(self.partitions);
        self.couriers.delivered(route, row.topic, partition);
        self.troubles.passed(lane, row.seq, Instant::now());
    }

    /// A row was refused by itself. If that is its own fault, it becomes a dead letter; a dead letter
    /// is tried shorter instead. Anything else stops its lane.
    pub(super) fn refused(
        &mut self,
        lane: Lane,
        row: SentRow,
        code: RDKafkaErrorCode,
        reason: String,
    ) {
        if !is_for_good(code) {
            return self.stop(lane, row, reason);
        }
        let goes_on = match row.kind {
            Kind::Letter(form) => self.troubles.shorten(lane, row.seq, form),
            Kind::Event => self.guard.admits(row.topic, row.account_id),
        };
        if !goes_on {
            let topic = &self.topics[row.topic];
            let reason = match row.kind {
                Kind::Letter(_) => format!("{reason}: not even the shortest form of a dead letter"),
                Kind::Event => format!(
                    "{reason}, as those of many accounts were, and {topic} took none in between: \
                     none becomes a dead letter any more"
                ),
            };
            return self.stop(lane, row, reason);
        }
        self.count_refusal(row);
        if row.kind == Kind::Event {
            self.refusals.push(Refusal {
                lane,
                row,
                reason,
                for_good: true,
            });
            self.parts.hinted.wake();
        }
    }

    /// A row that cannot be sent as things are: its lane stops, the others go on.
    pub(super) fn stop(&mut self, lane: Lane, row: SentRow, reason: String) {
        error!(
            lane = lane.number(),
            seq = row.seq,
            account_id = %row.account_id,
            reason,
            "an outbox row cannot be published: its lane stops until the cause is mended"
        );
        self.count_refusal(row);
        self.troubles
            .stop(lane, row.seq, reason.clone(), Instant::now());
        self.refusals.push(Refusal {
            lane,
            row,
            reason,
            for_good: false,
        });
    }

    fn count_refusal(&self, row: SentRow) {
        if let Some(refused) = self.metrics.refused.get(row.topic) {
            refused.increment(1);
        }
    }

    /// Marks what arrived, makes dead letters of rows that were refused for good, and writes on the
    /// other refused ones why. Only then are their lanes free: a lane
    /// whose marks are not written would be claimed from rows that were sent already. Marks of which
    /// nobody knows whether they were written are written again.
    pub(super) async fn settle(&mut self) -> Result<(), sqlx::Error> {
        if !self.landed.seqs.is_empty() || !self.refusals.is_empty() {
            let database = self.parts.database.clone();
            let written = database.run(async |connection| {
                self.mark(connection).await?;
                self.record_refusals(connection).await
            });
            written.await?;
        }
        self.parts.ownership.set_busy(self.flights.lanes());
        Ok(())
    }

    async fn record_refusals(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        while let Some(refusal) = self.refusals.last().cloned() {
            if refusal.for_good {
                self.give_up(connection, &refusal).await?;
                continue;
            }
            let (seq, account_id) = (refusal.row.seq, refusal.row.account_id);
            if !sql::record_refusal(connection, seq, account_id, &refusal.reason).await? {
                debug!(seq, "a refused row is not pending any more");
            }
            self.refusals.pop();
        }
        Ok(())
    }

    /// Makes a dead letter of a refused row. If the database takes no such letter, the lane stops,
    /// and the others go on.
    async fn give_up(
        &mut self,
        connection: &mut PgConnection,
        refusal: &Refusal,
    ) -> Result<(), sqlx::Error> {
        let Refusal { lane, row, .. } = *refusal;
        let kept = !self.settings.outbox_retention.is_zero();
        let given_up = give_up(connection, refusal, &self.topics[DEAD_LETTERS], kept).await;
        if let Err(error) = &given_up
            && ErrorClass::of(error) == ErrorClass::Transient
        {
            return given_up.map(drop);
        }
        self.refusals.pop();
        match given_up {
            Ok(letter) => {
                if letter.is_some() {
                    self.metrics.dead_letters.increment(1);
                }
                self.troubles.passed(lane, row.seq, Instant::now());
                self.parts.hinted.hint(LaneSet::from_iter([lane]));
            }
            Err(error) => {
                let reason = &refusal.reason;
                let reason = format!("{reason}, and it cannot be made a dead letter: {error}");
                self.stop(lane, row, reason);
            }
        }
        Ok(())
    }

    async fn mark(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (seqs, account_ids) = (&self.landed.seqs, &self.landed.account_ids);
        if seqs.is_empty() {
            return Ok(());
        }
        faults::point("publisher.before_mark");
        let marked = if self.settings.outbox_retention.is_zero() {
            sql::remove_unmarked(connection, seqs, account_ids).await?
        } else {
            sql::mark_published(connection, seqs, account_ids).await?
        };
        faults::point("publisher.after_mark");
        let landed = mem::take(&mut self.landed.seqs).len() as u64;
        self.landed.account_ids.clear();
        if marked != landed {
            // They were sent twice, after their lane had changed hands.
            debug!(landed, marked, "some rows were marked by another publisher");
        }
        Ok(())
    }
}
