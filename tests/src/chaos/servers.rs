//! PostgreSQL and Kafka of the instance `chaos`: killed and started again.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::fault::Server;

/// The script that does it.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/local/server.sh");
/// How long a start may take, with its recovery.
const START_MAX: Duration = Duration::from_mins(3);

/// Kills all processes of a server.
///
/// # Errors
/// What the script says.
pub(super) async fn kill(server: Server) -> Result<(), String> {
    run("kill", server).await
}

/// Starts a server on the data that it left, and waits until it answers.
///
/// # Errors
/// What the script says.
pub(super) async fn start(server: Server) -> Result<(), String> {
    run("start", server).await
}

async fn run(verb: &str, server: Server) -> Result<(), String> {
    let name = match server {
        Server::Postgres => "postgres",
        Server::Kafka => "kafka",
    };
    let output = Command::new(SCRIPT)
        .args([verb, name, "chaos"])
        .stdin(Stdio::null())
        // A script that has run out of time must not go on beside the next one.
        .kill_on_drop(true)
        .output();
    let output = timeout(START_MAX, output).await;
    match output {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{verb} {name}: not within {START_MAX:?}")),
    }
}
