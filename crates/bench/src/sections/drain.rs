use std::time::Duration;

use anyhow::ensure;
use e2e::Kind;

use super::Frame;
use crate::{
    backlog::{finished, published},
    figures::{count, float},
    load::{BATCH_ITEMS, Batches, Until},
    report::{Budget, Cost, Row, Section},
    rig::{Filling, Rig},
    settings::RunSettings,
};

/// What section 11 of the design asks for.
const BUDGET: f64 = 25_000.0;

/// The worker on a backlog, with the publisher running as in production.
pub(super) async fn run(settings: &RunSettings) -> anyhow::Result<Section> {
    let frame = Frame {
        name: "drain",
        filling: Filling::accounts(settings.accounts),
        services: &[Kind::Publisher],
        places: &settings.places,
    };
    let body = async |rig: &mut Rig, section: &mut Section| {
        let connections = settings.batch_connections;
        let (rate, costs) = drain(rig, settings.drain_transactions, connections, 1).await?;
        let events = costs.first().map_or(0, |cost| cost.transactions);
        section.costs.extend(costs);
        section.rows.push(Row::new(
            format!("worker draining a backlog of {events} events"),
            rate,
            "/s",
            Budget::AtLeast(BUDGET),
        ));
        Ok(())
    };
    frame.run(body).await
}

/// Fills the topic with about so many events while no worker runs, then starts some. Hands over how
/// many a second they applied from its first slice to its last, and what filling and draining have
/// cost.
pub async fn drain(
    rig: &mut Rig,
    transactions: u64,
    connections: usize,
    workers: usize,
) -> anyhow::Result<(f64, [Cost; 2])> {
    let before = rig.expected.transactions();
    let filling = fill(rig, transactions, connections).await?;
    let backlog = rig.expected.transactions() - before;
    let window = rig.window().await?;
    rig.start(Kind::Worker, workers).await;
    let applied = async |rig: &Rig| finished(rig.services()).await;
    rig.reach("events applied", backlog, applied).await?;
    let cost = rig.cost("draining the backlog", &window, backlog).await?;
    let took = applied_within(rig, backlog).await?;
    let results = async |rig: &Rig| published(rig.services(), &rig.stack.results_topic).await;
    rig.reach("results published", backlog, results).await?;
    rig.expected.finished = true;
    let rate = float(backlog) / took.as_secs_f64().max(0.001);
    Ok((rate, [filling, cost]))
}

/// Accepts them by batches, and waits until all of them are on the topic.
async fn fill(rig: &mut Rig, transactions: u64, connections: usize) -> anyhow::Result<Cost> {
    let topic = rig.stack.transactions_topic.clone();
    let sent = async |rig: &Rig| published(rig.services(), &topic).await;
    let already = sent(rig).await;
    let window = rig.window().await?;
    let load = Batches {
        target: rig.target.clone(),
        instructions: rig.instructions.clone(),
        connections,
        until: Until::Batches(transactions / count(BATCH_ITEMS) / count(connections).max(1)),
    };
    let tally = load.run().await?;
    let accepted = count(tally.acknowledged.len());
    rig.expected.add(&tally);
    ensure!(
        accepted > 0,
        "nothing was accepted: {:?}",
        tally.first_refusal
    );
    rig.reach("events on the topic", already + accepted, sent)
        .await?;
    rig.cost("filling the backlog", &window, accepted).await
}

/// From the first slice's transaction to the last one's, by the times that they wrote: the worker's
/// start and its joining the group do not count, and neither does how often we look.
async fn applied_within(rig: &Rig, backlog: u64) -> anyhow::Result<Duration> {
    let span = "SELECT extract(epoch FROM max(processed_at) - min(processed_at))::float8
                  FROM (SELECT processed_at FROM transactions ORDER BY id DESC LIMIT $1) last";
    let seconds: f64 = sqlx::query_scalar(span)
        .bind(i64::try_from(backlog)?)
        .fetch_one(rig.database())
        .await?;
    Ok(Duration::try_from_secs_f64(seconds.max(0.0))?)
}
