//! What happens to connections.

use std::time::Duration;

use tokio::time::sleep;

use super::Done;
use crate::{
    chaos::{fault::Link, fleet::Fleet},
    proxy::Proxy,
};

/// How late answers come on a slow line.
pub(super) const DELAY: Duration = Duration::from_millis(200);
/// How many answers are cut.
const CUT_ANSWERS: u32 = 5;

/// It happened only if a connection was there to notice it.
pub(super) async fn on_line(
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
    let touched = connections.proxy.touched();
    connections.proxy.restore();
    Ok(Done::if_so(touched > 0))
}

/// It happened only if an answer came that could be cut.
pub(super) async fn cut_answers(
    fleet: &Fleet,
    link: Link,
    lasts: Duration,
) -> Result<Done, String> {
    let connections = fleet.line(link);
    let Some(_turn) = connections.turn().await else {
        return Ok(Done::Skipped);
    };
    connections.proxy.cut_answers(CUT_ANSWERS);
    sleep(lasts).await;
    let left = connections.proxy.answers_to_cut();
    connections.proxy.restore();
    Ok(Done::if_so(left < CUT_ANSWERS))
}
