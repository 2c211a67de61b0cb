use std::time::Duration;

use super::{Frame, intake::shortfall};
use crate::{
    figures::{count, per_second},
    load::{BATCH_ITEMS, Batches, Until},
    report::{Budget, Row, Section},
    rig::{Filling, Rig},
    settings::RunSettings,
};

/// What section 11 of the design asks for.
const BUDGET: f64 = 40_000.0;

/// Batches of as many transactions as the api takes, publisher and worker stopped.
pub(super) async fn run(settings: &RunSettings) -> anyhow::Result<Section> {
    let frame = Frame {
        name: "batches",
        filling: Filling::accounts(settings.accounts),
        services: &[],
        places: &settings.places,
    };
    let body = async |rig: &mut Rig, section: &mut Section| {
        let what = format!("accepted, batches of {BATCH_ITEMS}");
        let window = rig.window().await?;
        let load = Batches {
            target: rig.target.clone(),
            instructions: rig.instructions.clone(),
            connections: settings.batch_connections,
            until: Until::Elapsed(Duration::from_secs(settings.batch_seconds)),
        };
        let tally = load.run().await?;
        let accepted = count(tally.acknowledged.len());
        section
            .costs
            .push(rig.cost(&what, &window, accepted).await?);
        rig.expected.add(&tally);
        section.notes.extend(shortfall(&what, &tally));
        let connections = settings.batch_connections;
        section.rows.push(Row::new(
            format!("{what}, {connections} connections"),
            per_second(accepted, tally.took),
            "/s",
            Budget::AtLeast(BUDGET),
        ));
        Ok(())
    };
    frame.run(body).await
}
