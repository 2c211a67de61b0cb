//! All settings of the service, and its subcommands.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};
use common::{
    db::{DatabaseSettings, DatabaseUrl},
    runtime::RuntimeSettings,
    settings::topic_name,
    shutdown::ShutdownSettings,
    telemetry::LogSettings,
};

use crate::{
    auth::{KeyRingSettings, admin::KeysCommand},
    intake::IntakeSettings,
    server::ServerSettings,
};

/// Postonce's REST service. Without a subcommand it serves.
#[derive(Clone, Debug, Parser)]
#[command(name = "api", version)]
pub struct Cli {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve
    #[command(flatten)]
    pub settings: Settings,
}

/// What the binary does beside serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Brings the database's schema up to date
    Migrate(OwnerSettings),
    /// Makes, lists and revokes API keys
    Keys {
        /// Which
        #[command(subcommand)]
        command: KeysCommand,
        /// As whom
        #[command(flatten)]
        owner: OwnerSettings,
    },
    /// Prints the OpenAPI document
    Openapi,
}

/// The connection of operators' commands.
#[derive(Args, Clone, Debug)]
pub struct OwnerSettings {
    /// The database, as the role that owns the schema
    #[arg(
        long,
        env,
        global = true,
        hide_env_values = true,
        default_value = "postgres://postonce:postonce@127.0.0.1:15432/postonce"
    )]
    pub database_owner_url: DatabaseUrl,
}

/// How to serve.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where the API listens
    #[arg(long, env, default_value = "127.0.0.1:8080")]
    pub api_bind_addr: SocketAddr,

    /// Where /health, /ready and /metrics listen
    #[arg(long, env, default_value = "127.0.0.1:9101")]
    pub admin_bind_addr: SocketAddr,

    /// The database, as the service's own role
    #[arg(
        long,
        env,
        hide_env_values = true,
        default_value = "postgres://postonce_api:postonce_api@127.0.0.1:15432/postonce"
    )]
    pub database_url: DatabaseUrl,

    /// The database's sessions; the intake has `INTAKE_LANES` connections beside these
    #[command(flatten)]
    pub database: DatabaseSettings,

    /// The topic that new transactions' events are for
    #[arg(long, env, default_value = "transactions", value_parser = topic_name)]
    pub transactions_topic: String,

    /// The topic of the worker's results
    #[arg(long, env, default_value = "transactions.results", value_parser = topic_name)]
    pub results_topic: String,

    /// How many rows one page of a filtered list may look at; it may hold fewer than asked for then
    #[arg(long, env, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(200..=100_000))]
    pub list_examined_rows_max: u32,

    /// The HTTP server
    #[command(flatten)]
    pub server: ServerSettings,

    /// The API keys
    #[command(flatten)]
    pub keys: KeyRingSettings,

    /// How transactions are taken in
    #[command(flatten)]
    pub intake: IntakeSettings,

    /// The threads
    #[command(flatten)]
    pub runtime: RuntimeSettings,

    /// Logs
    #[command(flatten)]
    pub logs: LogSettings,

    /// The end
    #[command(flatten)]
    pub shutdown: ShutdownSettings,
}

impl Settings {
    /// Rules over several settings; the error names the variables.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.transactions_topic == self.results_topic {
            return Err(
                "RESULTS_TOPIC (--results-topic): must differ from TRANSACTIONS_TOPIC".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use common::settings::parse_from;

    use super::*;

    #[test]
    fn defaults_run_the_local_stack() {
        let cli = parse_from::<Cli>(&["api"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.settings.api_bind_addr.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn a_bad_setting_is_one_line_that_names_it() {
        let table = [
            ("--api-bind-addr=nowhere", "API_BIND_ADDR"),
            ("--http-body-bytes-max=0", "HTTP_BODY_BYTES_MAX"),
            ("--transactions-topic=a b", "TRANSACTIONS_TOPIC"),
            ("--results-topic=", "RESULTS_TOPIC"),
            ("--database-url=nonsense", "DATABASE_URL"),
            ("--api-keys-refresh-ms=60000", "API_KEYS_REFRESH_MS"),
            ("--runtime-threads=1025", "RUNTIME_THREADS"),
            ("--list-examined-rows-max=1", "LIST_EXAMINED_ROWS_MAX"),
        ];
        for (flag, variable) in table {
            let error = parse_from::<Cli>(&["api", flag]).unwrap_err();
            assert!(error.starts_with(variable), "{flag}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        let together = |flags: &[&str]| {
            let flags: Vec<_> = ["api"].iter().chain(flags).copied().collect();
            parse_from::<Cli>(&flags).unwrap().settings.check()
        };
        assert_eq!(together(&[]), Ok(()));
        let error = together(&["--results-topic=transactions"]).unwrap_err();
        assert!(error.starts_with("RESULTS_TOPIC "), "{error}");
    }

    #[test]
    fn the_owners_url_may_stand_anywhere_in_an_operators_command() {
        let url = "--database-owner-url=postgres://o@h/d";
        for arguments in [["api", "keys", "list", url], ["api", "keys", url, "list"]] {
            assert!(parse_from::<Cli>(&arguments).is_ok(), "{arguments:?}");
        }
        assert!(parse_from::<Cli>(&["api", "migrate", url]).is_ok());
    }

    #[test]
    fn a_keys_command_is_checked_before_anything_is_done() {
        let cli = parse_from::<Cli>(&[
            "api",
            "keys",
            "create",
            "--name",
            "shop",
            "--scopes",
            "read,write",
        ]);
        assert!(matches!(cli.unwrap().command, Some(Command::Keys { .. })));
        for wrong in ["--scopes=admin", "--scopes="] {
            assert!(parse_from::<Cli>(&["api", "keys", "create", "--name=shop", wrong]).is_err());
        }
        assert!(
            parse_from::<Cli>(&["api", "keys", "create", "--name= ", "--scopes=read"]).is_err()
        );
    }
}
