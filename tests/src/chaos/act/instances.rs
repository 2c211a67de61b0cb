//! What happens to instances.

use std::time::Duration;

use tokio::{
    sync::MutexGuard,
    time::{Instant, sleep, timeout},
};

use super::Done;
use crate::{
    chaos::{
        fault::Slot,
        fleet::{Fleet, State},
    },
    service::{Kind, Service},
};

/// How long an instance may take to end after SIGTERM: its grace period and a margin.
const END_MAX: Duration = Duration::from_secs(45);
/// How long it may take to say that it heard a SIGTERM, and to end at once after a second one: moments, but
/// a busy machine may take its time over them.
const END_AT_ONCE_MAX: Duration = Duration::from_secs(30);
/// What a process ends with that a second SIGTERM ended.
const ENDED_AT_ONCE: i32 = 128 + 15;

/// The instance at a place, and the right to do something to it.
pub(super) async fn take(fleet: &Fleet, slot: Slot) -> Option<(MutexGuard<'_, State>, Service)> {
    let state = fleet.post(slot).turn().await?;
    let service = state.working().await?.clone();
    Some((state, service))
}

pub(super) async fn end_and_start(
    fleet: &Fleet,
    slot: Slot,
    lasts: Duration,
    end: impl AsyncFnOnce(&Service) -> Result<Done, String>,
) -> Result<Done, String> {
    let Some((mut state, service)) = take(fleet, slot).await else {
        return Ok(Done::Skipped);
    };
    let ended = end(&service).await;
    let crashed = fleet.called_off(&mut state, &service).await;
    sleep(lasts).await;
    fleet
        .post(slot)
        .launch(&fleet.stack, &mut state, None)
        .await;
    // Whoever crashed at its step while it was to end did not end as it should have.
    if crashed { Ok(Done::Skipped) } else { ended }
}

/// As an operator ends it: it has to exit with 0, in time.
pub(super) async fn terminate(service: &Service) -> Result<(), String> {
    service.signal("TERM").await;
    match timeout(END_MAX, service.ended()).await {
        Ok(status) if status.code() == Some(0) => Ok(()),
        Ok(status) => Err(format!("{} ended with {status}", service.label())),
        Err(_) => {
            service.kill().await;
            Err(format!(
                "{} did not end within {END_MAX:?}",
                service.label()
            ))
        }
    }
}

/// As an operator ends it who has no time. It happened only if the second signal found work to break off.
pub(super) async fn terminate_twice(service: &Service) -> Result<Done, String> {
    service.signal("TERM").await;
    // Two signals that come together may be one.
    let heard = async {
        while service.runs().await && !service.says("shutting down: no new work is taken") {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(END_AT_ONCE_MAX, heard).await.is_err() {
        service.kill().await;
        return Err(format!("{} does not hear a signal", service.label()));
    }
    if service.runs().await {
        service.try_signal("TERM").await;
    }
    match timeout(END_AT_ONCE_MAX, service.ended()).await {
        Ok(status) if status.code() == Some(ENDED_AT_ONCE) => Ok(Done::Yes),
        // It was done before the second signal came.
        Ok(status) if status.code() == Some(0) => Ok(Done::Skipped),
        Ok(status) => Err(format!("{} ended with {status}", service.label())),
        Err(_) => {
            service.kill().await;
            Err(format!("{} does not end at once", service.label()))
        }
    }
}

pub(super) async fn freeze(fleet: &Fleet, slot: Slot, lasts: Duration) -> Result<Done, String> {
    let Some((_state, service)) = take(fleet, slot).await else {
        return Ok(Done::Skipped);
    };
    service.signal("STOP").await;
    sleep(lasts).await;
    service.signal("CONT").await;
    Ok(Done::Yes)
}

/// Starts an instance that crashes at a step; if it does not come there while this lasts, it still may
/// later.
pub(super) async fn crash(
    fleet: &Fleet,
    point: (&'static str, u64),
    number: usize,
    lasts: Duration,
) -> Result<Done, String> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| point.0.starts_with(kind.name()));
    let kind = kind.expect("a point's name begins with its service's");
    let slot = Slot { kind, number };
    let Some((mut state, service)) = take(fleet, slot).await else {
        return Ok(Done::Skipped);
    };
    service.kill().await;
    fleet.called_off(&mut state, &service).await;
    let post = fleet.post(slot);
    post.launch(&fleet.stack, &mut state, Some(point)).await;
    let deadline = Instant::now() + lasts;
    while Instant::now() < deadline {
        if state.working().await.is_none() {
            fleet.bury(&mut state).await;
            post.launch(&fleet.stack, &mut state, None).await;
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(Done::Later)
}
