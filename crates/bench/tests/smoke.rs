//! A small smoke of the benchmark on the real services: it runs, its checks of the ledger hold on a
//! right ledger, and fail on a wrong one. No timing is asserted.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails by panicking, as the test does"
)]

use std::process::Command;

use bench::{
    ledger::{self, Expected},
    report::Report,
    rig::{Filling, Rig},
    settings::{Command as What, GrowthSettings, Places, RunSettings, Settings},
};
use clap::Parser;
use uuid::Uuid;

/// Loads of a second or two.
const RUN: &str = "bench run --quick --accounts 20 --capacity-seconds 1 --open-loop-rate 50 \
                   --open-loop-seconds 1 --open-loop-connections 8 --estimate-seconds 1 \
                   --trial-seconds 2 --trials-max 1 --batch-seconds 1 --batch-connections 1 \
                   --probes 3 --drain-transactions 2000";

#[tokio::test]
async fn every_section_runs_and_its_ledger_is_right() {
    let settings = run_settings();
    let report = bench::sections::run(&settings).await.unwrap();
    assert_eq!(report.sections.len(), 6);
    assert_right(&report);
    for file in ["report.md", "report.json"] {
        assert!(settings.places.report_dir.join(file).is_file(), "{file}");
    }
}

#[tokio::test]
async fn a_filled_past_is_a_right_ledger_and_can_be_added_to() {
    let filling = Filling {
        accounts: 7,
        transactions: 1_000,
    };
    let rig = Rig::build(filling, &places()).await.unwrap();
    let finished = Expected {
        finished: true,
        ..rig.expected.clone()
    };
    let found = ledger::check(&rig.stack, &finished).await.unwrap();
    assert_eq!(found.wrongs, Vec::<String>::new());
    rig.stack.discard().await;
}

#[tokio::test]
async fn a_ledger_that_was_tampered_with_is_found_out() {
    let accounts = Filling::accounts(3);
    let rig = Rig::build(accounts, &places()).await.unwrap();
    let only_accepted = &rig.expected;
    let finished = &Expected {
        finished: true,
        ..rig.expected.clone()
    };
    for (tamper, undo, named) in TAMPERINGS {
        execute(&rig, tamper).await;
        let found = wrongs(&rig, only_accepted).await + "; " + &wrongs(&rig, finished).await;
        assert!(found.contains(named), "{tamper}: found {found:?}");
        execute(&rig, undo).await;
    }
    for expected in [only_accepted, finished] {
        assert_eq!(wrongs(&rig, expected).await, "", "all was undone");
    }
    rig.stack.discard().await;
}

#[tokio::test]
async fn what_was_acknowledged_and_is_not_there_is_found_out() {
    let rig = Rig::build(Filling::accounts(3), &places()).await.unwrap();
    let lost = Expected {
        acknowledged: vec![Uuid::now_v7()],
        ..rig.expected.clone()
    };
    let found = wrongs(&rig, &lost).await;
    for named in [
        "1 acknowledged transactions that do not exist",
        "1 acknowledged transactions whose event does not wait",
    ] {
        assert!(found.contains(named), "{found}");
    }
    // wrk has not waited for its answer, so that only the api knows of it.
    let lost = Expected {
        not_awaited: 16,
        accepted_by_api: Some(1),
        ..rig.expected.clone()
    };
    let found = wrongs(&rig, &lost).await;
    assert!(found.contains("by the api's own count"), "{found}");
    rig.stack.discard().await;
}

async fn wrongs(rig: &Rig, expected: &Expected) -> String {
    let found = ledger::check(&rig.stack, expected).await.unwrap();
    found.wrongs.join("; ")
}

/// What somebody does to the tables, how it is undone, and what the check must say of it.
const TAMPERINGS: [(&str, &str, &str); 8] = [
    (
        "UPDATE ledger_entries SET balance_after_cents = balance_after_cents + 1",
        "UPDATE ledger_entries SET balance_after_cents = balance_after_cents - 1",
        "3 entries out of their chain",
    ),
    (
        "UPDATE ledger_entries SET entry_no = 2",
        "UPDATE ledger_entries SET entry_no = 1",
        "3 entries out of their chain",
    ),
    (
        "UPDATE accounts SET balance_cents = balance_cents - 1",
        "UPDATE accounts SET balance_cents = balance_cents + 1",
        "3 accounts whose balance",
    ),
    (
        "UPDATE transactions SET amount_cents = amount_cents + 1",
        "UPDATE transactions SET amount_cents = amount_cents - 1",
        "3 transactions and entries that are not each other's",
    ),
    (
        "UPDATE transactions SET status = 'FAILED', failure_reason = 'insufficient_funds'",
        "UPDATE transactions SET status = 'PROCESSED', failure_reason = NULL",
        "3 entries more or fewer than PROCESSED transactions",
    ),
    (
        "UPDATE transactions SET status = 'FAILED', failure_reason = 'insufficient_funds'",
        "UPDATE transactions SET status = 'PROCESSED', failure_reason = NULL",
        "3 transactions were rejected",
    ),
    (
        "UPDATE transactions SET status = 'PENDING', processed_at = NULL",
        "UPDATE transactions SET status = 'PROCESSED', processed_at = now()",
        "3 transactions that have not come to their end",
    ),
    (
        "INSERT INTO outbox_events (account_id, event_id, aggregate_id, lane, topic, partition_key,
                                    aggregate_type, event_type, payload)
         SELECT account_id, id, id, 0, 't', 'k', 'transaction', 'transaction.created', '{}'
           FROM transactions",
        "DELETE FROM outbox_events",
        "3 events that wait to be sent instead of 0",
    ),
];

async fn execute(rig: &Rig, statement: &'static str) {
    sqlx::raw_sql(statement)
        .execute(rig.database())
        .await
        .unwrap();
}

fn assert_right(report: &Report) {
    assert_eq!(report.wrongs(), Vec::<String>::new());
    for section in &report.sections {
        assert!(
            section.ledger.transactions > 0,
            "{} did nothing",
            section.name
        );
    }
}

fn run_settings() -> RunSettings {
    let words = RUN.split_whitespace().chain(["--connections"]);
    let connections = has_wrk().then_some("4");
    match Settings::parse_from(words.chain(connections)).command {
        What::Run(settings) => RunSettings {
            places: places(),
            ..*settings
        },
        What::Growth(_) => unreachable!("it was asked to run"),
    }
}

/// A machine that runs the tests need not have it.
fn has_wrk() -> bool {
    Command::new("wrk").arg("--version").output().is_ok()
}

fn places() -> Places {
    Places {
        report_dir: env!("CARGO_TARGET_TMPDIR").into(),
        disk_dir: None,
    }
}

#[test]
fn the_defaults_of_a_growth_run_are_those_of_the_documentation() {
    let What::Growth(settings) = Settings::parse_from(["bench", "growth"]).command else {
        unreachable!("it was asked for growth")
    };
    let GrowthSettings { sizes, .. } = *settings;
    assert_eq!(sizes, [1_000_000, 10_000_000]);
}
