use std::{env, fs, process::Command, thread};

use serde::Serialize;
use sqlx::PgPool;

/// Where the figures were measured: they mean nothing without it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processor cores that may be used.
    pub cores: usize,
    /// The processor.
    pub cpu: String,
    /// Memory in GiB, rounded down.
    pub memory_gib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The server's version.
    pub postgresql: String,
    /// The broker's version, where it is known.
    pub kafka: String,
    /// The commit that was measured; with `+` if files differ from it.
    pub commit: String,
}

impl Machine {
    /// Looks at this one.
    pub async fn look(database: &PgPool) -> anyhow::Result<Self> {
        let postgresql = sqlx::query_scalar("SHOW server_version").fetch_one(database);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            cpu: line_of("/proc/cpuinfo", "model name"),
            memory_gib: memory_gib(&line_of("/proc/meminfo", "MemTotal")),
            kernel: kernel.trim().to_owned(),
            postgresql: postgresql.await?,
            kafka: env::var("KAFKA_VERSION").unwrap_or_else(|_| "unknown".to_owned()),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
        })
    }
}

/// What stands behind `name:` in a file of such lines.
fn line_of(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

fn memory_gib(total: &str) -> u64 {
    let kib = total.split_whitespace().next();
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default()
        / (1 << 20)
}

fn commit() -> Option<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        commit
    } else {
        format!("{commit}+")
    })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_a_line_in_kib() {
        assert_eq!(memory_gib("24623456 kB"), 23);
        assert_eq!(memory_gib("unknown"), 0);
    }
}
