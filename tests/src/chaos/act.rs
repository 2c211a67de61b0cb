//! Doing the faults, and undoing them.

use std::time::Duration;

use rdkafka::error::KafkaResult;
use tokio::{
    sync::MutexGuard,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{
    fault::{Fault, Link, Server, Slot},
    fleet::{Fleet, State},
    forge::forge,
    poison::insist,
    schedule::Planned,
    seed::Dice,
    servers,
};
use crate::{
    proxy::Proxy,
    service::{Kind, Service},
};

/// How long an instance may take to end after SIGTERM: its grace period and a margin.
const END_MAX: Duration = Duration::from_secs(45);
/// How long it may take after a second SIGTERM.
const END_AT_ONCE_MAX: Duration = Duration::from_secs(5);
/// How late answers come on a slow line.
const DELAY: Duration = Duration::from_millis(200);
/// How many answers are cut.
const CUT_ANSWERS: u32 = 5;
/// How long a group without members may take to be empty: the session timeout and a margin.
const EMPTY_MAX: Duration = Duration::from_mins(2);
/// Rights that a worker cannot do without, and how they come back.
const GRANTS: [(&str, &str); 3] = [
    (
        "REVOKE UPDATE (balance_cents) ON accounts FROM postonce_worker",
        "GRANT UPDATE (balance_cents) ON accounts TO postonce_worker",
    ),
    (
        "REVOKE INSERT (entry_no) ON ledger_entries FROM postonce_worker",
        "GRANT INSERT (entry_no) ON ledger_entries TO postonce_worker",
    ),
    (
        "REVOKE SELECT ON outbox_events FROM postonce_publisher",
        "GRANT SELECT ON outbox_events TO postonce_publisher",
    ),
];

/// Whether a fault came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Yes,
    /// What it was to hit is under another fault.
    Skipped,
    /// It counts itself, later.
    Later,
}

/// Lets a fault happen, and ends it.
pub(super) async fn perform(fleet: &Fleet, planned: Planned, dice: Dice, hot_account: Uuid) {
    let name = planned.fault.to_string();
    let lasts = Duration::from_millis(planned.lasts_ms);
    fleet.tell(&format!("{name}, for {lasts:?}"));
    match act(fleet, planned.fault, lasts, dice, hot_account).await {
        Ok(Done::Yes) => fleet.count(&name, true),
        Ok(Done::Skipped) => {
            fleet.tell(&format!("{name}: not now"));
            fleet.count(&name, false);
        }
        Ok(Done::Later) => {}
        Err(wrong) => fleet.wrong(format!("{name}: {wrong}")),
    }
    fleet.tell(&format!("{name}: over"));
}

async fn act(
    fleet: &Fleet,
    fault: Fault,
    lasts: Duration,
    mut dice: Dice,
    hot_account: Uuid,
) -> Result<Done, String> {
    match fault {
        Fault::Kill(slot) => {
            end_and_start(fleet, slot, lasts, async |service| {
                service.kill().await;
                Ok(())
            })
            .await
        }
        Fault::Terminate(slot) => end_and_start(fleet, slot, lasts, terminate).await,
        Fault::TerminateTwice(slot) => end_and_start(fleet, slot, lasts, terminate_twice).await,
        Fault::Freeze(slot) => freeze(fleet, slot, lasts).await,
        Fault::KillServer(server) => kill_server(fleet, server, lasts).await,
        Fault::Cut(link) => on_line(fleet, link, lasts, Proxy::cut).await,
        Fault::Swallow(link) => on_line(fleet, link, lasts, Proxy::swallow).await,
        Fault::Delay(link) => on_line(fleet, link, lasts, |proxy| proxy.delay(DELAY)).await,
        Fault::Trickle(link) => on_line(fleet, link, lasts, Proxy::trickle).await,
        Fault::CutAnswers(link) => cut_answers(fleet, link, lasts).await,
        Fault::Crash(point, number) => {
            let pass = dice.between(1, 6);
            crash(fleet, (point, pass), number, lasts).await
        }
        Fault::RebalanceStorm => storm(fleet, lasts).await,
        Fault::IdleTransaction => idle_transaction(fleet, lasts).await,
        Fault::LockedAccount => locked_account(fleet, hot_account, lasts).await,
        Fault::Rewind => rewind(fleet, lasts).await,
        Fault::SecondGroup => second_group(fleet, lasts).await,
        Fault::Forged => forged(fleet, dice).await,
        Fault::RevokedGrant => revoked_grant(fleet, lasts, dice.index(GRANTS.len())).await,
    }
}

