use std::{sync::Arc, time::Duration};

use super::Frame;
use crate::{
    load::{OpenLoop, Pace, Schedule, Tally},
    report::{Budget, Row, Section},
    rig::{Filling, Rig},
    settings::RunSettings,
};

/// What section 11 of the design asks for.
const ACCEPTED_BUDGET: f64 = 20_000.0;
const P99_BUDGET_MS: f64 = 50.0;
/// The number of connections, and the rate, that the budgets are for.
const BUDGET_CONNECTIONS: usize = 256;
const BUDGET_RATE: u32 = 15_000;

/// Accepted over HTTP, one transaction a request, publisher and worker stopped.
pub(super) async fn run(settings: &RunSettings) -> anyhow::Result<Section> {
    let frame = Frame {
        name: "intake",
        filling: Filling::accounts(settings.accounts),
        services: &[],
        places: &settings.places,
    };
    let body = async |rig: &mut Rig, section: &mut Section| {
        for connections in &settings.connections {
            capacity(rig, section, *connections, settings.capacity_seconds).await?;
        }
        open_loop(rig, section, settings).await
    };
    frame.run(body).await
}

/// As many as it takes over so many connections.
async fn capacity(
    rig: &mut Rig,
    section: &mut Section,
    connections: usize,
    seconds: u64,
) -> anyhow::Result<()> {
    let window = rig.window().await?;
    let wrk = rig.wrk();
    let capacity = wrk.run(&rig.instructions, connections, seconds).await?;
    let what = format!("accepted over HTTP, {connections} connections");
    let cost = rig.cost(&what, &window, capacity.accepted).await?;
    section.costs.push(cost);
    rig.expected.add_counted(&capacity, connections);
    let budget = match connections {
        BUDGET_CONNECTIONS => Budget::AtLeast(ACCEPTED_BUDGET),
        _ => Budget::None,
    };
    if capacity.refused + capacity.broken > 0 {
        section.notes.push(format!(
            "{what}: {} answers were refusals, {} connections broke",
            capacity.refused, capacity.broken
        ));
    }
    let row = Row::new(what, capacity.per_second(), "/s", budget);
    section.rows.push(row);
    Ok(())
}

/// At a constant rate, for the latency.
async fn open_loop(
    rig: &mut Rig,
    section: &mut Section,
    settings: &RunSettings,
) -> anyhow::Result<()> {
    let rate = settings.open_loop_rate;
    let lasts = Duration::from_secs(settings.open_loop_seconds);
    let window = rig.window().await?;
    let load = OpenLoop {
        target: rig.target.clone(),
        instructions: rig.instructions.clone(),
        connections: settings.search.open_loop_connections,
        pace: Pace::Constant(Schedule::new(rate, lasts)),
        stop: Arc::default(),
    };
    let tally = load.run().await?;
    let what = format!("accepted over HTTP, open loop at {rate}/s");
    let accepted = crate::figures::count(tally.acknowledged.len());
    section
        .costs
        .push(rig.cost(&what, &window, accepted).await?);
    rig.expected.add(&tally);
    section.rows.extend(latency_rows(&what, &tally, rate));
    section.notes.extend(shortfall(&what, &tally));
    Ok(())
}

fn latency_rows(what: &str, tally: &Tally, rate: u32) -> [Row; 3] {
    let budget = match rate {
        BUDGET_RATE => Budget::AtMost(P99_BUDGET_MS),
        _ => Budget::None,
    };
    let row = |name: &str, percent: f64, budget: Budget| {
        let latency = tally.percentile_ms(percent);
        Row::new(format!("{what}, {name}"), latency, " ms", budget)
    };
    [
        row("p50", 50.0, Budget::None),
        row("p99", 99.0, budget),
        row("p99.9", 99.9, Budget::None),
    ]
}

/// What a reader must know of a load that was not served as it was offered.
pub(super) fn shortfall(what: &str, tally: &Tally) -> Option<String> {
    let (unsent, refused, unknown) = (tally.unsent, tally.refused, tally.unknown);
    let first = tally.first_refusal.as_deref().unwrap_or("none");
    (unsent + refused + unknown > 0).then(|| {
        format!(
            "{what}: {unsent} requests could not be sent in time (each counts with the time it had \
             waited), {refused} were refused (the first: {first}), {unknown} had no answer, or one that \
             leaves it open whether they were accepted"
        )
    })
}
