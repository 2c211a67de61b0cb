use std::time::Duration;

use anyhow::Context;
use e2e::{Kind, Payment};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::time::interval;
use uuid::Uuid;

use super::Frame;
use crate::{
    accounts,
    figures::{count, whole_rate},
    report::{Budget, Row, Section},
    rig::{Filling, Rig},
    settings::RunSettings,
    sustained::{Trial, find, steady},
};

/// Of the sustained rate, so much is offered.
const SHARE: f64 = 0.8;
/// Between two events that cannot be applied.
const POISON_EVERY: Duration = Duration::from_secs(1);
/// What the other accounts must keep of their rate.
const KEPT_MIN: f64 = 0.9;

/// What one event a second that cannot be applied, each on another account, costs all other accounts.
pub(super) async fn run(settings: &RunSettings, sustained: Option<f64>) -> anyhow::Result<Section> {
    let frame = Frame {
        name: "poison",
        filling: Filling::accounts(settings.accounts),
        services: &[Kind::Publisher, Kind::Worker],
        places: &settings.places,
    };
    let body = async |rig: &mut Rig, section: &mut Section| {
        let sustained = if let Some(rate) = sustained {
            rate
        } else {
            let found = find(rig, "sustained", settings.search).await?;
            let rate = found.rate();
            // At a rate that nobody found, everything would keep its rate.
            f64::from(rate.context("no trial held: there is no sustained rate to take a share of")?)
        };
        let rate = whole_rate(sustained * SHARE);
        // The trigger is there in both trials: what it costs by itself is not the worker's.
        let poisoned = accounts::open(rig.database(), 2 * seconds(settings)).await?;
        rig.expected.before += count(poisoned.len());
        raise_for(rig.database(), &poisoned).await?;
        let without = trial(rig, section, "without poison", rate, settings).await?;
        let with = with_poison(rig, section, rate, settings, &poisoned).await?;
        section.rows.extend(rows(&without, &with));
        rig.expected.finished = true;
        Ok(())
    };
    frame.run(body).await
}

fn seconds(settings: &RunSettings) -> usize {
    usize::try_from(settings.search.trial_seconds).unwrap_or(usize::MAX)
}

fn rows(without: &Trial, with: &Trial) -> Vec<Row> {
    let what = format!("results at {}/s", without.rate);
    let kept = Budget::AtLeast(KEPT_MIN * without.published_rate);
    let mut rows = vec![
        Row::new(
            format!("{what}, without poison"),
            without.published_rate,
            "/s",
            Budget::None,
        ),
        Row::new(
            format!("{what}, one poison event a second"),
            with.published_rate,
            "/s",
            kept,
        ),
    ];
    for (name, trial) in [("without poison", without), ("with", with)] {
        let what = format!("POST to 202 at {}/s, {name}, p99", trial.rate);
        rows.push(Row::new(what, trial.p99_ms, " ms", Budget::None));
    }
    rows
}

async fn trial(
    rig: &mut Rig,
    section: &mut Section,
    what: &str,
    rate: u32,
    settings: &RunSettings,
) -> anyhow::Result<Trial> {
    let (trial, cost) = steady(rig, what, rate, settings.search).await?;
    eprintln!("    {what}: {}", trial.words());
    section.costs.push(cost);
    section.notes.push(format!("{what}: {}", trial.words()));
    Ok(trial)
}

/// A trial beside which the poisoned accounts are paid into, one after another.
async fn with_poison(
    rig: &mut Rig,
    section: &mut Section,
    rate: u32,
    settings: &RunSettings,
    poisoned: &[Uuid],
) -> anyhow::Result<Trial> {
    let client = rig.client();
    let mut posted = Vec::new();
    let mut posting = Box::pin(async {
        let mut ticks = interval(POISON_EVERY);
        for account in poisoned {
            ticks.tick().await;
            posted.push(client.insist(&Payment::credit(*account, 1)).await);
        }
        std::future::pending::<()>().await;
    });
    // Known beforehand: what is posted beside the trial never has a result.
    rig.expected.dead_lettered = count(poisoned.len());
    let what = "one poison event a second";
    let trial = tokio::select! {
        trial = trial(rig, section, what, rate, settings) => trial?,
        () = &mut posting => anyhow::bail!("the poison ended before the trial"),
    };
    drop(posting);
    rig.expected.dead_lettered = count(posted.len());
    rig.expected.acknowledged.extend(&posted);
    section
        .notes
        .push(format!("{} events could not be applied", posted.len()));
    let dead = async |rig: &Rig| dead_letters(rig.database()).await;
    rig.reach("dead letters", rig.expected.dead_lettered, dead)
        .await?;
    Ok(trial)
}

async fn dead_letters(database: &PgPool) -> u64 {
    let letters = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM dead_letters");
    letters
        .fetch_one(database)
        .await
        .unwrap_or_default()
        .unsigned_abs()
}

/// From now on nothing can be posted to these accounts. They stand in the function itself: it reads no
/// table.
async fn raise_for(database: &PgPool, accounts: &[Uuid]) -> Result<(), sqlx::Error> {
    let list: Vec<_> = accounts
        .iter()
        .map(|account| format!("'{account}'"))
        .collect();
    let statements = format!(
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'poison'; END $$;
         CREATE TRIGGER poison BEFORE INSERT ON ledger_entries FOR EACH ROW
             WHEN (NEW.account_id IN ({})) EXECUTE FUNCTION poison()",
        list.join(", ")
    );
    // The ids are ours.
    let statements = sqlx::raw_sql(AssertSqlSafe(statements));
    statements.execute(database).await.map(drop)
}
