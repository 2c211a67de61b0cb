use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{fs, process::Command};
use uuid::Uuid;

use super::Instructions;
use crate::figures::per_second;

/// What wrk runs for each request.
const SCRIPT: &str = include_str!("../../wrk/post.lua");

/// `wrk`, which asks as fast as it is answered over a number of connections.
#[derive(Clone, Debug)]
pub struct Wrk {
    /// The api's address as a URL.
    pub url: String,
    /// The API key.
    pub key: String,
    /// Where its script and its list of accounts are put.
    pub folder: PathBuf,
}

/// What wrk has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Transactions that were acknowledged.
    pub accepted: u64,
    /// Answers that were no acceptances: refusals, and those that leave the outcome open, which wrk does
    /// not tell apart.
    pub refused: u64,
    /// Connections that broke, or answers that took too long.
    pub broken: u64,
    /// How long it asked.
    pub took: Duration,
}

impl Capacity {
    /// Transactions acknowledged a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        per_second(self.accepted, self.took)
    }
}

impl Wrk {
    /// Runs it for some seconds.
    pub async fn run(
        &self,
        instructions: &Instructions,
        connections: usize,
        seconds: u64,
    ) -> anyhow::Result<Capacity> {
        let script = self.folder.join("post.lua");
        let accounts = self.folder.join("accounts.txt");
        fs::write(&script, SCRIPT).await?;
        fs::write(&accounts, account_list(instructions.accounts())).await?;
        let output = self.command(&script, &accounts, connections, seconds);
        let output = output
            .await
            .context("wrk does not start: is it installed?")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("wrk ended with {}: {text}{errors}", output.status);
        }
        parse(&text).with_context(|| format!("wrk said: {text}"))
    }

    async fn command(
        &self,
        script: &Path,
        accounts: &Path,
        connections: usize,
        seconds: u64,
    ) -> std::io::Result<std::process::Output> {
        Command::new("wrk")
            .args(["--threads", "1", "--timeout", "15s", "--connections"])
            .arg(connections.to_string())
            .args(["--duration", &format!("{seconds}s"), "--script"])
            .arg(script)
            .arg(&self.url)
            .env("BENCH_ACCOUNTS", accounts)
            .env("BENCH_API_KEY", &self.key)
            .env("BENCH_RUN", run_name())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
    }
}

fn account_list(accounts: &[Uuid]) -> String {
    let lines: Vec<_> = accounts.iter().map(Uuid::to_string).collect();
    lines.join("\n")
}

/// Twelve random digits, which no other run's keys bear.
fn run_name() -> String {
    let name = Uuid::new_v4().simple().to_string();
    name[..12].to_owned()
}

/// Reads the line that the script prints at the end.
fn parse(output: &str) -> Option<Capacity> {
    let line = output.lines().find(|line| line.starts_with("bench "))?;
    let value = |name: &str| -> Option<u64> {
        let mut words = line.split(' ');
        let word = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word?.parse().ok()
    };
    let refused = value("status")?;
    Some(Capacity {
        accepted: value("requests")?.saturating_sub(refused),
        refused,
        broken: value("broken")?,
        took: Duration::from_micros(value("duration_us")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_last_line_is_read() {
        let output = "Running 10s test\n  1 threads and 16 connections\n\
                      bench requests=100012 duration_us=10000000 status=12 broken=0\n";
        let capacity = parse(output).unwrap();
        assert_eq!((capacity.accepted, capacity.refused), (100_000, 12));
        assert!((capacity.per_second() - 10_000.0).abs() < 0.001);
        assert_eq!(parse("wrk: unable to connect"), None);
    }
}
