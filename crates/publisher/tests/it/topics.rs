use common::types::AccountId;
use rdkafka::admin::{AdminOptions, NewPartitions};
use sqlx::PgPool;

use crate::support::{PARTITIONS, World, admin, create_topic, payloads};

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn absent_topics_are_created_with_the_configured_partitions(pool: PgPool) {
    let world = World::new(pool);
    let publisher = world.publisher(&[]);
    publisher.ready().await;
    let metadata = admin()
        .inner()
        .fetch_metadata(None, std::time::Duration::from_secs(10));
    let metadata = metadata.unwrap();
    for name in [&world.transactions, &world.results, &world.dead_letters] {
        let topic = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == name)
            .unwrap();
        assert_eq!(i32::try_from(topic.partitions().len()), Ok(PARTITIONS));
    }
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn absent_topics_are_waited_for_where_they_may_not_be_created(pool: PgPool) {
    let world = World::new(pool);
    world.append(AccountId::new(), &payloads(3)).await;
    let publisher = world.publisher(&["--topics-create=false"]);
    publisher.unready("topics", "TOPICS_CREATE is false").await;
    world.create_topics(PARTITIONS, &[]).await;
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_wrong_partition_count_is_unready_until_it_is_right(pool: PgPool) {
    let world = World::new(pool);
    create_topic(&world.transactions, PARTITIONS - 2, &[]).await;
    world.append(AccountId::new(), &payloads(3)).await;
    let publisher = world.publisher(&[]);
    publisher
        .unready("topics", "has 6 partitions but TOPIC_PARTITIONS is 8")
        .await;
    let grown = NewPartitions::new(&world.transactions, 8);
    admin()
        .create_partitions([&grown], &AdminOptions::new())
        .await
        .unwrap();
    world.all_published().await;
    publisher.ready().await;
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn the_topic_of_dead_letters_is_checked_like_the_others(pool: PgPool) {
    let world = World::new(pool);
    create_topic(&world.dead_letters, PARTITIONS + 1, &[]).await;
    world.append(AccountId::new(), &payloads(3)).await;
    let publisher = world.publisher(&[]);
    let told = format!(
        "topic {} has 9 partitions but TOPIC_PARTITIONS is 8",
        world.dead_letters
    );
    publisher.unready("topics", &told).await;
    assert_eq!(world.pending().await, 3);
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_topic_that_grows_under_a_running_publisher_is_told(pool: PgPool) {
    let world = World::new(pool);
    let publisher = world.publisher(&[]);
    publisher.ready().await;
    let grown = NewPartitions::new(&world.transactions, 9);
    admin()
        .create_partitions([&grown], &AdminOptions::new())
        .await
        .unwrap();
    publisher
        .unready("topics", "has 9 partitions but TOPIC_PARTITIONS is 8")
        .await;
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn no_broker_is_told_and_does_not_hold_up_the_end(pool: PgPool) {
    let mut world = World::new(pool);
    world.append(AccountId::new(), &payloads(3)).await;
    // Nobody listens on the first port.
    world.brokers = "127.0.0.1:1".to_owned();
    let publisher = world.publisher(&[]);
    publisher.unready("broker", "cannot reach a broker").await;
    world.all_lanes_held_by(1).await;
    publisher.stop().await;
}

#[sqlx::test(migrator = "common::db::MIGRATOR")]
async fn a_database_that_refuses_is_told_and_tried_again(pool: PgPool) {
    let world = World::new(pool);
    let options = world.pool.connect_options();
    let name = options.get_database().unwrap();
    let outside = PgPool::connect(&std::env::var("DATABASE_URL").unwrap())
        .await
        .unwrap();
    let allow = async |allowed: bool| {
        let statement = format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS {allowed}");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&outside)
            .await
            .unwrap();
    };
    allow(false).await;
    let publisher = world.publisher(&[]);
    publisher
        .unready("database", "not currently accepting connections")
        .await;
    allow(true).await;
    publisher.ready().await;
    world.append(AccountId::new(), &payloads(3)).await;
    world.all_published().await;
    publisher.stop().await;
}
