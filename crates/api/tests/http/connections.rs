use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    harness::{PATIENCE, eventually},
    server::{Server, read_to_end},
};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_body_that_does_not_arrive_is_a_request_timeout(pool: PgPool) {
    let server = Server::start(&pool, &["--http-body-read-timeout-ms=200"]).await;
    let mut stream = server.connect().await;
    stream.write_all(server.head(18).as_bytes()).await.unwrap();
    stream.write_all(b"{\"curr").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    server.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_connection_that_brings_no_whole_request_is_closed(pool: PgPool) {
    let server = Server::start(&pool, &["--http-header-read-timeout-ms=300"]).await;
    // Nothing at all, the first letters of either version, and headers that do not end.
    for begun in [
        "",
        "P",
        "PRI * HT",
        "GET /health HTTP/1.1\r\nHost: test\r\nX-Slow: ",
    ] {
        let began = Instant::now();
        let mut stream = server.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, "", "after {begun:?}");
        assert!(
            began.elapsed() >= Duration::from_millis(200),
            "after {begun:?}"
        );
    }
    server.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn headers_past_the_limit_are_answered_on_the_wire_too(pool: PgPool) {
    let server = Server::start(&pool, &[]).await;
    let mut stream = server.connect().await;
    let large = "x".repeat(20_000);
    let request = format!(
        "GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\nX-Large: {large}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(
        answer.contains("\"code\":\"headers_too_large\""),
        "{answer}"
    );
    server.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_connection_is_kept_for_the_next_request(pool: PgPool) {
    let server = Server::start(&pool, &[]).await;
    let mut stream = server.connect().await;
    let request = "GET /health HTTP/1.1\r\nHost: test\r\n\r\n";
    let last = "GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    stream
        .write_all(format!("{request}{request}{last}").as_bytes())
        .await
        .unwrap();
    let answers = read_to_end(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    server.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn http_2_is_spoken_with_who_begins_it(pool: PgPool) {
    let server = Server::start(&pool, &[]).await;
    let mut stream = server.connect().await;
    // The preface and an empty SETTINGS frame (RFC 9113, section 3.4).
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    let mut frame = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut frame))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frame[3], 4, "the first frame of a server is SETTINGS");
    drop(stream);
    server.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn more_connections_than_the_limit_wait_for_their_turn(pool: PgPool) {
    let server = Server::start(&pool, &["--http-connections-max=1"]).await;
    let mut first = server.connect().await;
    first.write_all(server.head(18).as_bytes()).await.unwrap();
    let mut second = server.connect().await;
    second
        .write_all(b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_millis(200), second.peek(&mut byte)).await;
    assert!(early.is_err(), "the second was answered beside the first");
    drop(first);
    assert!(
        read_to_end(&mut second)
            .await
            .starts_with("HTTP/1.1 200 OK")
    );
    server.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn shutting_down_finishes_requests_and_takes_no_more(pool: PgPool) {
    let server = Server::start(&pool, &[]).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    let mut busy = server.connect().await;
    let body = br#"{"currency":"EUR"}"#;
    let head = server
        .head(body.len())
        .replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    busy.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body once a handler waits for it.
    let mut asks = [0; 25];
    timeout(PATIENCE, busy.read_exact(&mut asks))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&asks, b"HTTP/1.1 100 Continue\r\n\r\n");
    let mut first_byte = [0];
    timeout(PATIENCE, idle.peek(&mut first_byte))
        .await
        .unwrap()
        .unwrap();
    server.stop.cancel();
    eventually("no new connection is taken", async || {
        TcpStream::connect(server.address).await.is_err()
    })
    .await;
    assert!(read_to_end(&mut idle).await.starts_with("HTTP/1.1 200 OK"));
    busy.write_all(body).await.unwrap();
    let answer = read_to_end(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    server.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_client_that_reads_nothing_makes_room_for_others(pool: PgPool) {
    let flags = [
        "--http-connections-max=1",
        "--http-header-read-timeout-ms=500",
    ];
    let server = Server::start(&pool, &flags).await;
    let mut deaf = server.connect().await;
    // More than the sockets' buffers hold, so that the server cannot be rid of it.
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: test\r\n\r\n";
    deaf.write_all(request.repeat(20).as_bytes()).await.unwrap();
    let mut other = server.connect().await;
    other
        .write_all(b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let answer = read_to_end(&mut other).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(deaf);
    server.end().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn bodies_that_add_up_to_too_much_are_refused_and_nothing_is_lost(pool: PgPool) {
    let flags = [
        "--http-body-bytes-max=67108864",
        "--http-body-read-timeout-ms=60000",
    ];
    let server = Server::start(&pool, &flags).await;
    let mut slow = server.connect().await;
    let head = server.head(67_108_864);
    slow.write_all(head.as_bytes()).await.unwrap();
    let small = format!("{}{{\"currency\":\"EUR\"}}", server.head(18));
    eventually("a second body is refused", async || {
        let mut other = server.connect().await;
        other.write_all(small.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        other.read_exact(&mut answer).await.unwrap();
        answer == *b"HTTP/1.1 503"
    })
    .await;
    drop(slow);
    eventually("there is room again", async || {
        let mut other = server.connect().await;
        other.write_all(small.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        other.read_exact(&mut answer).await.unwrap();
        answer == *b"HTTP/1.1 201"
    })
    .await;
    server.end().await;
}
