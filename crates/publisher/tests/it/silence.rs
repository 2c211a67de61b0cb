use std::net::SocketAddr;

use common::types::AccountId;
use sqlx::PgPool;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::support::{World, eventually, payloads};

/// A way to the database on which packets can vanish: connections stay open, and nothing comes
/// through them any more.
struct Way {
    address: SocketAddr,
    silent: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Way {
    async fn to(pool: &PgPool) -> Self {
        let options = pool.connect_options();
        let server = format!("{}:{}", options.get_host(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (silent, watched) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, server.clone(), watched.clone()));
            }
        });
        Self {
            address,
            silent,
            _tasks: tasks,
        }
    }
}

async fn forward(mut client: TcpStream, server: String, mut silent: watch::Receiver<bool>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => return,
        _ = silent.wait_for(|silent| *silent) => {}
    }
    // Both ends stay open: neither side is told anything.
    std::future::pending::<()>().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_database_that_falls_silent_is_told_and_its_connections_replaced(pool: PgPool) {
    let mut world = World::new(pool);
    let way = Way::to(&world.pool).await;
    world.database_address = Some(way.address);
    let publisher = world.publisher(&["--database-statement-timeout-ms=1000"]);
    publisher.ready().await;
    world.append(AccountId::new(), &payloads(3)).await;
    world.all_published().await;

    way.silent.send_replace(true);
    world.append(AccountId::new(), &payloads(3)).await;
    // The cycle itself says so, not only the session of the lanes.
    publisher
        .unready("database", "the outbox cannot be read or marked")
        .await;
    eventually("the server lets the silent owner's lanes go", || async {
        world.lane_holders().await.is_empty()
    })
    .await;
    assert_eq!(world.pending().await, 3);

    way.silent.send_replace(false);
    world.all_published().await;
    publisher.ready().await;
    // Nothing was left to its old connection: a hint is heard and rows move, as before.
    world.append(AccountId::new(), &payloads(3)).await;
    world.all_published().await;
    publisher.stop().await;
}
