use chrono::{TimeDelta, Utc};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{harness::Api, letters::Letter};

/// Follows the cursors to the end; gives the ids by page.
async fn pages(api: &Api, query: &str) -> Vec<Vec<Uuid>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = api.get(&format!("/v1/dead-letters?{query}{cursor}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let page = answer.json();
        let rows = page["data"].as_array().unwrap().iter();
        pages.push(
            rows.map(|row| row["id"].as_str().unwrap().parse().unwrap())
                .collect(),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
        assert!(pages.len() < 100, "the list does not end");
    }
}

async fn insert(api: &Api, letters: &[Letter]) {
    let mut transaction = api.pool.begin().await.unwrap();
    for letter in letters {
        letter.insert(&mut transaction).await;
    }
    transaction.commit().await.unwrap();
}

async fn set_state(api: &Api, letter: &Letter, state: &str) {
    let set = sqlx::query("UPDATE dead_letters SET state = $2 WHERE id = $1");
    let set = set.bind(letter.id).bind(state);
    set.execute(&api.pool).await.unwrap();
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_list_is_narrowed_by_each_filter_and_by_all(pool: PgPool) {
    let api = Api::new(pool).await;
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let hours_ago = |hours| Utc::now() - TimeDelta::hours(hours);
    let letters = [
        Letter {
            dead_at: hours_ago(5),
            ..Letter::unreadable()
        },
        Letter {
            dead_at: hours_ago(4),
            class: "mismatch",
            ..Letter::unreadable().of_account(one)
        },
        Letter {
            dead_at: hours_ago(3),
            ..Letter::unreadable().of_account(one)
        },
        Letter {
            dead_at: hours_ago(2),
            class: "mismatch",
            ..Letter::unreadable().of_account(other)
        },
        Letter {
            dead_at: hours_ago(1),
            class: "rejected",
            ..Letter::unreadable().of_account(one)
        },
    ];
    insert(&api, &letters).await;
    set_state(&api, &letters[2], "REPLAYED").await;
    set_state(&api, &letters[3], "DISCARDED").await;
    let time = |hours| hours_ago(hours).to_rfc3339().replace('+', "%2B");
    let table: Vec<(String, &[usize])> = vec![
        (String::new(), &[4, 3, 2, 1, 0]),
        ("state=DEAD".into(), &[4, 1, 0]),
        ("state=REPLAYED".into(), &[2]),
        ("class=mismatch".into(), &[3, 1]),
        ("class=mismatch&state=DEAD".into(), &[1]),
        (format!("account_id={one}"), &[4, 2, 1]),
        (format!("account_id={one}&state=DEAD"), &[4, 1]),
        (format!("account_id={one}&state=DEAD&class=mismatch"), &[1]),
        (format!("account_id={}", Uuid::nil()), &[0]),
        (format!("account_id={}", Uuid::now_v7()), &[]),
        (
            format!(
                "dead_from={}",
                letters[2].dead_at.to_rfc3339().replace('+', "%2B")
            ),
            &[4, 3, 2],
        ),
        (
            format!(
                "dead_to={}",
                letters[2].dead_at.to_rfc3339().replace('+', "%2B")
            ),
            &[1, 0],
        ),
        (format!("state=DEAD&dead_from={}", time(2)), &[4]),
        (format!("account_id={one}&dead_to={}", time(2)), &[2, 1]),
    ];
    for (query, expected) in table {
        let expected: Vec<_> = expected.iter().map(|at| letters[*at].id).collect();
        for limit in [1, 200] {
            let query = format!("limit={limit}&{query}");
            assert_eq!(
                pages(&api, query.trim_end_matches('&')).await.concat(),
                expected,
                "{query}"
            );
        }
    }
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_filtered_list_looks_at_a_bounded_number_of_letters(pool: PgPool) {
    let api = Api::with(pool, &["--list-examined-rows-max=200"]).await;
    let rare = Letter {
        class: "mismatch",
        ..Letter::unreadable()
    };
    let common: Vec<_> = (0..450).map(|_| Letter::unreadable()).collect();
    insert(&api, std::slice::from_ref(&rare)).await;
    insert(&api, &common).await;
    let replayed = &common[100];
    set_state(&api, replayed, "REPLAYED").await;
    let nil = Uuid::nil();
    for query in [
        "class=mismatch".to_owned(),
        "class=mismatch&state=DEAD".to_owned(),
        format!("class=mismatch&account_id={nil}"),
        format!("class=mismatch&account_id={nil}&state=DEAD"),
    ] {
        let pages = pages(&api, &query).await;
        assert_eq!(pages, [vec![], vec![], vec![rare.id]], "{query}");
    }
    // The state DEAD has an index of its own: nothing is looked at in vain.
    let dead = pages(&api, "state=DEAD&limit=200").await;
    assert_eq!(
        dead.iter().map(Vec::len).collect::<Vec<_>>(),
        [200, 200, 50]
    );
    assert!(!dead.concat().contains(&replayed.id));
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn only_inspecting_a_letter_reads_what_its_record_held(pool: PgPool) {
    let api = Api::new(pool).await;
    let letter = api.dead_lettered().await;
    sqlx::raw_sql(
        "REVOKE SELECT ON dead_letters FROM postonce_api;
         GRANT SELECT (id, account_id, event_id, transaction_id, source_offset, created_at, dead_at, recorded_at,
                       first_failed_at, source_partition, attempts, replay_count, state, source_topic, error_class,
                       error_stage, error_message) ON dead_letters TO postonce_api",
    )
    .execute(&api.pool)
    .await
    .unwrap();
    for query in [
        "limit=5".to_owned(),
        "state=DEAD".to_owned(),
        format!("account_id={}", letter.account_id),
    ] {
        assert_eq!(pages(&api, &query).await, [[letter.id]], "{query}");
    }
    let dry_run = serde_json::json!({ "dry_run": true });
    assert_eq!(
        api.post("/v1/dead-letters/replay", &dry_run).await.status,
        200
    );
    assert_eq!(api.replay(&letter).await.status, 200);
    api.get(&letter.path())
        .await
        .assert_problem(500, "internal");
    api.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_query_that_is_not_as_documented_is_refused_by_parameter(pool: PgPool) {
    let api = Api::new(pool).await;
    insert(&api, &[Letter::unreadable(), Letter::unreadable()]).await;
    let first: Value = api.get("/v1/dead-letters?limit=1").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let table = [
        ("state=dead", "state", "invalid_value"),
        ("class=poison", "class", "invalid_value"),
        ("class=", "class", "invalid_value"),
        ("account_id=x", "account_id", "invalid_value"),
        ("dead_from=2026-11-21", "dead_from", "invalid_value"),
        ("dead_to=2026-11-21T10:00:00", "dead_to", "invalid_value"),
        (
            "dead_from=2026-11-21T11:00:00%2B02:00&dead_to=2026-11-21T08:00:00Z",
            "dead_from",
            "after_dead_to",
        ),
        ("limit=0", "limit", "invalid_value"),
        ("limit=201", "limit", "invalid_value"),
        ("status=DEAD", "status", "unknown_parameter"),
        ("error_class=mismatch", "error_class", "unknown_parameter"),
        ("state=DEAD&state=DEAD", "state", "unknown_parameter"),
        (
            &format!("state=DEAD&cursor={cursor}"),
            "cursor",
            "invalid_value",
        ),
        ("cursor=x", "cursor", "invalid_value"),
    ];
    for (query, field, code) in table {
        let answer = api.get(&format!("/v1/dead-letters?{query}")).await;
        let problem = answer.assert_problem(400, "invalid_query");
        let error = &problem["errors"][0];
        assert_eq!(
            (error["field"].as_str(), error["code"].as_str()),
            (Some(field), Some(code)),
            "{query}"
        );
    }
    let same = "dead_from=2026-11-21T11:00:00Z&dead_to=2026-11-21T11:00:00Z";
    assert_eq!(pages(&api, same).await, [Vec::<Uuid>::new()]);
    api.end().await;
}
