use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{Api, eventually},
    letters::Letter,
};

const PATH: &str = "/v1/dead-letters/replay";

async fn post(api: &Api, body: &Value) -> Value {
    let answer = api.post(PATH, body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

/// A dry run, then runs until the end; gives how many were replayed by each.
async fn replay_all(api: &Api, filter: &Value) -> Vec<u64> {
    let mut body = filter.clone();
    body["dry_run"] = true.into();
    body["until"] = post(api, &body).await["until"].clone();
    body["dry_run"] = false.into();
    run_all(api, body).await
}

async fn run_all(api: &Api, mut body: Value) -> Vec<u64> {
    let mut replayed = Vec::new();
    loop {
        let done = post(api, &body).await;
        assert_eq!(done["skipped"], json!([]));
        replayed.push(done["replayed"].as_u64().unwrap());
        body["cursor"] = done["next_cursor"].clone();
        if body["cursor"].is_null() {
            return replayed;
        }
    }
}

async fn state(api: &Api, letter: &Letter) -> String {
    let shown = api.get(&letter.path()).await.json();
    shown["state"].as_str().unwrap().to_owned()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_dry_run_counts_and_shows_and_changes_nothing(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let first = api.dead_lettered_of(&account).await;
    let second = api.dead_lettered_of(&account).await;
    Letter::unreadable().die(&api.pool).await;
    let seen = post(&api, &json!({ "account_id": account, "dry_run": true })).await;
    assert_eq!(
        (&seen["matched"], &seen["matched_is_capped"]),
        (&json!(2), &json!(false))
    );
    let sample = seen["sample"].as_array().unwrap().iter();
    let sample: Vec<_> = sample.map(|letter| letter["id"].clone()).collect();
    assert_eq!(
        sample,
        [json!(first.id), json!(second.id)],
        "the oldest first"
    );
    assert_eq!(
        (&seen["replayed"], &seen["next_cursor"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(api.sent().await, []);
    assert_eq!(api.count("dead_letters WHERE state = 'DEAD'").await, 3);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_run_replays_what_the_filter_means_in_the_order_of_death(pool: PgPool) {
    let api = Api::new(pool).await;
    let account = api.open_account("EUR").await;
    let mut meant = Vec::new();
    for _ in 0..3 {
        meant.push(api.dead_lettered_of(&account).await);
    }
    let other_class = Letter::unreadable()
        .of_account(meant[0].account_id)
        .die(&api.pool)
        .await;
    let other_account = api.dead_lettered().await;
    let filter = json!({ "account_id": account, "class": "retries_exhausted", "reason": "mended" });
    assert_eq!(replay_all(&api, &filter).await, [3]);
    let sent: Vec<_> = api
        .sent()
        .await
        .iter()
        .map(|sent| sent.dead_letter_id.unwrap())
        .collect();
    assert_eq!(
        sent,
        meant.iter().map(|letter| letter.id).collect::<Vec<_>>()
    );
    for left in [other_class, other_account] {
        assert_eq!(state(&api, &left).await, "DEAD");
    }
    let actions =
        "dead_letter_actions WHERE action = 'REPLAY' AND actor = 'tests' AND reason = 'mended'";
    assert_eq!(api.count(actions).await, 3);
    assert_eq!(replay_all(&api, &filter).await, [0]);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_run_replays_nothing_that_died_or_died_again_behind_its_dry_run(pool: PgPool) {
    let api = Api::new(pool).await;
    let (counted, again) = (api.dead_lettered().await, api.dead_lettered().await);
    let until = post(&api, &json!({ "dry_run": true })).await["until"].clone();
    let later = api.dead_lettered().await;
    assert_eq!(api.replay(&again).await.status, 200);
    again.die_again(&api.pool).await;
    assert_eq!(
        run_all(&api, json!({ "dry_run": false, "until": until })).await,
        [1]
    );
    assert_eq!(state(&api, &counted).await, "REPLAYED");
    for left in [later, again] {
        assert_eq!(state(&api, &left).await, "DEAD");
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn copies_of_rejections_are_never_meant(pool: PgPool) {
    let api = Api::new(pool).await;
    let mut copy = api.dead_lettered().await;
    copy.class = "rejected";
    sqlx::query("UPDATE dead_letters SET error_class = 'rejected'")
        .execute(&api.pool)
        .await
        .unwrap();
    for filter in [
        json!({ "dry_run": true }),
        json!({ "dry_run": true, "class": "rejected" }),
    ] {
        assert_eq!(post(&api, &filter).await["matched"], 0);
    }
    assert_eq!(replay_all(&api, &json!({})).await, [0]);
    assert_eq!(state(&api, &copy).await, "DEAD");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_that_cannot_be_replayed_does_not_hold_up_the_others(pool: PgPool) {
    let api = Api::new(pool).await;
    let (stuck, free) = (api.dead_lettered().await, api.dead_lettered().await);
    let end = "UPDATE transactions SET status = 'PROCESSED', failure_reason = NULL, processed_at = now() WHERE id = $1";
    sqlx::query(end)
        .bind(stuck.transaction_id)
        .execute(&api.pool)
        .await
        .unwrap();
    let until = post(&api, &json!({ "dry_run": true })).await["until"].clone();
    let done = post(&api, &json!({ "dry_run": false, "until": until })).await;
    assert_eq!(
        (&done["matched"], &done["replayed"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        done["skipped"],
        json!([{ "id": stuck.id, "code": "transaction_final" }])
    );
    assert_eq!(state(&api, &free).await, "REPLAYED");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_whose_topic_was_renamed_is_skipped(pool: PgPool) {
    let api = Api::new(pool).await;
    let renamed = Letter {
        source_topic: "payments",
        ..Letter::unreadable()
    };
    let renamed = renamed.die(&api.pool).await;
    let free = Letter::unreadable().die(&api.pool).await;
    let until = post(&api, &json!({ "dry_run": true })).await["until"].clone();
    let done = post(&api, &json!({ "dry_run": false, "until": until })).await;
    assert_eq!(
        done["skipped"],
        json!([{ "id": renamed.id, "code": "dead_letter_topic_unknown" }])
    );
    assert_eq!(done["replayed"], 1);
    assert_eq!(state(&api, &renamed).await, "DEAD");
    assert_eq!(state(&api, &free).await, "REPLAYED");
    api.end().await;
}

/// Closed letters of the nil account, and open ones of others.
async fn insert_a_crowd_beside_the_nil_accounts_open_letters(pool: &PgPool) {
    sqlx::raw_sql(
        "INSERT INTO dead_letters (id, account_id, state, source_topic, source_partition, source_offset, attempts,
                error_class, error_stage, error_message, headers, value_sha256)
         SELECT gen_random_uuid(), CASE WHEN n > 5000 THEN '00000000-0000-0000-0000-000000000000' ELSE gen_random_uuid() END,
                CASE WHEN n > 5000 THEN 'REPLAYED' ELSE 'DEAD' END,
                'transactions', 0, n, 1, 'undecodable', 'decode', 'm', '[]', sha256('')
           FROM generate_series(1, 25000) n;
         ANALYZE dead_letters",
    )
    .execute(pool)
    .await
    .unwrap();
}

/// How many letters were read, by whichever way, by sessions that have ended.
async fn letters_read(pool: &PgPool) -> i64 {
    let sessions = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'postonce-api'";
    eventually("the sessions end", async || {
        let sessions = sqlx::query_scalar::<_, i64>(sessions);
        sessions.fetch_one(pool).await.unwrap() == 0
    })
    .await;
    let read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'dead_letters'";
    sqlx::query_scalar(read).fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replay_by_account_reads_none_of_its_closed_letters(pool: PgPool) {
    // Sessions get there by themselves after some runs: a plan for whatever account may come.
    let generic =
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET plan_cache_mode = force_generic_plan',
                   current_database()); END $$";
    sqlx::raw_sql(generic).execute(&pool).await.unwrap();
    for _ in 0..5 {
        Letter::unreadable().die(&pool).await;
    }
    insert_a_crowd_beside_the_nil_accounts_open_letters(&pool).await;
    let before = letters_read(&pool).await;
    let api = Api::new(pool.clone()).await;
    assert_eq!(
        replay_all(&api, &json!({ "account_id": Uuid::nil() })).await,
        [5]
    );
    api.end().await;
    let read = letters_read(&pool).await - before;
    assert!((5..500).contains(&read), "{read} letters were read");
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_crowd_is_replayed_run_by_run(pool: PgPool) {
    let api = Api::with(pool, &["--list-examined-rows-max=300"]).await;
    let mut transaction = api.pool.begin().await.unwrap();
    for at in 0..700 {
        let class = if at < 350 { "mismatch" } else { "undecodable" };
        Letter {
            class,
            ..Letter::unreadable()
        }
        .insert(&mut transaction)
        .await;
    }
    transaction.commit().await.unwrap();
    // The first 300 looked at hold none; then 200 a run at most.
    assert_eq!(
        replay_all(&api, &json!({ "class": "undecodable" })).await,
        [0, 200, 150]
    );
    assert_eq!(
        api.count("dead_letters WHERE state = 'REPLAYED'").await,
        350
    );
    assert_eq!(api.count("outbox_events").await, 350);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn two_runs_at_once_replay_each_letter_once(pool: PgPool) {
    let api = Api::new(pool).await;
    let mut transaction = api.pool.begin().await.unwrap();
    for _ in 0..50 {
        Letter::unreadable().insert(&mut transaction).await;
    }
    transaction.commit().await.unwrap();
    let until = post(&api, &json!({ "dry_run": true })).await["until"].clone();
    let run = json!({ "dry_run": false, "until": until });
    let (one, other) = tokio::join!(post(&api, &run), post(&api, &run));
    let replayed = [one, other].map(|done| done["replayed"].as_u64().unwrap());
    assert_eq!(replayed.iter().sum::<u64>(), 50);
    assert_eq!(api.count("outbox_events").await, 50);
    assert_eq!(api.count("dead_letter_actions").await, 50);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_body_that_is_not_as_documented_is_refused_by_field(pool: PgPool) {
    let api = Api::new(pool).await;
    Letter::unreadable().die(&api.pool).await;
    let until = post(&api, &json!({ "dry_run": true })).await["until"].clone();
    let account = Uuid::now_v7();
    let table = [
        (json!({}), 400, "dry_run", "missing_field"),
        (json!({ "dry_run": "yes" }), 400, "dry_run", "wrong_type"),
        (
            json!({ "dry_run": true, "filter": {} }),
            400,
            "filter",
            "unknown_field",
        ),
        (
            json!({ "dry_run": true, "class": "poison" }),
            422,
            "class",
            "unknown_class",
        ),
        (
            json!({ "dry_run": true, "account_id": "x" }),
            422,
            "account_id",
            "invalid_uuid",
        ),
        (
            json!({ "dry_run": true, "dead_from": "yesterday" }),
            422,
            "dead_from",
            "invalid_time",
        ),
        (
            json!({ "dry_run": true, "dead_from": "2026-11-22T00:00:00Z", "dead_to": "2026-11-21T00:00:00Z" }),
            422,
            "dead_from",
            "after_dead_to",
        ),
        (
            json!({ "dry_run": true, "until": until }),
            422,
            "until",
            "not_of_a_dry_run",
        ),
        (
            json!({ "dry_run": true, "cursor": until }),
            422,
            "cursor",
            "not_of_a_dry_run",
        ),
        (json!({ "dry_run": false }), 422, "until", "needs_dry_run"),
        (
            json!({ "dry_run": false, "until": "2026-11-22T00:00:00Z" }),
            422,
            "until",
            "invalid_value",
        ),
        // The dry run counted other letters.
        (
            json!({ "dry_run": false, "until": until, "class": "mismatch" }),
            422,
            "until",
            "invalid_value",
        ),
        (
            json!({ "dry_run": false, "until": until, "account_id": account }),
            422,
            "until",
            "invalid_value",
        ),
        (
            json!({ "dry_run": false, "until": until, "cursor": until }),
            422,
            "cursor",
            "invalid_value",
        ),
        (
            json!({ "dry_run": false, "until": until, "reason": "" }),
            422,
            "reason",
            "invalid_reason",
        ),
    ];
    for (body, status, field, code) in table {
        let kind = if status == 400 {
            "invalid_body"
        } else {
            "validation_failed"
        };
        let problem = api.post(PATH, &body).await.assert_problem(status, kind);
        let error = &problem["errors"][0];
        assert_eq!(
            (&error["field"], &error["code"]),
            (&json!(field), &json!(code)),
            "{body}"
        );
    }
    assert_eq!(api.count("dead_letters WHERE state = 'DEAD'").await, 1);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_dry_run_looks_at_a_bounded_number_of_letters_and_says_so(pool: PgPool) {
    let api = Api::new(pool).await;
    sqlx::query(
        "INSERT INTO dead_letters (id, account_id, source_topic, source_partition, source_offset, attempts, error_class,
                error_stage, error_message, headers, value_sha256)
         SELECT gen_random_uuid(), gen_random_uuid(), 'transactions', 0, n, 1, 'undecodable', 'decode', 'm', '[]', sha256('')
           FROM generate_series(1, 10001) n",
    )
    .execute(&api.pool)
    .await
    .unwrap();
    let seen = post(&api, &json!({ "dry_run": true })).await;
    assert_eq!(
        (&seen["matched"], &seen["matched_is_capped"]),
        (&json!(10_000), &json!(true))
    );
    assert_eq!(seen["sample"].as_array().unwrap().len(), 20);
    // A run goes on behind what the dry run looked at.
    let run = json!({ "dry_run": false, "until": seen["until"] });
    let done = post(&api, &run).await;
    assert_eq!(done["replayed"], 200);
    assert!(done["next_cursor"].is_string());
    api.end().await;
}
