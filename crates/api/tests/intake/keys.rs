use api::intake::{NewTransaction, Outcome, Refusal};
use common::types::{AccountId, TransactionCreated, TransactionType};
use sqlx::PgPool;

use crate::support::{Fixture, credit, open_account};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_new_transaction_is_written_with_its_event(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let Outcome::Created(created) = it.submit(credit(it.account, "k")).await else {
        panic!("not created")
    };
    let (event_id, key, payload): (uuid::Uuid, String, String) =
        sqlx::query_as("SELECT event_id, partition_key, payload::text FROM outbox_events")
            .fetch_one(&it.pool)
            .await
            .unwrap();
    assert_eq!(event_id, created.id.0);
    assert_eq!(key, it.account.to_string());
    let event: TransactionCreated = serde_json::from_str(&payload).unwrap();
    assert_eq!(
        (event.transaction_id, event.account_id),
        (created.id, it.account)
    );
    let stored: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT created_at FROM transactions")
            .fetch_one(&it.pool)
            .await
            .unwrap();
    assert_eq!(stored, created.created_at);
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replay_returns_the_original_and_writes_no_event(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let Outcome::Created(original) = it.submit(credit(it.account, "k")).await else {
        panic!("not created")
    };
    for _ in 0..3 {
        let replay = it.submit(credit(it.account, "k")).await;
        assert_eq!(replay, Outcome::Replayed(original.clone()));
    }
    assert_eq!(it.count("transactions").await, 1);
    assert_eq!(it.count("outbox_events").await, 1);
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn fifty_at_once_with_one_key_make_one_transaction(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let requests: Vec<_> = (0..50)
        .map(|_| it.submit_later(credit(it.account, "same")))
        .collect();
    let mut created = 0;
    let mut ids = std::collections::HashSet::new();
    for request in requests {
        match request.await.unwrap().unwrap() {
            Outcome::Created(transaction) => {
                created += 1;
                ids.insert(transaction.id);
            }
            Outcome::Replayed(transaction) => {
                ids.insert(transaction.id);
            }
            Outcome::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
    assert_eq!((created, ids.len()), (1, 1));
    assert_eq!(it.count("transactions").await, 1);
    assert_eq!(it.count("outbox_events").await, 1);
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn two_intakes_at_once_with_the_same_keys_make_each_transaction_once(pool: PgPool) {
    let one = Fixture::new(pool.clone()).await;
    let other = Fixture::new(pool).await;
    let requests: Vec<_> = (0..200)
        .flat_map(|n| {
            let new = credit(one.account, &format!("k{n}"));
            [one.submit_later(new.clone()), other.submit_later(new)]
        })
        .collect();
    let mut created = 0;
    for request in requests {
        created += i32::from(matches!(
            request.await.unwrap().unwrap(),
            Outcome::Created(_)
        ));
    }
    assert_eq!(created, 200);
    assert_eq!(one.count("transactions").await, 200);
    assert_eq!(one.count("outbox_events").await, 200);
    one.close().await;
    other.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_key_reused_with_other_content_is_refused(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let original = credit(it.account, "k");
    it.submit(original.clone()).await;
    let others = [
        NewTransaction {
            amount_cents: 101.try_into().unwrap(),
            ..original.clone()
        },
        NewTransaction {
            currency: "USD".parse().unwrap(),
            ..original.clone()
        },
        NewTransaction {
            transaction_type: TransactionType::Debit,
            ..original
        },
    ];
    for other in others {
        assert_eq!(it.submit(other).await, Outcome::Refused(Refusal::KeyReused));
    }
    assert_eq!(it.count("transactions").await, 1);
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_key_belongs_to_its_account(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let other = open_account(&it.pool, "EUR").await;
    assert!(matches!(
        it.submit(credit(it.account, "k")).await,
        Outcome::Created(_)
    ));
    assert!(matches!(
        it.submit(credit(other, "k")).await,
        Outcome::Created(_)
    ));
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_refusal_stores_nothing_and_does_not_burn_the_key(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let dollars = open_account(&it.pool, "USD").await;
    let unknown = AccountId::new();
    assert_eq!(
        it.submit(credit(unknown, "k")).await,
        Outcome::Refused(Refusal::UnknownAccount)
    );
    assert_eq!(
        it.submit(credit(dollars, "k")).await,
        Outcome::Refused(Refusal::CurrencyMismatch {
            account_currency: "USD".to_owned()
        })
    );
    set_status(&it.pool, dollars, "SUSPENDED").await;
    assert_eq!(
        it.submit(credit(dollars, "k")).await,
        Outcome::Refused(Refusal::AccountSuspended)
    );
    assert_eq!(it.count("transactions").await, 0);
    assert_eq!(it.count("outbox_events").await, 0);
    set_status(&it.pool, dollars, "ACTIVE").await;
    let right = NewTransaction {
        currency: "USD".parse().unwrap(),
        ..credit(dollars, "k")
    };
    assert!(matches!(it.submit(right).await, Outcome::Created(_)));
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_replay_is_answered_though_its_account_was_suspended_since(pool: PgPool) {
    let it = Fixture::new(pool).await;
    it.submit(credit(it.account, "k")).await;
    set_status(&it.pool, it.account, "SUSPENDED").await;
    assert!(matches!(
        it.submit(credit(it.account, "k")).await,
        Outcome::Replayed(_)
    ));
    let fresh = it.submit(credit(it.account, "fresh")).await;
    assert_eq!(fresh, Outcome::Refused(Refusal::AccountSuspended));
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn repeats_within_one_batch_are_answered_from_the_batch_itself(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let first = credit(it.account, "k");
    let other = NewTransaction {
        amount_cents: 7.try_into().unwrap(),
        ..first.clone()
    };
    // The first use of this key is refused, so its second use is the first one that counts.
    let wrong = NewTransaction {
        currency: "USD".parse().unwrap(),
        ..credit(it.account, "w")
    };
    let items = vec![
        first.clone(),
        first.clone(),
        other,
        wrong,
        credit(it.account, "w"),
        first,
        credit(it.account, "z"),
    ];
    let answers: Vec<_> = it
        .intake
        .submit_batch(items)
        .await
        .unwrap()
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let Outcome::Created(original) = &answers[0] else {
        panic!("{:?}", answers[0])
    };
    assert_eq!(answers[1], Outcome::Replayed(original.clone()));
    assert_eq!(answers[2], Outcome::Refused(Refusal::KeyReused));
    assert!(matches!(
        answers[3],
        Outcome::Refused(Refusal::CurrencyMismatch { .. })
    ));
    assert!(matches!(answers[4], Outcome::Created(_)));
    assert_eq!(answers[5], Outcome::Replayed(original.clone()));
    assert!(matches!(answers[6], Outcome::Created(_)));
    assert_eq!(
        keys_in_order(&it.pool).await,
        ["k", "w", "z"],
        "in item order"
    );
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_stored_key_among_new_ones_is_a_replay_and_its_neighbours_are_accepted(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let Outcome::Created(original) = it.submit(credit(it.account, "stored")).await else {
        panic!("not created")
    };
    let suspended = open_account(&it.pool, "EUR").await;
    set_status(&it.pool, suspended, "SUSPENDED").await;
    // More rounds than a stored key makes the intake expect further ones.
    for round in 0..20 {
        let keys = [
            format!("a{round}"),
            "stored".to_owned(),
            format!("b{round}"),
        ];
        let mut items: Vec<_> = keys.iter().map(|key| credit(it.account, key)).collect();
        items.push(credit(suspended, "refused"));
        let answers = it.intake.submit_batch(items).await.unwrap();
        let outcomes: Vec<Outcome> = answers.into_iter().map(Result::unwrap).collect();
        assert!(matches!(outcomes[0], Outcome::Created(_)), "{outcomes:?}");
        assert_eq!(outcomes[1], Outcome::Replayed(original.clone()));
        assert!(matches!(outcomes[2], Outcome::Created(_)), "{outcomes:?}");
        assert_eq!(outcomes[3], Outcome::Refused(Refusal::AccountSuspended));
    }
    assert_eq!(it.count("transactions").await, 41);
    assert_eq!(it.count("outbox_events").await, 41);
    it.close().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn items_of_one_account_are_written_in_item_order(pool: PgPool) {
    let it = Fixture::new(pool).await;
    let items = (0..1000)
        .map(|n| credit(it.account, &format!("k{n:04}")))
        .collect();
    it.intake.submit_batch(items).await.unwrap();
    let keys = keys_in_order(&it.pool).await;
    assert_eq!(keys.len(), 1000);
    assert!(keys.is_sorted(), "{keys:?}");
    it.close().await;
}

/// The keys of the transactions in the order in which their events leave.
async fn keys_in_order(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT t.idempotency_key FROM outbox_events o JOIN transactions t ON t.id = o.event_id
          ORDER BY o.seq",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn set_status(pool: &PgPool, account: AccountId, status: &str) {
    sqlx::query("UPDATE accounts SET status = $2 WHERE id = $1")
        .bind(account)
        .bind(status)
        .execute(pool)
        .await
        .unwrap();
}
