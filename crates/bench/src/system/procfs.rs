//! The files of /proc that tell what a process costs (proc(5)), parsed.

use std::{fs, time::Duration};

/// The unit of times in /proc/PID/stat: `USER_HZ`, which is 100 on every architecture that Linux
/// runs `PostgreSQL` on, whatever the kernel's own clock does.
const TICK: Duration = Duration::from_millis(10);

/// What /proc/PID/stat says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The process that started it.
    pub(super) parent: u32,
    /// CPU time of all its threads, in user and kernel mode.
    pub(super) own: Duration,
    /// The same of its children that have ended, and of theirs.
    pub(super) ended_children: Duration,
}

/// Reads it; nothing if there is no such process.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name of a process's program, cut to 15 bytes by the kernel.
pub(super) fn program(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// The most memory that a process ever had resident, in KiB.
pub(super) fn peak_resident_kib(pid: u32) -> Option<u64> {
    kib(
        &fs::read_to_string(format!("/proc/{pid}/status")).ok()?,
        "VmHWM:",
    )
}

/// A process's share of the memory it has resident now, in KiB: what several use counts in parts.
pub(super) fn proportional_kib(pid: u32) -> Option<u64> {
    kib(
        &fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?,
        "Pss:",
    )
}

/// The processes that one has started and that still run.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent))
        .collect()
}

/// The second field is the program's name in parentheses, which may hold anything: count from its
/// end. Behind it stand, among others, the parent (2nd), utime (12th), stime, cutime and cstime.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, behind) = text.rsplit_once(')')?;
    let fields: Vec<_> = behind.split_whitespace().collect();
    let ticks = |place: usize| -> Option<u32> { fields.get(place)?.parse().ok() };
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: TICK * (ticks(11)? + ticks(12)?),
        ended_children: TICK * (ticks(13)? + ticks(14)?),
    })
}

/// The value of a line like `VmHWM:     1234 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_strange_name_is_read() {
        let line = "4242 (a b) c) S 17 4242 4242 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 1 0 99 1 1";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat.parent, 17);
        assert_eq!(stat.own, Duration::from_secs(2));
        assert_eq!(stat.ended_children, Duration::from_millis(100));
        assert_eq!(parse_stat("4242 (short) S 17"), None);
    }

    #[test]
    fn memory_lines_are_read() {
        let text = "Name:\tapi\nVmPeak:\t 99 kB\nVmHWM:\t   22528 kB\n";
        assert_eq!(kib(text, "VmHWM:"), Some(22_528));
        assert_eq!(kib(text, "Pss:"), None);
    }

    #[test]
    fn this_process_is_found() {
        let this = std::process::id();
        let stat = stat(this).unwrap();
        assert!(children(stat.parent).contains(&this));
        assert!(peak_resident_kib(this).unwrap() > 0);
    }
}
