//! The forms of values that several services' settings have.

use std::time::Duration;

/// The longest name of a topic, in bytes (Kafka's own limit).
const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Longer than this is a slip of the finger.
const DURATION_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// Reads `host:port`, or several with commas between them.
///
/// # Errors
/// What it must be.
pub fn broker_list(list: &str) -> Result<String, String> {
    let is_address = |address: &str| {
        let parts = address.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if list.split(',').all(|address| is_address(address.trim())) {
        Ok(list.to_owned())
    } else {
        Err("must be host:port, or several with commas between them".to_owned())
    }
}

/// Reads a name that Kafka allows for a topic: it would refuse any other only later, when asked.
///
/// # Errors
/// What it must be.
pub fn topic_name(name: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let length_fits = (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len());
    if length_fits && name.bytes().all(legal) && !matches!(name, "." | "..") {
        Ok(name.to_owned())
    } else {
        Err("must be 1 to 249 letters, digits, dots, underscores and hyphens".to_owned())
    }
}

/// Reads `90s`, `10m`, `24h`, `7d`, `500ms` or `0`.
///
/// # Errors
/// What it must be.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` must be a number with ms, s, m, h or d, or 0");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 0,
        _ => return Err(refused()),
    };
    let duration = number.checked_mul(unit_ms).map(Duration::from_millis);
    duration
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| format!("`{text}` is longer than a hundred years"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        let table = [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("90s", 90_000),
            ("10m", 600_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
        ];
        for (text, milliseconds) in table {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for refused in [
            "",
            "10",
            "-1s",
            "1.5h",
            "m",
            "1 h",
            "99999999999999999d",
            "40000d",
        ] {
            assert!(duration(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn brokers_are_addresses_with_ports() {
        for accepted in ["localhost:9092", "a:1,b:2", "a:1, b:2", "[::1]:9092"] {
            assert!(broker_list(accepted).is_ok(), "{accepted:?}");
        }
        for refused in ["", "localhost", "a:1,", ":9092", "a:99999", "a:port"] {
            assert!(broker_list(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn topics_have_names_that_kafka_allows() {
        let longest = "x".repeat(249);
        for accepted in ["transactions", "transactions.results", "a_b-C.1", &longest] {
            assert!(topic_name(accepted).is_ok(), "{accepted:?}");
        }
        let too_long = "x".repeat(250);
        for refused in ["", ".", "..", "a b", "a/b", "ü", &too_long] {
            assert!(topic_name(refused).is_err(), "{refused:?}");
        }
    }
}
