use super::*;

fn trial(rate: u32, holds: bool, published_rate: f64) -> Trial {
    Trial {
        rate,
        offered: 1_000,
        accepted: 1_000,
        published_rate,
        slope: if holds { 0.0 } else { 1_000.0 },
        slope_max: 100.0,
        backlog_max: 0,
        finished_after: Duration::ZERO,
        p50_ms: 1.0,
        p99_ms: 2.0,
    }
}

fn cost(rate: u32) -> Cost {
    Cost {
        what: rate.to_string(),
        transactions: 1,
        seconds: 1.0,
        cpu_us: std::collections::BTreeMap::new(),
        wal_bytes: 1.0,
    }
}

/// Adds trials that hold up to a rate, five at most; answers the rates that were tried.
fn search(from: u32, holds_up_to: u32) -> (Found, Vec<u32>) {
    let (mut found, mut next, mut tried) = (Found::default(), Some(from), Vec::new());
    while let Some(rate) = next.filter(|_| tried.len() < 5) {
        tried.push(rate);
        let trial = trial(rate, rate <= holds_up_to, f64::from(rate));
        next = found.add(trial, cost(rate));
    }
    (found, tried)
}

#[test]
fn rates_fall_faster_and_faster_until_one_holds() {
    let (found, tried) = search(10_000, 9_700);
    assert_eq!(tried, [10_000, 9_600]);
    assert_eq!(found.rate(), Some(9_600));
    let (found, tried) = search(10_000, 6_600);
    assert_eq!(tried, [10_000, 9_600, 8_832, 7_772, 6_528]);
    assert_eq!(
        found.rate(),
        Some(6_528),
        "within the trials that there are"
    );
}

#[test]
fn a_gap_that_was_stepped_over_is_halved() {
    let (found, tried) = search(10_000, 8_500);
    assert_eq!(tried, [10_000, 9_600, 8_832, 7_772, 8_302]);
    assert_eq!(found.rate(), Some(8_302));
}

#[test]
fn rates_rise_while_the_first_ones_hold() {
    let (found, tried) = search(10_000, 10_500);
    assert_eq!(tried, [10_000, 10_400, 11_232, 10_816]);
    assert_eq!(found.rate(), Some(10_400));
    assert_eq!(found.trial().unwrap().rate, 10_400);
    // What a transaction cost is told of the trial that counts.
    assert_eq!(found.cost.unwrap().what, "10400");
}

#[test]
fn a_trial_far_above_the_rate_of_results_is_followed_by_one_at_that_rate() {
    let mut found = Found::default();
    let next = found.add(trial(10_000, false, 8_000.0), cost(10_000));
    assert_eq!(next, Some(8_000));
}

#[test]
fn without_a_trial_that_held_the_report_says_below() {
    let mut found = Found::default();
    found.add(trial(9_000, false, 9_000.0), cost(9_000));
    let row = found.row("sustained", Budget::AtLeast(1.0));
    assert_eq!((&*row.measured, row.met), ("below 9000/s", Some(false)));
}
