use sqlx::PgPool;
use tokio::{io::AsyncWriteExt, runtime::Builder, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    harness::{PATIENCE, item},
    server::{Server, read_to_end},
};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn an_intake_that_lost_a_lane_ends_the_service(pool: PgPool) {
    // Without timers whatever waits for a time panics, as a lane does for its turn.
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    let intake = runtime.handle().clone();
    let end = CancellationToken::new();
    let thread = std::thread::spawn({
        let end = end.clone();
        move || runtime.block_on(end.cancelled())
    });
    let server = Server::with_intake_on(&intake, &pool, &[]).await;
    let mut stream = server.connect().await;
    let payment = item(&Uuid::now_v7().to_string(), "k").to_string();
    let head = server
        .head(payment.len())
        .replace("/v1/accounts", "/v1/transactions");
    stream
        .write_all(format!("{head}{payment}").as_bytes())
        .await
        .unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let served = timeout(PATIENCE, server.served).await;
    let error = served.expect("the server ends").unwrap().unwrap_err();
    assert_eq!(error.to_string(), "a lane of the intake was lost");
    end.cancel();
    thread.join().unwrap();
}
