//! The open loop's generator, proven against a server whose latency is known.
//!
//! The server stalls for 1 s in every 5 and answers at once otherwise. A request that is due during
//! the stall waits for its end, so a fifth of all requests wait for between 0 and 1 s, evenly: 5% of
//! all wait for longer than 750 ms, at any rate that the server can otherwise hold. A closed loop
//! would not show it: each of its connections would have one slow answer in every stall, and nothing
//! else, however long it took; with 4 connections at 50 requests a second that is 8 slow answers
//! of 500, 1.6%, and a p95 of the time that an answer takes when nothing stalls.
//!
//! So what is told apart is 750 ms and next to nothing. The bounds lie far from both, and the rates are
//! low: a machine that is busy with other tests must not decide.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails by panicking, as the test does"
)]

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use bench::load::{Instructions, OpenLoop, Pace, Schedule, Tally, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use uuid::Uuid;

const CYCLE: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(1);
/// Two cycles.
const LASTS: Duration = Duration::from_secs(10);
/// Few, so that few of the answers to a closed loop would be slow ones.
const CONNECTIONS: usize = 4;
/// Between what p95 is in truth, and what a closed loop would see.
const P95_MS: RangeInclusive<f64> = 500.0..=1_100.0;
/// Four of five requests are not due in a stall.
const P50_MAX_MS: f64 = 450.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_costs_every_request_that_was_due_in_it() {
    let (slow, fast) = tokio::join!(against_stalls(50), against_stalls(200));
    for (rate, tally) in [(50, slow), (200, fast)] {
        assert_eq!(tally.acknowledged.len(), rate * 10, "at {rate}/s");
        assert_eq!((tally.refused, tally.unknown, tally.unsent), (0, 0, 0));
        let (p50, p95) = (tally.percentile_ms(50.0), tally.percentile_ms(95.0));
        assert!(P95_MS.contains(&p95), "at {rate}/s p95 is {p95} ms");
        assert!(p50 < P50_MAX_MS, "at {rate}/s p50 is {p50} ms");
    }
}

/// One connection to a server that takes 50 ms for each answer: less than 20 requests a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_sent_counts_with_the_time_it_waited() {
    let address = serve(|_| Duration::from_millis(50)).await;
    let tally = load(address, 200, Duration::from_secs(2), 1).await;
    assert!(tally.unsent > 250, "{} were not sent", tally.unsent);
    // Three of four, of which the last was due after 2 s and all were given up 3 s later.
    let p50 = tally.percentile_ms(50.0);
    assert!(p50 > 3_000.0, "p50 is {p50} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_due_is_still_sent_when_the_time_is_up() {
    let address = serve(|_| Duration::from_millis(50)).await;
    // One and a half times as much as can be answered in that second; the grace is 3 s.
    let tally = load(address, 30, Duration::from_secs(1), 1).await;
    assert_eq!(tally.acknowledged.len(), 30);
    assert_eq!((tally.refused, tally.unknown, tally.unsent), (0, 0, 0));
    assert!(
        tally.took > Duration::from_millis(1_400),
        "{:?}",
        tally.took
    );
}

async fn against_stalls(rate: u32) -> Tally {
    let address = serve(|since_start| {
        let phase = Duration::from_nanos(
            u64::try_from(since_start.as_nanos() % CYCLE.as_nanos()).unwrap_or_default(),
        );
        // In the middle of the cycle, so that the load neither begins nor ends with it.
        let begins = CYCLE / 2;
        if (begins..begins + STALL).contains(&phase) {
            (begins + STALL).saturating_sub(phase)
        } else {
            Duration::ZERO
        }
    });
    load(address.await, rate, LASTS, CONNECTIONS).await
}

async fn load(address: SocketAddr, rate: u32, lasts: Duration, connections: usize) -> Tally {
    let load = OpenLoop {
        target: Target::new(address, "key").unwrap(),
        instructions: Instructions::new(vec![Uuid::now_v7()], 1),
        connections,
        pace: Pace::Constant(Schedule::new(rate, lasts)),
        stop: Arc::default(),
    };
    load.run().await.unwrap()
}

/// Serves on a port of its own; how long an answer takes depends on the time since the start.
async fn serve(wait: impl Fn(Duration) -> Duration + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let started = Instant::now();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, started, wait));
        }
    });
    address
}

/// Answers each request as the api would.
async fn answer_all(mut stream: TcpStream, started: Instant, wait: impl Fn(Duration) -> Duration) {
    let mut received = Vec::new();
    while read_request(&mut stream, &mut received).await.is_some() {
        sleep(wait(started.elapsed())).await;
        let body = format!("{{\"id\":\"{}\"}}", Uuid::new_v4());
        let head = format!(
            "HTTP/1.1 202 Accepted\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Takes one request with its body off the stream.
async fn read_request(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<()> {
    loop {
        if let Some(length) = request_length(received) {
            received.drain(..length);
            return Some(());
        }
        if stream.read_buf(received).await.ok()? == 0 {
            return None;
        }
    }
}

fn request_length(received: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(received).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    let length: usize = length.parse().ok()?;
    (body.len() >= length).then_some(head.len() + 4 + length)
}
