use std::collections::HashSet;

use e2e::{Client, Payment, test};
use serde_json::Value;
use uuid::Uuid;

/// How many payments there are before the first page is asked for.
const BEFORE: usize = 40;

#[test]
fn a_listing_stays_right_while_rows_are_added() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let before = pay(&client, account, BEFORE).await;

        let path = format!("/v1/transactions?account_id={account}&limit=7");
        let listed = pages(&client, &path, async || {
            pay(&client, account, 3).await;
        })
        .await;
        let ids: Vec<_> = listed
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect();
        let distinct: HashSet<_> = ids.iter().cloned().collect();
        assert_eq!(distinct.len(), ids.len(), "a row was listed twice");
        assert!(
            before.iter().all(|id| distinct.contains(&id.to_string())),
            "a row was skipped"
        );
        assert!(
            ids.is_sorted_by(|newer, older| newer > older),
            "newest first: {ids:?}"
        );

        stack.audit().await;
        let path = format!("/v1/transactions?account_id={account}&status=PROCESSED&limit=9");
        let processed = pages(&client, &path, async || {}).await;
        let all = stack
            .database
            .count("SELECT count(*) FROM transactions")
            .await;
        assert_eq!(i64::try_from(processed.len()), Ok(all));
    });
}

#[test]
fn a_statement_stays_right_while_entries_are_added() {
    test(async |stack| {
        stack.start_all().await;
        let client = stack.client().await;
        let account = client.open_account().await;
        pay(&client, account, BEFORE).await;
        stack.audit().await;

        let path = format!("/v1/accounts/{account}/entries?limit=7");
        let listed = pages(&client, &path, async || {
            pay(&client, account, 2).await;
            stack.audit().await;
        })
        .await;
        let numbers: Vec<_> = listed
            .iter()
            .map(|row| row["entry_no"].as_i64().unwrap())
            .collect();
        let distinct: HashSet<_> = numbers.iter().copied().collect();
        assert_eq!(
            distinct.len(),
            numbers.len(),
            "an entry was listed twice: {numbers:?}"
        );
        assert!((1..=i64::try_from(BEFORE).unwrap()).all(|number| distinct.contains(&number)));
    });
}

/// All pages from the first to the last, with something happening between each two. What it adds
/// may make the list longer, so only so many pages are read as the first rows need.
async fn pages(client: &Client, path: &str, mut between: impl AsyncFnMut()) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut next = path.to_owned();
    for _ in 0..200 {
        let page = client.get(&next).await.expect(200).body;
        let data = page["data"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        rows.extend_from_slice(data);
        let Some(cursor) = page["next_cursor"].as_str() else {
            return rows;
        };
        next = format!("{path}&cursor={cursor}");
        if rows.len() < BEFORE {
            between().await;
        }
    }
    panic!("{path} never ends");
}

async fn pay(client: &Client, account: Uuid, payments: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for _ in 0..payments {
        ids.push(
            client
                .pay(&Payment::credit(account, 10))
                .await
                .expect(202)
                .id(),
        );
    }
    ids
}
