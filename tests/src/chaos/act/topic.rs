//! What happens to the consumer group and to the topic.

use std::time::Duration;

use rdkafka::error::KafkaResult;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{
    Done,
    instances::{take, terminate},
};
use crate::{
    chaos::{fault::Slot, fleet::Fleet, forge::forge, seed::Dice},
    service::{Kind, Service},
};

/// What a worker says when its admin server answers, and when the group has given it partitions.
const LISTENING: &str = "\"listening\"";
const JOINED: &str = "partitions assigned";
/// How long a group without members may take to be empty: the session timeout and a margin.
const EMPTY_MAX: Duration = Duration::from_mins(2);

/// How long a worker may take until it listens, and until it has partitions.
const LISTEN_MAX: Duration = Duration::from_mins(1);
const JOIN_MAX: Duration = Duration::from_secs(10);
/// How long it stays at least.
const STAY: Duration = Duration::from_secs(1);

/// Workers join and leave, about one every second, by turns in an orderly way once they have partitions,
/// and by a kill, wherever they are. It happened only if one of them had some: then others had lost them.
pub(super) async fn storm(fleet: &Fleet, lasts: Duration) -> Result<Done, String> {
    let deadline = Instant::now() + lasts;
    let (mut orderly, mut joined) = (false, false);
    while Instant::now() < deadline {
        let service = fleet.extra_worker(&[]);
        // Who is told to stop before it listens may not hear it yet.
        let listens = says_in_time(&service, LISTENING, LISTEN_MAX).await;
        orderly = !orderly && listens;
        sleep(STAY).await;
        if orderly {
            joined |= says_in_time(&service, JOINED, JOIN_MAX).await;
            terminate(&service).await?;
        } else {
            service.kill().await;
        }
    }
    Ok(Done::if_so(joined))
}

/// Whether a service says something within a time.
async fn says_in_time(service: &Service, message: &str, most: Duration) -> bool {
    let said = async {
        while service.runs().await && !service.says(message) {
            sleep(Duration::from_millis(25)).await;
        }
    };
    timeout(most, said).await.is_ok() && service.says(message)
}

/// Everything is delivered again, to workers that know nothing of it.
pub(super) async fn rewind(fleet: &Fleet, lasts: Duration) -> Result<Done, String> {
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
pub(super) async fn retried<F: FnOnce() -> KafkaResult<()> + Send + 'static>(
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

/// A worker of another group: for it everything is new. It happened only if it has worked something off.
pub(super) async fn second_group(fleet: &Fleet, lasts: Duration) -> Result<Done, String> {
    let group = format!("{}.second", fleet.stack.group);
    let service = fleet.extra_worker(&[("CONSUMER_GROUP", &group)]);
    says_in_time(&service, LISTENING, LISTEN_MAX).await;
    sleep(lasts).await;
    if !service.runs().await {
        return Err(format!("{} ended by itself", service.label()));
    }
    terminate(&service).await?;
    let (kafka, topic) = (
        fleet.stack.kafka.clone(),
        fleet.stack.transactions_topic.clone(),
    );
    let worked = spawn_blocking(move || kafka.has_committed(&group, &topic)).await;
    Ok(Done::if_so(matches!(worked, Ok(Ok(true)))))
}

pub(super) async fn forged(fleet: &Fleet, mut dice: Dice) -> Result<Done, String> {
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
