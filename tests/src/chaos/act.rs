//! Doing the faults, and undoing them.

mod database;
mod instances;
mod lines;
mod topic;

use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use self::{
    database::{idle_transaction, locked_account, revoked_grant},
    instances::{crash, end_and_start, freeze, terminate, terminate_twice},
    lines::{DELAY, cut_answers, on_line},
    topic::{forged, rewind, second_group, storm},
};
use super::{
    fault::{Fault, Server},
    fleet::Fleet,
    schedule::Planned,
    seed::Dice,
    servers,
};
use crate::proxy::Proxy;

/// Whether a fault came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Yes,
    /// What it was to hit is under another fault, or nobody has noticed it.
    Skipped,
    /// It counts itself, later.
    Later,
}

impl Done {
    const fn if_so(happened: bool) -> Self {
        if happened { Self::Yes } else { Self::Skipped }
    }
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
                Ok(Done::Yes)
            })
            .await
        }
        Fault::Terminate(slot) => {
            end_and_start(fleet, slot, lasts, async |service| {
                terminate(service).await.map(|()| Done::Yes)
            })
            .await
        }
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
        Fault::RevokedGrant => revoked_grant(fleet, lasts, dice).await,
    }
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
