use std::time::Duration;

use api::intake::{IdempotencyKey, Intake, IntakeError, IntakeSettings, NewTransaction, Outcome};
use common::{
    db::{DatabaseSettings, DatabaseUrl, Isolation},
    outbox::WakeUp,
    types::{AccountId, TransactionType},
};
use sqlx::{PgPool, Postgres, Transaction, postgres::PgConnectOptions};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a condition may take to come true, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// An intake over the test's own database, with the sessions it has in production.
pub(crate) struct Fixture {
    pub(crate) intake: Intake,
    pub(crate) pool: PgPool,
    pub(crate) account: AccountId,
    tasks: TaskTracker,
    serializable: PgPool,
    wake_up_ends: CancellationToken,
}

pub(crate) fn settings() -> IntakeSettings {
    IntakeSettings {
        intake_lanes: 2,
        intake_batch_rows_max: 500,
        intake_queue_rows_max: 1_000,
        intake_deadline_ms: 30_000,
    }
}

impl Fixture {
    pub(crate) async fn new(pool: PgPool) -> Self {
        Self::with(pool, &settings()).await
    }

    pub(crate) async fn with(pool: PgPool, settings: &IntakeSettings) -> Self {
        let options = (*pool.connect_options()).clone();
        Self::reached_by(options, pool, settings).await
    }

    /// With a way of its own to the database.
    pub(crate) async fn reached_by(
        options: PgConnectOptions,
        pool: PgPool,
        settings: &IntakeSettings,
    ) -> Self {
        let url = DatabaseUrl::from(options);
        let database = DatabaseSettings::default();
        let session = url.session(&database, "intake-test", Isolation::Serializable);
        let serializable = url.pool(&database, "intake-test", Isolation::Serializable);
        let wake_up_ends = CancellationToken::new();
        let wake_up = WakeUp::start(session, wake_up_ends.clone());
        let tasks = TaskTracker::new();
        let intake = Intake::start(
            settings,
            &serializable,
            database.answer_timeout(),
            "transactions",
            &wake_up,
            &tasks,
            &Handle::current(),
        );
        let account = open_account(&pool, "EUR").await;
        Self {
            intake,
            pool,
            account,
            tasks,
            serializable,
            wake_up_ends,
        }
    }

    pub(crate) async fn submit(&self, new: NewTransaction) -> Outcome {
        self.intake.submit(new).await.unwrap()
    }

    /// Starts a request in a task of its own.
    pub(crate) fn submit_later(
        &self,
        new: NewTransaction,
    ) -> tokio::task::JoinHandle<Result<Outcome, IntakeError>> {
        let intake = self.intake.clone();
        tokio::spawn(async move { intake.submit(new).await })
    }

    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let statement = format!("SELECT count(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Lets no statement of the intake past the look at accounts until it is dropped.
    pub(crate) async fn stall(&self) -> Transaction<'static, Postgres> {
        let mut transaction = self.pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction
    }

    /// Waits until so many statements of the intake wait for the stalled table.
    pub(crate) async fn wait_for_stalled(&self, statements: i64) {
        wait_until(async || {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'intake-test'
                    AND wait_event_type = 'Lock' AND datname = current_database()",
            )
            .fetch_one(&self.pool)
            .await
            .unwrap();
            waiting >= statements
        })
        .await;
    }

    /// Ends the intake as a shutdown does, waits for its lanes, and closes its sessions, so that
    /// the test's database can be dropped.
    pub(crate) async fn close(self) -> PgPool {
        drop(self.intake);
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait())
            .await
            .expect("the lanes end");
        self.wake_up_ends.cancel();
        self.serializable.close().await;
        self.pool
    }
}

pub(crate) async fn open_account(pool: &PgPool, currency: &str) -> AccountId {
    let id = AccountId::new();
    sqlx::query("INSERT INTO accounts (id, currency) VALUES ($1, $2)")
        .bind(id)
        .bind(currency)
        .execute(pool)
        .await
        .unwrap();
    id
}

pub(crate) fn credit(account_id: AccountId, key: &str) -> NewTransaction {
    NewTransaction {
        account_id,
        amount_cents: 100.try_into().unwrap(),
        currency: "EUR".parse().unwrap(),
        transaction_type: TransactionType::Credit,
        idempotency_key: IdempotencyKey::try_from(key.to_owned()).unwrap(),
    }
}

pub(crate) async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .expect("the condition comes true in time");
}
