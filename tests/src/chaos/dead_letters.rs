//! Somebody who works through the dead letters, during the faults and behind them.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{fleet::Fleet, seed::Dice};
use crate::client::Client;

/// The pause between two looks at the list.
const PAUSE: Duration = Duration::from_millis(800);
/// How many letters a page has.
const PAGE: usize = 100;
/// How long a question is put again.
const PATIENCE: Duration = Duration::from_mins(2);

/// While faults happen: takes some letter, and mostly replays it; it may well die again. An answer that
/// does not come is no matter: what became of it the books will tell.
pub(super) async fn work(fleet: &Fleet, apis: &[Client], mut dice: Dice, stop: &CancellationToken) {
    while stop.run_until_cancelled(sleep(PAUSE)).await.is_some() {
        let api = &apis[dice.index(apis.len())];
        let Ok(page) = api
            .send(api.request(Method::GET, "/v1/dead-letters?state=DEAD&limit=20"))
            .await
        else {
            continue;
        };
        let letters = page.body["data"].as_array().cloned().unwrap_or_default();
        if letters.is_empty() {
            continue;
        }
        let letter = &letters[dice.index(letters.len())];
        let (action, reason) = match dice.below(4) {
            0 => ("discard", "chaos"),
            _ => ("replay", "chaos"),
        };
        let path = path(letter, action);
        let request = api
            .request(Method::POST, &path)
            .json(&json!({ "reason": reason }));
        if let Ok(answer) = api.send(request).await
            && !matches!(answer.status.as_u16(), 200 | 404 | 408 | 409 | 503 | 504)
        {
            fleet.wrong(format!("{path}: {} {}", answer.status, answer.body));
        }
    }
}

/// When everything can be applied: replays every second letter, each by all apis at the same time, and
/// discards the others. Answers how many of each.
pub(super) async fn clear(fleet: &Fleet, apis: &[Client]) -> Result<(usize, usize), String> {
    let letters = all_dead(&apis[0]).await?;
    let mut counts = (0, 0);
    for (number, letter) in letters.iter().enumerate() {
        // A copy of a rejection, or a letter whose transaction has ended, cannot be replayed.
        let genuine = letter["transaction_id"].is_string();
        if number % 2 == 0 && genuine {
            replay_at_once(fleet, apis, letter).await?;
            counts.0 += 1;
        } else {
            act(&apis[number % apis.len()], letter, "discard").await?;
            counts.1 += 1;
        }
    }
    Ok(counts)
}

/// Two who replay one letter at the same time: one of them does. A connection that an earlier fault has
/// broken may make an answer a 503: then they ask again.
async fn replay_at_once(fleet: &Fleet, apis: &[Client], letter: &Value) -> Result<(), String> {
    let path = path(letter, "replay");
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        let answers = apis.iter().map(|api| post(api, &path));
        seen.extend(join_all(answers).await);
        let clear = seen
            .iter()
            .filter(|status| matches!(status, 200 | 409))
            .count();
        let done = seen.iter().filter(|status| **status == 200).count();
        let known = seen
            .iter()
            .all(|status| matches!(status, 200 | 409 | 503 | 504));
        if !known || done > 1 {
            fleet.wrong(format!("{path}, at once: {seen:?}"));
            return Ok(());
        }
        if clear > 0 {
            return Ok(());
        }
        patient(deadline, &path, &seen).await?;
    }
}

/// Asks until there is an answer that says what became of it.
async fn act(api: &Client, letter: &Value, action: &str) -> Result<(), String> {
    let path = path(letter, action);
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        seen.push(post(api, &path).await);
        match seen.last() {
            Some(200) => return Ok(()),
            // It had been done by a question that was not answered.
            Some(409) if seen.len() > 1 => return Ok(()),
            Some(503 | 504) => patient(deadline, &path, &seen).await?,
            _ => return Err(format!("{path}: {seen:?}")),
        }
    }
}

/// The status of the answer; 503 for a connection that broke.
async fn post(api: &Client, path: &str) -> u16 {
    let request = api
        .request(Method::POST, path)
        .json(&json!({ "reason": "mended" }));
    match api.send(request).await {
        Ok(answer) => answer.status.as_u16(),
        Err(_broken) => 503,
    }
}

async fn patient(deadline: Instant, path: &str, seen: &[u16]) -> Result<(), String> {
    sleep(PAUSE).await;
    if Instant::now() < deadline {
        Ok(())
    } else {
        Err(format!("{path}: {seen:?}"))
    }
}

async fn all_dead(api: &Client) -> Result<Vec<Value>, String> {
    let deadline = Instant::now() + PATIENCE;
    let (mut letters, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/dead-letters?state=DEAD&limit={PAGE}{cursor}");
        match api.send(api.request(Method::GET, &path)).await {
            Ok(page) if page.status == 200 => {
                letters.extend(page.body["data"].as_array().cloned().unwrap_or_default());
                match page.body["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return Ok(letters),
                }
            }
            answer if Instant::now() > deadline => return Err(format!("{path}: {answer:?}")),
            _ => sleep(PAUSE).await,
        }
    }
}

fn path(letter: &Value, action: &str) -> String {
    let id = letter["id"].as_str().unwrap_or_default();
    format!("/v1/dead-letters/{id}/{action}")
}
