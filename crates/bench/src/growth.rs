//! What changes as the tables grow, with the number of accounts, and with more services.

use e2e::Kind;
use tokio::fs;

use crate::{
    backlog::{accepted, published},
    report::{Budget, Report, Row, Section},
    rig::{Filling, Rig},
    sections::{Frame, begin, drain},
    settings::GrowthSettings,
    sustained,
};

/// Nothing may get slower by more than a fifth as the tables grow.
const SHARE_OF_BASE_MIN: f64 = 0.8;
/// Connections over which a drain's backlog is filled.
const FILL_CONNECTIONS: usize = 4;

/// What is different from case to case.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    filling: Filling,
    publishers: usize,
    workers: usize,
    /// Whether it is held to the base case.
    has_budget: bool,
}

/// The three rates of a case: accepted, sustained, drained.
type Rates = [f64; 3];

/// Measures each case on a stack of its own, and compares it with the first.
pub async fn run(settings: &GrowthSettings) -> anyhow::Result<Report> {
    fs::create_dir_all(&settings.places.report_dir).await?;
    let mut report = begin("Postonce benchmark: growth").await?;
    let mut base = None;
    for case in cases(settings) {
        let (section, rates) = measure(&case, settings, base).await?;
        base.get_or_insert(rates);
        report.sections.push(section);
        report.write(&settings.places.report_dir, "growth").await?;
    }
    Ok(report)
}

fn cases(settings: &GrowthSettings) -> Vec<Case> {
    let case = |name: String, transactions: u64, accounts: usize| Case {
        name,
        filling: Filling {
            accounts,
            transactions,
        },
        publishers: 1,
        workers: 1,
        has_budget: false,
    };
    let many = settings.accounts;
    let sizes = settings.sizes.iter().map(|size| Case {
        has_budget: true,
        ..case(format!("{size} transactions"), *size, many)
    });
    let mut cases: Vec<_> = sizes.collect();
    let base = settings.sizes.first().copied().unwrap_or_default();
    for accounts in &settings.other_accounts {
        cases.push(case(
            format!("{base}, {accounts} accounts"),
            base,
            *accounts,
        ));
    }
    cases.push(Case {
        publishers: 2,
        ..case(format!("{base}, 2 publishers"), base, many)
    });
    cases.push(Case {
        workers: 2,
        ..case(format!("{base}, 2 workers"), base, many)
    });
    cases
}

async fn measure(
    case: &Case,
    settings: &GrowthSettings,
    base: Option<Rates>,
) -> anyhow::Result<(Section, Rates)> {
    let frame = Frame {
        name: &case.name,
        filling: case.filling,
        services: &[],
        places: &settings.places,
    };
    let mut rates = Rates::default();
    let body = async |rig: &mut Rig, section: &mut Section| {
        rates = [
            take_in(rig, section, case, settings).await?,
            sustain(rig, section, case, settings).await?,
            apply(rig, section, case, settings).await?,
        ];
        section.rows.extend(rows(case, rates, base));
        Ok(())
    };
    let section = frame.run(body).await?;
    Ok((section, rates))
}

/// Accepted a second, publisher and worker stopped.
async fn take_in(
    rig: &mut Rig,
    section: &mut Section,
    case: &Case,
    settings: &GrowthSettings,
) -> anyhow::Result<f64> {
    let (connections, seconds) = (settings.connections, settings.capacity_seconds);
    let window = rig.window().await?;
    let load = rig.wrk();
    let capacity = load.run(&rig.instructions, connections, seconds).await?;
    let what = format!("{}: accepted", case.name);
    section
        .costs
        .push(rig.cost(&what, &window, capacity.accepted).await?);
    rig.expected.add_counted(&capacity, connections);
    Ok(capacity.per_second())
}

/// The sustained rate, once what the load before has left is finished.
async fn sustain(
    rig: &mut Rig,
    section: &mut Section,
    case: &Case,
    settings: &GrowthSettings,
) -> anyhow::Result<f64> {
    rig.start(Kind::Publisher, case.publishers).await;
    rig.start(Kind::Worker, case.workers).await;
    let goal = accepted(rig.services()).await;
    let results = async |rig: &Rig| published(rig.services(), &rig.stack.results_topic).await;
    rig.reach("results published", goal, results).await?;
    let what = format!("{}: sustained", case.name);
    let found = sustained::find(rig, &what, settings.search.search()).await?;
    section.costs.extend(found.cost.clone());
    let trials = found.trials.iter().map(sustained::Trial::words);
    section.notes.extend(trials);
    Ok(f64::from(found.rate().unwrap_or_default()))
}

/// Events applied a second, from a backlog.
async fn apply(
    rig: &mut Rig,
    section: &mut Section,
    case: &Case,
    settings: &GrowthSettings,
) -> anyhow::Result<f64> {
    rig.stop(Kind::Worker).await;
    let (rate, costs) = drain(
        rig,
        settings.drain_transactions,
        FILL_CONNECTIONS,
        case.workers,
    )
    .await?;
    section.costs.extend(costs);
    Ok(rate)
}

fn rows(case: &Case, rates: Rates, base: Option<Rates>) -> Vec<Row> {
    let what = ["accepted", "sustained", "drained"];
    let compared = base.unwrap_or(rates);
    (0..3)
        .map(|place| {
            let (rate, base) = (rates[place], compared[place]);
            let budget = if case.has_budget && base > 0.0 {
                Budget::AtLeast(base * SHARE_OF_BASE_MIN)
            } else {
                Budget::None
            };
            let row = Row::new(
                format!("{}: {}", case.name, what[place]),
                rate,
                "/s",
                budget,
            );
            if rate > 0.0 {
                row.with(&format!("({:.2} of the base)", rate / base.max(1.0)))
            } else {
                row.saying("no trial held, see below".to_owned())
            }
        })
        .collect()
}
