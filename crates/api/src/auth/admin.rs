//! `api keys …`: what an operator does with keys, as the database's owner.

use std::io::{self, Write};

use anyhow::{Context, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use sqlx::PgConnection;

use super::{Key, Scopes, sql};

/// What can be done with keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Makes a key and prints it, this once; only its hash is stored
    Create {
        /// Who the key is for; unique, and shown in logs
        #[arg(long, value_parser = parse_name)]
        name: String,
        /// What it may do: read, write, operate, with commas between them
        #[arg(long)]
        scopes: Scopes,
        /// After how many days it ends by itself; never, if not given
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(i32).range(1..=36_500))]
        expires_in: Option<i32>,
    },
    /// Lists all keys, without the keys themselves
    List,
    /// Ends a key; in force within 10 seconds
    Revoke {
        /// The key's name
        #[arg(long)]
        name: String,
    },
}

fn parse_name(name: &str) -> Result<String, String> {
    let printable = name.chars().all(|char| !char.is_control());
    if (1..=100).contains(&name.chars().count()) && printable && name.trim() == name {
        Ok(name.to_owned())
    } else {
        Err("must be 1 to 100 characters without control characters or outer spaces".to_owned())
    }
}

/// Carries a command out.
///
/// # Errors
/// If the database refuses, or there is nothing to do it to.
pub async fn run(connection: &mut PgConnection, command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create {
            name,
            scopes,
            expires_in,
        } => {
            let key = create(connection, &name, scopes, expires_in).await?;
            eprintln!("Key `{name}` made. It is shown this once; only its hash is stored:");
            writeln!(io::stdout(), "{}", key.reveal()).context("the key could not be printed")
        }
        KeysCommand::List => list(connection).await,
        KeysCommand::Revoke { name } => {
            if !sql::revoke_key(connection, &name).await? {
                bail!("there is no key named `{name}`");
            }
            eprintln!("Key `{name}` is revoked; that is in force within 10 seconds.");
            Ok(())
        }
    }
}

/// Makes and stores a key.
///
/// # Errors
/// If the name is taken, or the database refuses.
pub async fn create(
    connection: &mut PgConnection,
    name: &str,
    scopes: Scopes,
    expires_in_days: Option<i32>,
) -> anyhow::Result<Key> {
    let key = Key::make().context("the operating system has no randomness")?;
    let scopes: Vec<String> = scopes.names().into_iter().map(str::to_owned).collect();
    match sql::insert_key(connection, name, key.hash(), &scopes, expires_in_days).await {
        Err(error) if common::db::constraint(&error) == Some("api_keys_name") => {
            bail!("there is a key named `{name}` already, or was: a name is never used twice")
        }
        Err(error) => Err(error).context("the key could not be stored"),
        Ok(()) => Ok(key),
    }
}

async fn list(connection: &mut PgConnection) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<32} {:<20} {:<21} {:<21} STATE",
        "NAME", "SCOPES", "CREATED", "EXPIRES"
    )?;
    for key in sql::list_keys(connection).await? {
        let expires = key.expires_at.map_or_else(|| "never".to_owned(), time);
        let state = match key.revoked_at {
            Some(at) => format!("revoked {}", time(at)),
            None if key.live => "live".to_owned(),
            None => "expired".to_owned(),
        };
        let scopes = key.scopes.join(",");
        writeln!(
            out,
            "{:<32} {scopes:<20} {:<21} {expires:<21} {state}",
            key.name,
            time(key.created_at)
        )?;
    }
    Ok(())
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
