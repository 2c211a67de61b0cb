use super::*;

fn machine() -> Machine {
    Machine {
        cores: 2,
        cpu: "a processor".to_owned(),
        memory_gib: 23,
        kernel: "6.1".to_owned(),
        postgresql: "15.1".to_owned(),
        kafka: "4.2.0".to_owned(),
        commit: "abc".to_owned(),
    }
}

fn report() -> Report {
    let cost = Cost {
        what: "accepted".to_owned(),
        transactions: 200_000,
        seconds: 10.0,
        cpu_us: BTreeMap::from([(Part::Postgresql, 40.25), (Part::Api, 10.0)]),
        wal_bytes: 1_200.0,
    };
    let section = Section {
        name: "intake".to_owned(),
        fdatasync_ms: 0.125,
        rows: vec![
            Row::new("accepted", 21_000.0, "/s", Budget::AtLeast(20_000.0)),
            Row::new("p99", 50.5, " ms", Budget::AtMost(50.0)),
            Row::new("p50", 4.0, " ms", Budget::None).with("(of 300)"),
        ],
        costs: vec![cost],
        memory_kib: BTreeMap::from([(Part::Api, 22_528)]),
        ..Section::default()
    };
    Report {
        title: "Benchmark".to_owned(),
        machine: machine(),
        sections: vec![section],
    }
}

#[test]
fn budgets_say_yes_no_or_nothing() {
    let text = report().markdown();
    for line in [
        "| accepted | >= 20,000/s | 21,000/s | yes |",
        "| p99 | <= 50 ms | 50.5 ms | **no** |",
        "| p50 |  | 4 ms (of 300) |  |",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn fdatasync_stands_beside_every_table() {
    let text = report().markdown();
    let tables = text.matches("\n## ").count();
    // Once more in the line about the machine.
    assert_eq!(text.matches("0.125 to 0.125 ms").count(), tables + 1);
}

#[test]
fn a_cost_has_a_column_for_each_part_and_their_sum() {
    let line = "| accepted | 40.2 |  | 10.0 |  |  |  | 50.2 | 1,200 | 200,000 | 10.0 |";
    let text = report().markdown();
    assert!(text.contains(line), "{text}");
    assert!(text.contains("| intake | 22 |"), "{text}");
}

#[test]
fn a_wrong_ledger_is_named() {
    let mut report = report();
    assert!(report.wrongs().is_empty());
    let wrong = "1 entries out of their chain".to_owned();
    report.sections[0].ledger.wrongs.push(wrong);
    assert_eq!(report.wrongs(), ["intake: 1 entries out of their chain"]);
    assert!(report.markdown().contains("**WRONG**"));
}

#[test]
fn numbers_are_written_for_people() {
    for (value, text) in [
        (0.0, "0"),
        (0.126, "0.13"),
        (12.5, "12.5"),
        (100.4, "100"),
        (12_345.6, "12,346"),
        (1_000_000.0, "1,000,000"),
    ] {
        assert_eq!(number(value), text);
    }
}
