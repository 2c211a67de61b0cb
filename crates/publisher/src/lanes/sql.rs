use sqlx::{Error, PgConnection};

/// The first key of every lane's advisory lock; the second is the lane.
const LANE_CLASS: i32 = 0x506f_4c61;
/// The first key of the lock that makes an instance visible to the others; the
/// second is its backend's process id, of which there are no two in a server.
const PRESENCE_CLASS: i32 = 0x506f_5072;

/// What the instances of this database hold.
#[derive(Debug)]
pub(super) struct Census {
    /// Instances, this one included.
    pub(super) instances: i64,
    /// Lanes that somebody holds.
    pub(super) taken: Vec<i16>,
}

/// Makes this instance visible to the others, for as long as the session lives.
pub(super) async fn announce(connection: &mut PgConnection) -> Result<(), Error> {
    let visible = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_lock($1, pg_backend_pid()) AS "visible!""#,
        PRESENCE_CLASS
    )
    .fetch_one(connection)
    .await?;
    if visible {
        Ok(())
    } else {
        Err(Error::Protocol(
            "another session holds this one's presence lock".to_owned(),
        ))
    }
}

/// Counts instances and finds taken lanes. `pg_locks` shows the whole server, and other databases
/// may have publishers of their own.
pub(super) async fn census(connection: &mut PgConnection) -> Result<Census, Error> {
    sqlx::query_as!(
        Census,
        r#"SELECT count(*) FILTER (WHERE classid::bigint = $1::integer) AS "instances!",
                  coalesce(array_agg(objid::bigint::smallint)
                               FILTER (WHERE classid::bigint = $2::integer), '{}') AS "taken!"
             FROM pg_locks
            WHERE locktype = 'advisory' AND granted AND objsubid = 2
              AND classid::bigint IN ($1::integer, $2::integer)
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"#,
        PRESENCE_CLASS,
        LANE_CLASS
    )
    .fetch_one(connection)
    .await
}

/// Takes those of these lanes that are free. They must not be ours already: session locks count.
pub(super) async fn take(connection: &mut PgConnection, lanes: &[i16]) -> Result<Vec<i16>, Error> {
    sqlx::query_scalar!(
        r#"SELECT lane AS "lane!" FROM unnest($2::smallint[]) AS wanted (lane)
            WHERE pg_try_advisory_lock($1, lane)"#,
        LANE_CLASS,
        lanes
    )
    .fetch_all(connection)
    .await
}

/// Gives lanes up.
pub(super) async fn release(connection: &mut PgConnection, lanes: &[i16]) -> Result<(), Error> {
    let released = sqlx::query_scalar!(
        r#"SELECT count(*) FILTER (WHERE pg_advisory_unlock($1, lane)) AS "released!"
             FROM unnest($2::smallint[]) AS leaving (lane)"#,
        LANE_CLASS,
        lanes
    )
    .fetch_one(connection)
    .await?;
    if usize::try_from(released) == Ok(lanes.len()) {
        Ok(())
    } else {
        // Locks that we do not hold as we believe: only a new session puts that right.
        let told = format!("{released} of {} lane locks were held", lanes.len());
        Err(Error::Protocol(told))
    }
}