/// The instance at a place, and the right to do something to it.
async fn take(fleet: &Fleet, slot: Slot) -> Option<(MutexGuard<'_, State>, Service)> {
    let state = fleet.post(slot).turn().await?;
    let service = state.working().await?.clone();
    Some((state, service))
}

async fn end_and_start(
    fleet: &Fleet,
    slot: Slot,
    lasts: Duration,
    end: impl AsyncFnOnce(&Service) -> Result<(), String>,
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
    if crashed {
        Ok(Done::Skipped)
    } else {
        ended.map(|()| Done::Yes)
    }
}

/// As an operator ends it: it has to exit with 0, in time.
async fn terminate(service: &Service) -> Result<(), String> {
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

/// As an operator ends it who has no time.
async fn terminate_twice(service: &Service) -> Result<(), String> {
    service.signal("TERM").await;
    sleep(Duration::from_millis(20)).await;
    if service.runs().await {
        service.try_signal("TERM").await;
    }
    match timeout(END_AT_ONCE_MAX, service.ended()).await {
        // It may have been done before the second signal came.
        Ok(status) if matches!(status.code(), Some(0 | 143)) => Ok(()),
        Ok(status) => Err(format!("{} ended with {status}", service.label())),
        Err(_) => {
            service.kill().await;
            Err(format!("{} does not end at once", service.label()))
        }
    }
}

async fn freeze(fleet: &Fleet, slot: Slot, lasts: Duration) -> Result<Done, String> {
    let Some((_state, service)) = take(fleet, slot).await else {
        return Ok(Done::Skipped);
    };
    service.signal("STOP").await;
    sleep(lasts).await;
    service.signal("CONT").await;
    Ok(Done::Yes)
}

async fn kill_server(fleet: &Fleet, server: Server, lasts: Duration) -> Result<Done, String> {
    let Some(_turn) = fleet.server_turn(server) else {
        return Ok(Done::Skipped);
    };
    servers::kill(server).await?;
    sleep(lasts).await;
    servers::start(server).await?;
    Ok(Done::Yes)
}

async fn on_line(
    fleet: &Fleet,
    link: Link,
    lasts: Duration,
    spoil: impl FnOnce(&Proxy),
) -> Result<Done, String> {
    let connections = fleet.line(link);
    let Some(_turn) = connections.turn().await else {
        return Ok(Done::Skipped);
    };
    spoil(&connections.proxy);
    sleep(lasts).await;
    connections.proxy.restore();
    Ok(Done::Yes)
}

/// It happened only if an answer came that could be cut.
async fn cut_answers(fleet: &Fleet, link: Link, lasts: Duration) -> Result<Done, String> {
    let connections = fleet.line(link);
    let Some(_turn) = connections.turn().await else {
        return Ok(Done::Skipped);
    };
    connections.proxy.cut_answers(CUT_ANSWERS);
    sleep(lasts).await;
    let left = connections.proxy.answers_to_cut();
    connections.proxy.restore();
    Ok(if left < CUT_ANSWERS {
        Done::Yes
    } else {
        Done::Skipped
    })
}

/// Starts an instance that crashes at a step; if it does not come there while this lasts, it still may
/// later.
async fn crash(
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

/// A worker joins and leaves every second, by turns in an orderly way and not.
async fn storm(fleet: &Fleet, lasts: Duration) -> Result<Done, String> {
    let deadline = Instant::now() + lasts;
    let mut orderly = false;
    while Instant::now() < deadline {
        let service = fleet.stack.spawn(Kind::Worker, &[]);
        sleep(Duration::from_secs(1)).await;
        orderly = !orderly;
        if orderly {
            terminate(&service).await?;
        } else {
            service.kill().await;
        }
    }
    Ok(Done::Yes)
}

/// A session that has read something and says no more: vacuum can remove nothing behind its snapshot.
async fn idle_transaction(fleet: &Fleet, lasts: Duration) -> Result<Done, String> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM accounts";
    let Ok(mut session) = fleet.stack.database.session().await else {
        return Ok(Done::Skipped);
    };
    if sqlx::raw_sql(begin).execute(&mut session).await.is_err() {
        return Ok(Done::Skipped);
    }
    sleep(lasts).await;
    // The server may have been killed meanwhile, and the transaction with it.
    let still_there = sqlx::raw_sql("SELECT 1").execute(&mut session).await;
    Ok(if still_there.is_ok() {
        Done::Yes
    } else {
        Done::Skipped
    })
}

async fn locked_account(fleet: &Fleet, account: Uuid, lasts: Duration) -> Result<Done, String> {
    let Ok(mut lock) = fleet.stack.database.superuser().begin().await else {
        return Ok(Done::Skipped);
    };
    let locked = sqlx::query("SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE")
        .bind(account)
        .execute(&mut *lock)
        .await;
    if locked.is_err() {
        return Ok(Done::Skipped);
    }
    sleep(lasts).await;
    Ok(if lock.rollback().await.is_ok() {
        Done::Yes
    } else {
        Done::Skipped
    })
}

/// Everything is delivered again, to workers that know nothing of it.
async fn rewind(fleet: &Fleet, lasts: Duration) -> Result<Done, String> {
    let slots = [0, 1].map(|number| Slot {
        kind: Kind::Worker,
        number,
    });
    let (Some((mut first, one)), Some((mut second, two))) =
        (take(fleet, slots[0]).await, take(fleet, slots[1]).await)
    else {
        return Ok(Done::Skipped);
    };
    one.kill().await;
    two.kill().await;
    fleet.called_off(&mut first, &one).await;
    fleet.called_off(&mut second, &two).await;
    sleep(lasts).await;
    let (stack, partitions) = (&fleet.stack, fleet.partitions);
    let rewound = retried(EMPTY_MAX, || {
        let (kafka, group) = (stack.kafka.clone(), stack.group.clone());
        let topic = stack.transactions_topic.clone();
        move || {
            (0..partitions)
                .try_for_each(|partition| kafka.try_seek_group(&group, &topic, partition, 0))
        }
    })
    .await;
    for (slot, state) in slots.into_iter().zip([&mut first, &mut second]) {
        fleet.post(slot).launch(stack, state, None).await;
    }
    rewound.map(|()| Done::Yes)
}

/// Something with the broker that blocks, until it succeeds.
async fn retried<F: FnOnce() -> KafkaResult<()> + Send + 'static>(
    most: Duration,
    make: impl Fn() -> F,
) -> Result<(), String> {
    let deadline = Instant::now() + most;
    loop {
        match spawn_blocking(make())
            .await
            .map_err(|error| error.to_string())?
        {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.to_string()),
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}

/// A worker of another group: for it everything is new.
async fn second_group(fleet: &Fleet, lasts: Duration) -> Result<Done, String> {
    let group = format!("{}.second", fleet.stack.group);
    let service = fleet
        .stack
        .spawn(Kind::Worker, &[("CONSUMER_GROUP", &group)]);
    sleep(lasts).await;
    if !service.runs().await {
        return Err(format!("{} ended by itself", service.label()));
    }
    terminate(&service).await.map(|()| Done::Yes)
}

async fn forged(fleet: &Fleet, mut dice: Dice) -> Result<Done, String> {
    let book = fleet.stack.book.entries();
    let acknowledged: Vec<_> = book
        .iter()
        .filter(|sent| sent.acknowledged.is_some())
        .collect();
    if acknowledged.is_empty() {
        return Ok(Done::Skipped);
    }
    for _ in 0..5 {
        let victim = acknowledged[dice.index(acknowledged.len())];
        let record = forge(victim, fleet.partitions, &mut dice);
        let (kafka, topic) = (
            fleet.stack.kafka.clone(),
            fleet.stack.transactions_topic.clone(),
        );
        let appended = spawn_blocking(move || kafka.try_append(&topic, &record)).await;
        if !matches!(appended, Ok(Ok(()))) {
            return Ok(Done::Skipped);
        }
    }
    Ok(Done::Yes)
}

async fn revoked_grant(fleet: &Fleet, lasts: Duration, which: usize) -> Result<Done, String> {
    let Some(_turn) = fleet.grants_turn() else {
        return Ok(Done::Skipped);
    };
    let (revoke, grant) = GRANTS[which];
    insist(fleet.stack.database.superuser(), revoke).await;
    sleep(lasts).await;
    insist(fleet.stack.database.superuser(), grant).await;
    Ok(Done::Yes)
}
