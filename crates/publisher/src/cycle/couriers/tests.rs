use std::collections::BTreeMap;

use chrono::DateTime;
use common::{admin::Readiness, types::Lane};
use uuid::Uuid;

use super::*;
use crate::{
    cycle::flights::{Kind, SentRow},
    health::Health,
};

const LIMIT: i32 = 1_000_000;

fn couriers(readiness: &Readiness) -> Couriers {
    let broker = Health::new(readiness.component("broker")).quiet_side();
    let signals = Signals {
        wake: std::sync::Arc::default(),
        recheck: std::sync::Arc::default(),
    };
    // Nobody listens there.
    Couriers::new("127.0.0.1:1".to_owned(), 8, signals, broker)
}

#[test]
fn a_broker_that_takes_nothing_is_not_ready_until_it_does() {
    let readiness = Readiness::default();
    let couriers = couriers(&readiness);
    let mut flights = Flights::new();
    let now = Instant::now();
    let row = SentRow {
        seq: 1,
        account_id: Uuid::nil(),
        created_at: DateTime::UNIX_EPOCH,
        topic: 0,
        kind: Kind::Event,
    };
    let lane = Lane::from_number(1).unwrap();
    let slot = flights.add(lane, Route::Main, row, now);
    couriers.tell(&flights, now);
    assert_eq!(readiness.reasons(), BTreeMap::new());
    couriers.tell(&flights, now + ANSWER_AGE_MAX);
    assert!(readiness.reasons()["broker"].contains("no answer for more than 10 s"));
    flights.land(slot);
    couriers.tell(&flights, now + ANSWER_AGE_MAX);
    assert_eq!(readiness.reasons(), BTreeMap::new());
}

#[tokio::test]
async fn a_complaint_ends_with_a_delivery_or_when_a_new_producer_is_not_refused() {
    let readiness = Readiness::default();
    let mut couriers = couriers(&readiness);
    let complain = |couriers: &mut Couriers| couriers.complaint = Some("refused".to_owned());
    complain(&mut couriers);
    couriers.delivered(Route::Main, 0, 0);
    assert_eq!(couriers.complaint, None);

    complain(&mut couriers);
    let later = Some(Instant::now() + PROBATION * 10);
    couriers.nothing_waits(later);
    assert!(couriers.complaint.is_some(), "there is no producer yet");
    couriers.open(Route::Main, LIMIT).unwrap();
    couriers.nothing_waits(None);
    couriers.nothing_waits(Some(couriers.main.opened_at));
    assert!(couriers.complaint.is_some(), "it may be refused yet");
    couriers.nothing_waits(later);
    assert_eq!(couriers.complaint, None);
}
