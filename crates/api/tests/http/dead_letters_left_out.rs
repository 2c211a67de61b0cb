//! Letters that a replay of many leaves out, and goes on.

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::join;

use crate::{
    harness::{Api, eventually},
    letters::{Letter, as_worker},
};

const PATH: &str = "/v1/dead-letters/replay";
/// A busy machine must not end a run early.
const PATIENT: [&str; 2] = [
    "--http-request-timeout-ms=120000",
    "--database-statement-timeout-ms=9000",
];

async fn post(api: &Api, body: &Value) -> Value {
    let answer = api.post(PATH, body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

/// A run of everything that is dead now.
async fn run(api: &Api) -> Value {
    let until = post(api, &json!({ "dry_run": true })).await["until"].clone();
    json!({ "dry_run": false, "until": until })
}

/// Has each action on a letter begin with these statements.
async fn begin_each_action_on(letter: &Letter, pool: &PgPool, with: &str) {
    let statements = format!(
        "CREATE FUNCTION begin_action() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN {with}; RETURN NEW; END $$;
         CREATE TRIGGER begin_action BEFORE INSERT ON dead_letter_actions FOR EACH ROW
         WHEN (NEW.dead_letter_id = '{}') EXECUTE FUNCTION begin_action()",
        letter.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
        .execute(pool)
        .await
        .unwrap();
}

async fn dead(api: &Api) -> i64 {
    api.count("dead_letters WHERE state = 'DEAD'").await
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_whose_account_is_held_holds_up_no_other(pool: PgPool) {
    let api = Api::with(pool, &PATIENT).await;
    let account = api.open_account("EUR").await;
    let held = [
        api.dead_lettered_of(&account).await,
        api.dead_lettered_of(&account).await,
    ];
    api.dead_lettered().await;
    let run = run(&api).await;
    let mut worker = as_worker(&api.pool, "READ COMMITTED").await;
    sqlx::query("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE")
        .bind(held[0].account_id)
        .fetch_one(&mut *worker)
        .await
        .unwrap();
    let done = post(&api, &run).await;
    let skipped = held.map(|letter| json!({ "id": letter.id, "code": "account_busy" }));
    assert_eq!(done["skipped"], json!(skipped));
    assert_eq!(
        (&done["matched"], &done["replayed"], &done["next_cursor"]),
        (&json!(3), &json!(1), &Value::Null)
    );
    worker.rollback().await.unwrap();
    assert_eq!(dead(&api).await, 2);
    let again = post(&api, &run).await;
    assert_eq!(
        (&again["replayed"], &again["skipped"]),
        (&json!(2), &json!([]))
    );
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_whose_replay_raises_holds_up_no_other(pool: PgPool) {
    let api = Api::with(pool, &PATIENT).await;
    let poison = api.dead_lettered().await;
    for _ in 0..2 {
        api.dead_lettered().await;
    }
    begin_each_action_on(&poison, &api.pool, "RAISE 'not this one'").await;
    let done = post(&api, &run(&api).await).await;
    let skipped = json!([{ "id": poison.id, "code": "internal" }]);
    assert_eq!(done["skipped"], skipped);
    assert_eq!(
        (&done["matched"], &done["replayed"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(dead(&api).await, 1);
    assert_eq!(api.sent().await.len(), 2, "nothing of it is left");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_breaks_every_replay_ends_the_run(pool: PgPool) {
    let api = Api::with(pool, &PATIENT).await;
    api.dead_lettered().await;
    let run = run(&api).await;
    let revoke = sqlx::raw_sql("REVOKE INSERT ON dead_letter_actions FROM postonce_api");
    revoke.execute(&api.pool).await.unwrap();
    api.post(PATH, &run).await.assert_problem(500, "internal");
    assert_eq!(dead(&api).await, 1);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_dies_again_while_a_run_is_under_way_is_left_alone(pool: PgPool) {
    let api = Api::with(pool, &PATIENT).await;
    let (first, again) = (api.dead_lettered().await, api.dead_lettered().await);
    let until_free = "WHILE NOT pg_try_advisory_xact_lock(1) LOOP PERFORM pg_sleep(0.01); END LOOP";
    begin_each_action_on(&first, &api.pool, until_free).await;
    let run = run(&api).await;
    let mut holder = api.pool.begin().await.unwrap();
    let hold = sqlx::query("SELECT pg_advisory_xact_lock(1)");
    hold.execute(&mut *holder).await.unwrap();
    let meanwhile = async {
        eventually("the run is at its first letter", async || {
            let sleeping =
                "pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
            api.count(sleeping).await == 1
        })
        .await;
        assert_eq!(api.replay(&again).await.status, 200);
        again.die_again(&api.pool).await;
        holder.rollback().await.unwrap();
    };
    let (done, ()) = join!(post(&api, &run), meanwhile);
    assert_eq!(
        (&done["matched"], &done["replayed"], &done["skipped"]),
        (&json!(1), &json!(1), &json!([]))
    );
    let shown = api.get(&again.path()).await.json();
    assert_eq!(
        (&shown["state"], &shown["replay_count"]),
        (&json!("DEAD"), &json!(1))
    );
    api.end().await;
}
