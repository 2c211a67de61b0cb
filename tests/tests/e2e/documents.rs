//! The documents name tests, faults and mutations: each of them has to exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use e2e::chaos::{POINTS, mutants, schedule};

const FAILURES: &str = include_str!("../../../docs/failures.md");
const RELIABILITY: &str = include_str!("../../../docs/reliability.md");
/// What the names of faults begin with.
const FAULT: &str = "fault: ";
/// What a row says that has no test.
const NO_TEST: &str = "no test";

#[test]
fn every_failure_is_backed_by_tests_that_exist() {
    let (tests, faults) = (tests(), faults());
    let mut rows = 0;
    for row in rows_of(FAILURES) {
        rows += 1;
        let backing = row.last().expect("a row has cells");
        let names = quoted(backing);
        assert!(
            !names.is_empty() || backing.starts_with(NO_TEST),
            "{} is backed by nothing",
            row[0]
        );
        for name in names {
            let known = match name.strip_prefix(FAULT) {
                Some(fault) => faults.contains(fault),
                None => tests.contains(name),
            };
            assert!(
                known,
                "{} is backed by {name}, which does not exist",
                row[0]
            );
        }
    }
    assert!(rows > 40, "{rows} rows were found");
}

#[test]
fn the_list_of_faults_is_the_suites() {
    let crashes = |name: &String| name.starts_with("crash at ");
    let suite: BTreeSet<_> = faults().into_iter().filter(|name| !crashes(name)).collect();
    assert_eq!(listed("## The faults"), suite);
}

#[test]
fn the_list_of_crash_points_is_the_suites() {
    let suite: BTreeSet<_> = POINTS.map(str::to_owned).into();
    assert_eq!(listed("### Crash points"), suite);
}

#[test]
fn the_list_of_mutations_is_the_suites() {
    let suite: BTreeSet<_> = mutants().map(|mutant| mutant.name().to_owned()).into();
    assert_eq!(listed("## The suite can fail"), suite);
}

#[test]
fn what_is_seen_of_failures_is_what_the_services_say() {
    let root = root().join("crates");
    let texts = sources(&root).into_iter().map(|source| text_of(&source));
    let said = texts.collect::<String>();
    let mut seen = (0, 0);
    for row in rows_of(FAILURES) {
        let shown = row[2];
        for metric in quoted(shown).into_iter().filter_map(metric) {
            assert!(
                said.contains(&format!("\"{metric}\"")),
                "no metric {metric}"
            );
            seen.0 += 1;
        }
        for line in shown.split('"').skip(1).step_by(2).filter_map(fixed_part) {
            assert!(said.contains(line), "no service says: {line}");
            seen.1 += 1;
        }
    }
    assert!(seen.0 > 30 && seen.1 > 15, "{seen:?} were found");
}

/// The metric that a text names, with or without labels.
fn metric(text: &str) -> Option<&str> {
    let name = text.split('{').next()?;
    let ends = ["_total", "_seconds", "_still", "_lag", "_depth", "_owned"];
    let is_metric = ends.iter().any(|end| name.ends_with(end));
    let ends = [
        "worker_parked_events",
        "outbox_pending_events",
        "outbox_table_bytes",
    ];
    (is_metric || ends.contains(&name)).then_some(name)
}

/// The beginning of a line, up to what differs from one time to the next, where that is enough to go by.
fn fixed_part(line: &str) -> Option<&str> {
    let end = line.find(|c: char| c == '…' || c.is_ascii_digit() || c.is_ascii_uppercase());
    let fixed = line[..end.unwrap_or(line.len())].trim_end_matches([' ', ':']);
    (fixed.len() >= 9).then_some(fixed)
}

/// The kinds of faults that schedules deal.
fn faults() -> BTreeSet<String> {
    let planned = schedule(1, 0, 200).into_iter();
    planned.map(|planned| planned.fault.to_string()).collect()
}

/// What the first cells of a section's table name.
fn listed(heading: &str) -> BTreeSet<String> {
    let (_, section) = RELIABILITY
        .split_once(&format!("\n{heading}\n"))
        .expect(heading);
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = rows_of(section);
    rows.flat_map(|row| {
        quoted(row[0])
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    })
    .collect()
}

/// The cells of each row of the tables, without heads.
fn rows_of(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_row = |line: &&str| line.starts_with("| ");
    let heads = text
        .lines()
        .zip(text.lines().skip(1))
        .filter(|(_, next)| next.starts_with("|---"))
        .map(|(head, _)| head)
        .collect::<Vec<_>>();
    text.lines()
        .filter(is_row)
        .filter(move |line| !heads.contains(line))
        .map(|line| {
            let line = line.trim_start_matches("| ").trim_end_matches(" |");
            line.split(" | ").collect()
        })
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The names of all tests of the workspace.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for folder in ["crates", "tests"] {
        for source in sources(&root().join(folder)) {
            tests.extend(tests_of(&text_of(&source)).map(str::to_owned));
        }
    }
    tests
}

fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("a workspace")
}

/// A source, with the parts of texts that go over several lines put together.
fn text_of(source: &Path) -> String {
    let text = fs::read_to_string(source).expect("a source that cannot be read");
    text.split("\\\n").map(str::trim_start).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The functions behind a test attribute, of whichever kind.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    let mut behind_attribute = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[test]")
            || line.starts_with("#[tokio::test")
            || line.starts_with("#[sqlx::test")
        {
            behind_attribute = true;
            return None;
        }
        let name = line.split_once("fn ")?.1.split('(').next()?;
        std::mem::take(&mut behind_attribute).then_some(name)
    })
}
