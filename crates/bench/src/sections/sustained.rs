use e2e::Kind;

use super::Frame;
use crate::{
    report::{Budget, Row, Section},
    rig::{Filling, Rig},
    settings::RunSettings,
    sustained::{Found, Trial, find},
};

/// What section 11 of the design asks for.
const RATE_BUDGET: f64 = 12_000.0;
const HOT_PERCENT_BUDGET: f64 = 90.0;

/// Accepted, published, applied and result published, over all accounts. Its rate is left behind for
/// the comparison.
pub(super) async fn run(settings: &RunSettings, rate: &mut Option<f64>) -> anyhow::Result<Section> {
    let what = format!("sustained, {} accounts", settings.accounts);
    let body = async |rig: &mut Rig, section: &mut Section| {
        let found = search(rig, section, &what, settings).await?;
        *rate = found.rate().map(f64::from);
        let what = format!("{what}: accepted, applied and result published");
        section
            .rows
            .push(found.row(&what, Budget::AtLeast(RATE_BUDGET)));
        section.rows.extend(latency_rows("sustained", &found));
        Ok(())
    };
    frame("sustained", settings.accounts, settings)
        .run(body)
        .await
}

/// The same on one account, as a percentage of the rate over many.
pub(super) async fn run_hot(
    settings: &RunSettings,
    compared_with: Option<f64>,
) -> anyhow::Result<Section> {
    let what = "sustained, one hot account";
    let body = async |rig: &mut Rig, section: &mut Section| {
        let found = search(rig, section, what, settings).await?;
        section.rows.push(found.row(what, Budget::None));
        section
            .rows
            .push(percentage(&found, compared_with, settings.accounts));
        section.rows.extend(latency_rows(what, &found));
        Ok(())
    };
    frame("hot account", 1, settings).run(body).await
}

/// The rate on one account as a percentage of that on many. Where no trial on it held, the percentage
/// is below that of the lowest rate that was tried.
fn percentage(hot: &Found, many: Option<f64>, accounts: usize) -> Row {
    let percent = |rate: u32| 100.0 * f64::from(rate) / many.unwrap_or(1.0);
    let row = Row::new(
        format!("one hot account instead of {accounts}"),
        hot.rate().map_or(0.0, percent),
        " %",
        Budget::AtLeast(HOT_PERCENT_BUDGET),
    );
    match (many, hot.rate(), hot.trials.last()) {
        (None, ..) => Row {
            met: None,
            ..row.saying("unknown: no rate over many accounts".to_owned())
        },
        (_, None, Some(last)) => row.saying(format!("below {:.0} %", percent(last.rate))),
        _ => row,
    }
}

fn frame<'a>(name: &'a str, accounts: usize, settings: &'a RunSettings) -> Frame<'a> {
    Frame {
        name,
        filling: Filling::accounts(accounts),
        services: &[Kind::Publisher, Kind::Worker],
        places: &settings.places,
    }
}

async fn search(
    rig: &mut Rig,
    section: &mut Section,
    what: &str,
    settings: &RunSettings,
) -> anyhow::Result<Found> {
    let found = find(rig, what, settings.search).await?;
    rig.expected.finished = true;
    section.costs.extend(found.cost.clone());
    let trials = found.trials.iter().map(Trial::words);
    section.notes.extend(trials);
    if found.rate().is_none() {
        let note = "no trial held: the sustained rate is below all that were tried";
        section.notes.push(note.to_owned());
    }
    Ok(found)
}

/// Of the trial that counts.
fn latency_rows(what: &str, found: &Found) -> Vec<Row> {
    let Some(trial) = found.trial() else {
        return Vec::new();
    };
    let row = |name: &str, value: f64| {
        let what = format!("{what}, POST to 202 at {}/s, {name}", trial.rate);
        Row::new(what, value, " ms", Budget::None)
    };
    vec![row("p50", trial.p50_ms), row("p99", trial.p99_ms)]
}
