use std::{
    env,
    net::SocketAddr,
    str::FromStr,
    time::{Duration, SystemTime},
};

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, PgTransaction, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::wait::eventually;

/// What the databases of the tests are called, before the UUID version 7 of each.
const PREFIX: &str = "e2e_";
/// The advisory lock under which runs look at the roles, which belong to the whole server.
const ROLES_LOCK: i64 = 0x0070_6f73_746f_6e63;

/// Who logs in. On a test server the passwords are the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Owns the database and runs the migrations.
    Owner,
    /// The api.
    Api,
    /// The publisher.
    Publisher,
    /// The worker.
    Worker,
}

impl Role {
    const ALL: [Self; 4] = [Self::Owner, Self::Api, Self::Publisher, Self::Worker];

    /// The role's name, which is its password too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "postonce",
            Self::Api => "postonce_api",
            Self::Publisher => "postonce_publisher",
            Self::Worker => "postonce_worker",
        }
    }
}

/// A database of one test.
#[derive(Clone, Debug)]
pub struct Database {
    name: String,
    server: PgConnectOptions,
    superuser: PgPool,
}

impl Database {
    /// Makes an empty database on the test server, of which `DATABASE_URL` is the superuser.
    pub async fn create() -> Self {
        let (server, mut connection) = connect().await;
        let name = format!("{PREFIX}{}", Uuid::now_v7().simple());
        prepare_roles(&mut connection).await;
        let owner = Role::Owner.name();
        run(
            &mut connection,
            format!("CREATE DATABASE {name} OWNER {owner}"),
        )
        .await;
        let superuser = PgPoolOptions::new()
            .max_connections(2)
            .connect_lazy_with(server.clone().database(&name));
        Self {
            name,
            server,
            superuser,
        }
    }

    /// Where the server listens.
    #[must_use]
    pub fn server_address(&self) -> String {
        format!("{}:{}", self.server.get_host(), self.server.get_port())
    }

    /// The URL under which a role finds the database, at the server or through a proxy.
    #[must_use]
    pub fn url(&self, role: Role, through: Option<SocketAddr>) -> String {
        self.url_with_password(role, role.name(), through)
    }

    /// The same with a password of the test's choice.
    #[must_use]
    pub fn url_with_password(
        &self,
        role: Role,
        password: &str,
        through: Option<SocketAddr>,
    ) -> String {
        let address = through.map_or_else(|| self.server_address(), |proxy| proxy.to_string());
        format!(
            "postgres://{}:{password}@{address}/{}",
            role.name(),
            self.name
        )
    }

    /// The database as the superuser sees it, who may do anything to it.
    #[must_use]
    pub fn superuser(&self) -> &PgPool {
        &self.superuser
    }

    /// A session of the superuser's own.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn session(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect_with(&self.server.clone().database(&self.name)).await
    }

    /// Counts rows.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&self.superuser)
            .await
            .expect("a count failed")
    }

    /// While the transaction lives, no payment can be written, nor any account read.
    pub async fn stall(&self) -> PgTransaction<'static> {
        let mut stall = self.superuser.begin().await.expect("no transaction");
        let lock = sqlx::query("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE");
        lock.execute(&mut *stall).await.expect("no lock");
        stall
    }

    /// Waits until somebody waits for the stall to end.
    pub async fn stalled(&self) {
        eventually("somebody waits for the accounts", async || {
            let waiting = "SELECT count(*) FROM pg_locks
                            WHERE relation = 'accounts'::regclass AND NOT granted";
            (self.count(waiting).await > 0).then_some(())
        })
        .await;
    }

    /// Removes the database, whoever is still connected to it.
    pub async fn drop(self) {
        self.superuser.close().await;
        let mut connection = PgConnection::connect_with(&self.server).await.unwrap();
        drop_database(&mut connection, &self.name).await;
    }
}

/// The test server, and a session of its superuser.
async fn connect() -> (PgConnectOptions, PgConnection) {
    let url = env::var("DATABASE_URL")
        .expect("DATABASE_URL is not set: run the tests by `make e2e` or `make test`");
    let server = PgConnectOptions::from_str(&url).expect("DATABASE_URL is no URL");
    let connection = PgConnection::connect_with(&server).await;
    (server, connection.expect("the test server does not answer"))
}

/// Removes the databases that killed runs have left behind.
pub(crate) async fn drop_left_over_databases(age: Duration) {
    let (_, mut connection) = connect().await;
    let names = sqlx::query("SELECT datname FROM pg_database WHERE datname LIKE 'e2e\\_%'")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    for name in names.iter().map(|row| row.get::<String, _>(0)) {
        if name
            .strip_prefix(PREFIX)
            .is_some_and(|id| is_older(id, age))
        {
            drop_database(&mut connection, &name).await;
        }
    }
}

/// Whether a UUID version 7 is older than that.
pub(crate) fn is_older(id: &str, age: Duration) -> bool {
    let made = Uuid::try_parse(id)
        .ok()
        .and_then(|id| id.get_timestamp())
        .map(|time| Duration::from_secs(time.to_unix().0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    matches!((made, now), (Some(made), Ok(now)) if now.saturating_sub(made) > age)
}

async fn drop_database(connection: &mut PgConnection, name: &str) {
    run(
        connection,
        format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
    )
    .await;
}

/// Gives the roles LOGIN and their passwords where whoever made the server has not.
async fn prepare_roles(connection: &mut PgConnection) {
    let lock = |function| format!("SELECT {function}({ROLES_LOCK})");
    run(connection, lock("pg_advisory_lock")).await;
    for role in Role::ALL.map(Role::name) {
        let can_log_in: Option<bool> =
            sqlx::query_scalar("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1")
                .bind(role)
                .fetch_optional(&mut *connection)
                .await
                .unwrap();
        let verb = match can_log_in {
            Some(true) => continue,
            Some(false) => "ALTER",
            None => "CREATE",
        };
        run(
            connection,
            format!("{verb} ROLE {role} LOGIN PASSWORD '{role}'"),
        )
        .await;
    }
    run(connection, lock("pg_advisory_unlock")).await;
}

/// Runs a statement that takes no parameters, made of the harness's own names only.
async fn run(connection: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}
