//! The way back: reports come in, rows are marked.

use std::mem;

use common::types::{Lane, LaneSet};
use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::{debug, error};

use super::{
    Cycle, Refusal,
    flights::{Route, SentRow},
    seconds_since, sql,
};
use crate::courier::{Report, Verdict};

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
                self.refuse(lane, row, format!("the broker refuses it: {code}"));
            }
            Verdict::Refused(_) => {
                self.metrics.unknown[row.topic].increment(1);
                self.troubles.suspect(lane, row.seq, Instant::now());
            }
        }
    }

    fn arrived(&mut self, route: Route, lane: Lane, row: SentRow) {
        self.landed.seqs.push(row.seq);
        self.landed.account_ids.push(row.account_id);
        self.metrics.acknowledged[row.topic].increment(1);
        self.metrics
            .insert_to_ack
            .record(seconds_since(row.created_at));
        let partition = lane.partition(self.partitions);
        self.couriers.delivered(route, row.topic, partition);
        self.troubles.arrived(lane, row.seq, Instant::now());
    }

    /// A row that can never be sent as things are: its lane stops, the others go on.
    pub(super) fn refuse(&mut self, lane: Lane, row: SentRow, reason: String) {
        error!(
            lane = lane.number(),
            seq = row.seq,
            account_id = %row.account_id,
            reason,
            "an outbox row cannot be published: its lane stops until the cause is mended"
        );
        if let Some(refused) = self.metrics.refused.get(row.topic) {
            refused.increment(1);
        }
        self.troubles
            .stop(lane, row.seq, reason.clone(), Instant::now());
        self.refusals.push(Refusal {
            seq: row.seq,
            account_id: row.account_id,
            reason,
        });
    }

    /// Marks what arrived, and writes on refused rows why. Only then are their lanes free: a lane
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
        while let Some(refusal) = self.refusals.last() {
            let Refusal {
                seq,
                account_id,
                reason,
            } = refusal;
            if !sql::record_refusal(connection, *seq, *account_id, reason).await? {
                debug!(seq, "a refused row is not pending any more");
            }
            self.refusals.pop();
        }
        Ok(())
    }

    async fn mark(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (seqs, account_ids) = (&self.landed.seqs, &self.landed.account_ids);
        if seqs.is_empty() {
            return Ok(());
        }
        let marked = if self.settings.outbox_retention.is_zero() {
            sql::remove_unmarked(connection, seqs, account_ids).await?
        } else {
            sql::mark_published(connection, seqs, account_ids).await?
        };
        let landed = mem::take(&mut self.landed.seqs).len() as u64;
        self.landed.account_ids.clear();
        if marked != landed {
            // They were sent twice, after their lane had changed hands.
            debug!(landed, marked, "some rows were marked by another publisher");
        }
        Ok(())
    }
}
