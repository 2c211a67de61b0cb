//! Settings come from flags and environment variables; a bad one is one clear line and exit code 2.

mod values;

use std::process::exit;

use clap::{
    CommandFactory, FromArgMatches, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
pub use values::{broker_list, duration, topic_name};

/// The exit code for a setting that cannot be used, as command line tools have it.
const EXIT_USAGE: i32 = 2;

/// Reads the process's settings, or ends it: with the help on standard output and code 0, or with
/// one line that names the variable on standard error and code 2. No port is bound before.
#[must_use]
pub fn parse_or_exit<T: Parser>() -> T {
    T::try_parse().unwrap_or_else(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => refuse(&one_line::<T>(&error)),
    })
}

/// Ends the process because settings that are right one by one do not go together.
pub fn refuse(message: &str) -> ! {
    eprintln!("{message}");
    exit(EXIT_USAGE)
}

/// Parses given arguments as the process's would be; for tests of a service's settings.
pub fn parse_from<T: CommandFactory + FromArgMatches>(arguments: &[&str]) -> Result<T, String> {
    T::command()
        .try_get_matches_from(arguments)
        .and_then(|matches| T::from_arg_matches(&matches))
        .map_err(|error| one_line::<T>(&error))
}

/// clap's message over several lines, made one: `VARIABLE (--flag): what is wrong`.
fn one_line<T: CommandFactory>(error: &clap::Error) -> String {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => return first_line(error),
    };
    let flag = argument.split_whitespace().next().unwrap_or(argument);
    let reason = std::error::Error::source(error).map(ToString::to_string);
    match (variable::<T>(flag), reason) {
        (Some((variable, _)), Some(reason)) => format!("{variable} ({flag}): {reason}"),
        (Some((variable, false)), None) => format!("{variable} ({flag}): {}", first_line(error)),
        (Some((variable, true)), None) => format!("{variable} ({flag}): not a valid value"),
        (None, _) => first_line(error),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told: Vec<_> = lines
        .take_while(|line| !line.starts_with("Usage:"))
        .collect();
    let told: Vec<_> = told
        .into_iter()
        .filter(|line| !line.starts_with("For more information"))
        .collect();
    told.join(" ").trim_start_matches("error: ").to_owned()
}

/// The environment variable behind a flag, and whether its value is a secret.
fn variable<T: CommandFactory>(flag: &str) -> Option<(String, bool)> {
    let name = flag.trim_start_matches('-');
    let command = T::command();
    let mut commands = vec![&command];
    commands.extend(command.get_subcommands());
    commands
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .find_map(|argument| {
            (argument.get_long() == Some(name))
                .then(|| argument.get_env())
                .flatten()
                .map(|env| {
                    (
                        env.to_string_lossy().into_owned(),
                        argument.is_hide_env_values_set(),
                    )
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Settings {
        /// Rows
        #[arg(long, env = "TEST_ROWS_MAX", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10))]
        test_rows_max: u32,
        /// Secret
        #[arg(
            long,
            env = "TEST_URL",
            hide_env_values = true,
            default_value = "postgres://localhost"
        )]
        test_url: crate::db::DatabaseUrl,
    }

    #[test]
    fn a_bad_value_is_one_line_that_names_the_variable() {
        for value in ["0", "many", "-3", ""] {
            let flag = format!("--test-rows-max={value}");
            let error = parse_from::<Settings>(&["service", &flag]).unwrap_err();
            assert!(
                error.starts_with("TEST_ROWS_MAX (--test-rows-max): "),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn a_bad_secret_is_named_and_not_shown() {
        let error = parse_from::<Settings>(&["service", "--test-url=hunter2"]).unwrap_err();
        assert!(error.starts_with("TEST_URL (--test-url): "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_unknown_flag_is_named() {
        let error = parse_from::<Settings>(&["service", "--rows"]).unwrap_err();
        assert!(error.contains("--rows"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn defaults_are_valid() {
        let settings = parse_from::<Settings>(&["service"]).unwrap();
        assert_eq!(settings.test_rows_max, 5);
        assert_eq!(format!("{:?}", settings.test_url), "DatabaseUrl(…)");
    }
}
