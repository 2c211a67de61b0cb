use std::time::Duration;

use e2e::Kind;

use super::Frame;
use crate::{
    backlog::published,
    figures::count,
    load::{FIRST_LOOK, POLL, Probe, Tally, WARM_UP},
    report::{Budget, Row, Section},
    rig::{Filling, Rig},
    settings::RunSettings,
};

/// What section 11 of the design asks for.
const P50_BUDGET_MS: f64 = 5.0;
const P99_BUDGET_MS: f64 = 20.0;
/// Between two probes: long enough that each finds the system at rest. Behind a transaction that is
/// PROCESSED its result is still sent and acknowledged, and its outbox row removed.
const PAUSE: Duration = Duration::from_millis(50);

/// From a POST to the GET that says PROCESSED, with nothing else to do.
pub(super) async fn run(settings: &RunSettings) -> anyhow::Result<Section> {
    let frame = Frame {
        name: "idle",
        filling: Filling::accounts(settings.accounts),
        services: &[Kind::Publisher, Kind::Worker],
        places: &settings.places,
    };
    let body = async |rig: &mut Rig, section: &mut Section| {
        let window = rig.window().await?;
        let probe = Probe {
            target: rig.target.clone(),
            instructions: rig.instructions.clone(),
            samples: settings.probes,
            pause: PAUSE,
        };
        let tally = probe.run().await?;
        let probes = count(tally.acknowledged.len());
        let what = "POST to PROCESSED, idle";
        section.costs.push(rig.cost(what, &window, probes).await?);
        rig.expected.add(&tally);
        rig.expected.finished = true;
        let all = async |rig: &Rig| published(rig.services(), &rig.stack.results_topic).await;
        rig.reach("results published", probes, all).await?;
        section.rows.extend(rows(what, &tally));
        section.notes.push(format!(
            "{} transactions, {} ms apart, behind {WARM_UP} that are not counted; each is asked for by GET \
             every {} ms, which is part of their cost and, by half of that, of their time; for the first \
             time {} ms behind the answer to its POST",
            tally.latency.len(),
            PAUSE.as_millis(),
            POLL.as_secs_f64() * 1_000.0,
            FIRST_LOOK.as_millis()
        ));
        Ok(())
    };
    frame.run(body).await
}

fn rows(what: &str, tally: &Tally) -> [Row; 2] {
    let row = |name: &str, percent: f64, most: f64| {
        let latency = tally.percentile_ms(percent);
        Row::new(
            format!("{what}, {name}"),
            latency,
            " ms",
            Budget::AtMost(most),
        )
    };
    [
        row("p50", 50.0, P50_BUDGET_MS),
        row("p99", 99.0, P99_BUDGET_MS),
    ]
}
