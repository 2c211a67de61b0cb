use e2e::{Kind, Settings, eventually, run, test};

/// A password that is nobody's.
const SECRET: &str = "hunter2-very-secret";

#[tokio::test]
async fn help_shows_no_password() {
    for kind in Kind::ALL {
        let url = format!("postgres://someone:{SECRET}@127.0.0.1:1/nowhere");
        let settings =
            ["DATABASE_URL", "DATABASE_OWNER_URL"].map(|name| (name.to_owned(), url.clone()));
        for arguments in [&["--help"][..], &["help"], &["migrate", "--help"], &["-h"]] {
            let output = run(kind, arguments, &Settings::from(settings.clone())).await;
            let text =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
            assert!(!text.concat().contains(SECRET), "{kind:?} {arguments:?}");
        }
    }
}

#[test]
fn a_password_that_the_database_refuses_is_not_logged() {
    test(async |stack| {
        for kind in Kind::ALL {
            let url = stack.database.url_with_password(kind.role(), SECRET, None);
            let own = [("DATABASE_URL", url.as_str()), ("LOG_FILTER", "debug")];
            let service = stack.launch_with(kind, &own).await;
            eventually("it says that the database refuses it", async || {
                let reasons = service.unready().await;
                reasons["database"]
                    .as_str()
                    .is_some_and(|why| why != "starting")
                    .then_some(())
            })
            .await;
            assert_eq!(service.probe("/health").await.0, 200);
            service.terminate().await;
            let log = service.log();
            assert!(!log.is_empty());
            assert!(
                log.iter().all(|line| !line.contains(SECRET)),
                "{kind:?} logs its password"
            );
        }
    });
}

#[test]
fn a_migration_that_cannot_log_in_shows_no_password() {
    test(async |stack| {
        let url = stack
            .database
            .url_with_password(e2e::Role::Owner, SECRET, None);
        let settings = Settings::from([("DATABASE_OWNER_URL".to_owned(), url)]);
        let output = run(Kind::Api, &["migrate"], &settings).await;
        assert_eq!(output.status.code(), Some(1));
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(!text.concat().contains(SECRET));
        assert!(
            text[1].contains("password authentication failed"),
            "{}",
            text[1]
        );
    });
}
