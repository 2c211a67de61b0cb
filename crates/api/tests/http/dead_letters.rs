use common::types::{AccountId, Lane};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgListener};
use uuid::Uuid;

use crate::{
    harness::Api,
    letters::{Letter, Sent},
};

/// A pool as small as it is and a busy machine must not make a request wait in vain.
const PATIENT: [&str; 1] = ["--database-acquire-timeout-ms=60000"];

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_is_shown_with_its_record_as_it_was(pool: PgPool) {
    let api = Api::new(pool).await;
    let letter = Letter {
        key: Some(b"\xc3\x28".to_vec()),
        value: None,
        headers: json!([["a", "text"], ["a", { "base64": "/wA=" }], ["b", null], ["c", { "base64": "eAB5" }]]),
        ..Letter::unreadable()
    }
    .die(&api.pool)
    .await;
    let shown = api.get(&letter.path()).await.json();
    assert_eq!(shown["id"], json!(letter.id));
    for absent in ["account_id", "event_id", "transaction_id", "value"] {
        assert_eq!(shown[absent], Value::Null, "{absent}");
    }
    assert_eq!(shown["key"], json!({ "base64": "wyg=" }));
    let headers = json!([
        { "name": "a", "value": { "text": "text" } },
        { "name": "a", "value": { "base64": "/wA=" } },
        { "name": "b", "value": null },
        { "name": "c", "value": { "text": "x\u{0}y" } },
    ]);
    assert_eq!(shown["headers"], headers);
    assert_eq!(
        (&shown["state"], &shown["class"], &shown["stage"]),
        (&json!("DEAD"), &json!("undecodable"), &json!("decode"))
    );
    assert_eq!(
        (&shown["message"], &shown["attempts"]),
        (&json!("P0001: no"), &json!(6))
    );
    assert_eq!(
        (
            &shown["source_topic"],
            &shown["source_partition"],
            &shown["source_offset"]
        ),
        (
            &json!("transactions"),
            &json!(3),
            &json!(letter.source_offset)
        )
    );
    assert_eq!(shown["actions"], json!([]));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replay_sends_the_record_again_under_the_same_event_id(pool: PgPool) {
    let api = Api::new(pool).await;
    let letter = api.dead_lettered().await;
    let waiting = api.transaction(letter.transaction_id).await;
    assert_eq!(waiting["status"], "PROCESSING");
    assert_eq!(waiting["failure_reason"], "dead_lettered");

    let answer = api.replay(&letter).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["state"], "REPLAYED");
    assert_eq!(answer.json()["replay_count"], 0);
    let sent = Sent {
        event_id: letter.event_id.unwrap(),
        account_id: letter.account_id,
        aggregate_id: letter.event_id.unwrap(),
        lane: Lane::of(AccountId(letter.account_id)).number(),
        topic: "transactions".to_owned(),
        partition_key: letter.account_id.to_string(),
        event_type: "dead_letter".to_owned(),
        payload: None,
        dead_letter_id: Some(letter.id),
    };
    assert_eq!(api.sent().await, [sent]);
    let again = api.transaction(letter.transaction_id).await;
    assert_eq!(again["status"], "PROCESSING", "states never go back");
    assert_eq!(again["failure_reason"], Value::Null);
    assert_eq!(api.count("processed_events").await, 0);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn each_action_is_recorded_with_who_when_and_why(pool: PgPool) {
    let api = Api::new(pool).await;
    let letter = api.dead_lettered().await;
    let path = format!("{}/replay", letter.path());
    let named = [("x-request-id", "night-shift-1")];
    let answer = api.post_with(&path, &json!({}), &named).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    letter.die_again(&api.pool).await;
    let path = format!("{}/discard", letter.path());
    let named = [("x-request-id", "night-shift-2")];
    let body = json!({ "reason": "paid in cash" });
    assert_eq!(api.post_with(&path, &body, &named).await.status, 200);

    let shown = api.get(&letter.path()).await.json();
    assert_eq!(
        (&shown["state"], &shown["replay_count"]),
        (&json!("DISCARDED"), &json!(1))
    );
    let mut actions = shown["actions"].clone();
    for action in actions.as_array_mut().unwrap() {
        let at = action.as_object_mut().unwrap().remove("at").unwrap();
        let at: chrono::DateTime<chrono::Utc> = at.as_str().unwrap().parse().unwrap();
        assert!((chrono::Utc::now() - at).num_minutes() < 5, "{at}");
    }
    let expected = json!([
        { "action": "DISCARD", "actor": "tests", "reason": "paid in cash", "request_id": "night-shift-2" },
        { "action": "REPLAY", "actor": "tests", "reason": null, "request_id": "night-shift-1" },
    ]);
    assert_eq!(actions, expected);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_that_is_not_dead_is_neither_replayed_nor_discarded(pool: PgPool) {
    let api = Api::new(pool).await;
    for ended in ["REPLAYED", "DISCARDED"] {
        let letter = api.dead_lettered().await;
        let done = match ended {
            "REPLAYED" => api.replay(&letter).await,
            _ => api.discard(&letter).await,
        };
        assert_eq!(done.status, 200);
        let (sent, transaction) = (
            api.sent().await,
            api.transaction(letter.transaction_id).await,
        );
        for refused in [api.replay(&letter).await, api.discard(&letter).await] {
            let problem = refused.assert_problem(409, "dead_letter_not_dead");
            assert!(
                problem["detail"].as_str().unwrap().contains(ended),
                "{problem}"
            );
        }
        assert_eq!(api.sent().await, sent);
        assert_eq!(api.transaction(letter.transaction_id).await, transaction);
    }
    assert_eq!(api.count("dead_letter_actions").await, 2);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_whose_transaction_is_final_is_put_aside_and_never_replayed(pool: PgPool) {
    let api = Api::new(pool).await;
    for final_state in [
        "status = 'PROCESSED', failure_reason = NULL",
        "status = 'FAILED', failure_reason = 'insufficient_funds'",
    ] {
        let letter = api.dead_lettered().await;
        let end =
            format!("UPDATE transactions SET processed_at = now(), {final_state} WHERE id = $1");
        let end = sqlx::query(sqlx::AssertSqlSafe(end)).bind(letter.transaction_id);
        end.execute(&api.pool).await.unwrap();
        let before = api.transaction(letter.transaction_id).await;
        api.replay(&letter)
            .await
            .assert_problem(409, "transaction_final");
        assert_eq!(api.get(&letter.path()).await.json()["state"], "DEAD");
        let answer = api.discard(&letter).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["state"]),
            (200, &json!("DISCARDED"))
        );
        assert_eq!(api.transaction(letter.transaction_id).await, before);
    }
    assert_eq!(api.sent().await, []);
    assert_eq!(api.count("processed_events").await, 2);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_forged_records_letter_touches_no_transaction(pool: PgPool) {
    let api = Api::new(pool).await;
    let genuine = api.dead_lettered().await;
    let forged = || Letter {
        id: Uuid::now_v7(),
        transaction_id: None,
        class: "mismatch",
        stage: "compare",
        value: Some(Uuid::new_v4().as_bytes().to_vec()),
        ..genuine.clone()
    };
    let before = api.transaction(genuine.transaction_id).await;
    let replayed = forged().die(&api.pool).await;
    assert_eq!(api.replay(&replayed).await.status, 200);
    let discarded = forged().die(&api.pool).await;
    assert_eq!(api.discard(&discarded).await.status, 200);
    assert_eq!(api.transaction(genuine.transaction_id).await, before);
    assert_eq!(
        api.count("processed_events").await,
        1,
        "the genuine event stays closed"
    );
    let sent = api.sent().await;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].dead_letter_id, Some(replayed.id));
    assert_eq!(api.get(&genuine.path()).await.json()["state"], "DEAD");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn what_claims_no_account_and_what_was_a_result_goes_back_where_it_came_from(pool: PgPool) {
    let api = Api::new(pool).await;
    let unreadable = Letter::unreadable().die(&api.pool).await;
    assert_eq!(api.replay(&unreadable).await.status, 200);
    let account = api.open_account("EUR").await.parse().unwrap();
    let result = Letter {
        event_id: Some(Uuid::now_v7()),
        class: "refused_by_broker",
        stage: "publish",
        source_topic: "transactions.results",
        source_offset: None,
        ..Letter::unreadable().of_account(account)
    }
    .die(&api.pool)
    .await;
    assert_eq!(api.replay(&result).await.status, 200);
    let sent = api.sent().await;
    assert_eq!(
        (
            sent[0].event_id,
            sent[0].account_id,
            sent[0].lane,
            sent[0].topic.as_str()
        ),
        (
            unreadable.id,
            Uuid::nil(),
            Lane::of(AccountId(Uuid::nil())).number(),
            "transactions"
        )
    );
    assert_eq!(
        (
            sent[1].event_id,
            sent[1].account_id,
            sent[1].topic.as_str(),
            sent[1].dead_letter_id
        ),
        (
            result.event_id.unwrap(),
            account,
            "transactions.results",
            Some(result.id)
        )
    );
    let shown = api.get(&result.path()).await.json();
    assert_eq!(
        (&shown["source_partition"], &shown["source_offset"]),
        (&Value::Null, &Value::Null)
    );
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_letter_whose_topic_was_renamed_is_not_replayed(pool: PgPool) {
    let renamed = ["--transactions-topic=payments", "--results-topic=outcomes"];
    let api = Api::with(pool, &renamed).await;
    // Its record stood on topic transactions.
    let letter = api.dead_lettered().await;
    let before = api.transaction(letter.transaction_id).await;
    let problem = api.replay(&letter).await;
    let problem = problem.assert_problem(409, "dead_letter_topic_unknown");
    let detail = problem["detail"].as_str().unwrap();
    for named in ["topic transactions,", "(payments)", "(outcomes)", "discard"] {
        assert!(detail.contains(named), "{detail}");
    }
    assert_eq!(api.sent().await, [], "a publisher's lane would stop there");
    assert_eq!(api.get(&letter.path()).await.json()["state"], "DEAD");
    assert_eq!(api.transaction(letter.transaction_id).await, before);
    let closed = api.count("processed_events").await;
    assert_eq!(closed, 1, "its event stays closed");

    assert_eq!(api.discard(&letter).await.status, 200);
    for source_topic in ["payments", "outcomes"] {
        let letter = Letter {
            source_topic,
            ..Letter::unreadable()
        };
        let letter = letter.die(&api.pool).await;
        assert_eq!(api.replay(&letter).await.status, 200);
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_discard_ends_the_transaction_and_tells_of_it(pool: PgPool) {
    let api = Api::with(pool, &["--results-topic=results"]).await;
    let letter = api.dead_lettered().await;
    let answer = api.discard(&letter).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["state"], "DISCARDED");
    let ended = api.transaction(letter.transaction_id).await;
    assert_eq!(
        (&ended["status"], &ended["failure_reason"]),
        (&json!("FAILED"), &json!("discarded"))
    );
    assert!(ended["processed_at"].is_string());
    assert_eq!(
        api.count("processed_events").await,
        1,
        "its event stays closed"
    );

    let sent = api.sent().await;
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(
        (
            sent[0].topic.as_str(),
            sent[0].event_type.as_str(),
            sent[0].aggregate_id
        ),
        (
            "results",
            "transaction.failed",
            letter.transaction_id.unwrap()
        )
    );
    assert_eq!(sent[0].dead_letter_id, None);
    let payload: Value = serde_json::from_str(sent[0].payload.as_ref().unwrap()).unwrap();
    let expected = json!({
        "schema_version": 1, "transaction_id": letter.transaction_id, "account_id": letter.account_id,
        "amount_cents": 5, "currency": "EUR", "type": "CREDIT", "failure_reason": "discarded"
    });
    assert_eq!(payload, expected);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_publisher_hears_of_a_replay_and_of_a_discard(pool: PgPool) {
    let api = Api::new(pool).await;
    for replayed in [true, false] {
        let letter = api.dead_lettered().await;
        let mut listener = PgListener::connect_with(&api.pool).await.unwrap();
        listener.listen(common::outbox::CHANNEL).await.unwrap();
        let answer = if replayed {
            api.replay(&letter).await
        } else {
            api.discard(&letter).await
        };
        assert_eq!(answer.status, 200);
        let lane = Lane::of(AccountId(letter.account_id));
        let heard = async {
            loop {
                let hint = listener.recv().await.unwrap();
                let lanes: common::types::LaneSet = hint.payload().parse().unwrap();
                if lanes.contains(lane) {
                    return;
                }
            }
        };
        tokio::time::timeout(crate::harness::PATIENCE, heard)
            .await
            .unwrap();
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn twenty_replays_at_once_send_one_record(pool: PgPool) {
    let api = Api::with(pool, &PATIENT).await;
    let letters = [
        api.dead_lettered().await,
        Letter::unreadable().die(&api.pool).await,
    ];
    for (round, letter) in letters.iter().enumerate() {
        let answers = join_all((0..20).map(|_| api.replay(letter))).await;
        let (done, refused): (Vec<_>, Vec<_>) =
            answers.iter().partition(|answer| answer.status == 200);
        assert_eq!((done.len(), refused.len()), (1, 19));
        for answer in refused {
            answer.assert_problem(409, "dead_letter_not_dead");
        }
        let so_far = i64::try_from(round).unwrap() + 1;
        assert_eq!(api.sent().await.len(), round + 1);
        assert_eq!(api.count("dead_letter_actions").await, so_far);
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replay_and_a_discard_at_once_never_both_happen(pool: PgPool) {
    let api = Api::with(pool, &PATIENT).await;
    for _ in 0..10 {
        let letter = api.dead_lettered().await;
        let (replayed, discarded) = tokio::join!(api.replay(&letter), api.discard(&letter));
        let done = [&replayed, &discarded].map(|answer| answer.status == 200);
        assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
        let transaction = api.transaction(letter.transaction_id).await;
        let expected = if done[0] { "PROCESSING" } else { "FAILED" };
        assert_eq!(transaction["status"], expected);
    }
    assert_eq!(api.sent().await.len(), 10);
    assert_eq!(api.count("dead_letter_actions").await, 10);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_unknown_letter_is_404_and_a_malformed_id_400(pool: PgPool) {
    let api = Api::new(pool).await;
    let unknown = format!("/v1/dead-letters/{}", Uuid::now_v7());
    api.get(&unknown)
        .await
        .assert_problem(404, "dead_letter_not_found");
    api.get("/v1/dead-letters/x")
        .await
        .assert_problem(400, "invalid_path");
    for action in ["replay", "discard"] {
        let body = json!({ "reason": "r" });
        let answer = api.post(&format!("{unknown}/{action}"), &body).await;
        answer.assert_problem(404, "dead_letter_not_found");
        let answer = api
            .post(&format!("/v1/dead-letters/x/{action}"), &body)
            .await;
        answer.assert_problem(400, "invalid_path");
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_discard_needs_a_reason_that_can_be_read(pool: PgPool) {
    let api = Api::new(pool).await;
    let letter = api.dead_lettered().await;
    let too_long = "x".repeat(501);
    let table = [
        (json!({}), 400, "reason", "missing_field"),
        (json!({ "reason": null }), 400, "reason", "wrong_type"),
        (
            json!({ "reason": "r", "why": "x" }),
            400,
            "why",
            "unknown_field",
        ),
        (json!({ "reason": "" }), 422, "reason", "invalid_reason"),
        (json!({ "reason": " \t" }), 422, "reason", "invalid_reason"),
        (
            json!({ "reason": "two\nlines" }),
            422,
            "reason",
            "invalid_reason",
        ),
        (
            json!({ "reason": "nul\u{0}" }),
            422,
            "reason",
            "invalid_reason",
        ),
        (
            json!({ "reason": too_long }),
            422,
            "reason",
            "invalid_reason",
        ),
    ];
    for (body, status, field, code) in table {
        let answer = api.post(&format!("{}/discard", letter.path()), &body).await;
        let kind = if status == 400 {
            "invalid_body"
        } else {
            "validation_failed"
        };
        let problem = answer.assert_problem(status, kind);
        let error = &problem["errors"][0];
        assert_eq!(
            (&error["field"], &error["code"]),
            (&json!(field), &json!(code)),
            "{body}"
        );
    }
    let answer = api
        .post(
            &format!("{}/replay", letter.path()),
            &json!({ "reason": "" }),
        )
        .await;
    answer.assert_problem(422, "validation_failed");
    assert_eq!(api.get(&letter.path()).await.json()["state"], "DEAD");
    assert_eq!(api.count("dead_letter_actions").await, 0);
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replay_that_fails_in_the_middle_leaves_nothing_and_no_lock(pool: PgPool) {
    let api = Api::new(pool).await;
    let letter = api.dead_lettered().await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON dead_letter_actions FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .execute(&api.pool)
    .await
    .unwrap();
    for answer in [api.replay(&letter).await, api.discard(&letter).await] {
        answer.assert_problem(500, "internal");
    }
    assert_eq!(api.sent().await, []);
    assert_eq!(api.count("processed_events").await, 1);
    let transaction = api.transaction(letter.transaction_id).await;
    assert_eq!(transaction["failure_reason"], "dead_lettered");
    let drop = sqlx::raw_sql("DROP TRIGGER refuse ON dead_letter_actions");
    drop.execute(&api.pool).await.unwrap();
    assert_eq!(api.replay(&letter).await.status, 200);
    api.end().await;
}
