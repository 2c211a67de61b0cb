//! The auditor against a real database: it finds a doubled entry.

use e2e::{Book, Payment, Snapshot, Stack, test};
use sqlx::{query, types::Uuid};

#[test]
fn the_auditor_finds_a_doubled_entry() {
    test(async |stack| {
        let payment = Payment::credit(Uuid::new_v4(), 100);
        let id = processed(stack, &payment).await;
        enter(stack, payment.account, id, 1).await;
        let book = Book::default();
        book.sending(&payment);
        let right = wrongs(stack, &book).await;
        assert!(
            matches!(&*right, [only] if only.contains("no result event")),
            "{right:?}"
        );

        // The database itself refuses a second entry, so its guard has to go first.
        let guard = "ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_one_per_transaction";
        query(guard)
            .execute(stack.database.superuser())
            .await
            .unwrap();
        enter(stack, payment.account, id, 2).await;
        let found = wrongs(stack, &book).await.join("\n");
        assert!(found.contains("has the entries"), "{found}");
        assert!(found.contains("the entries make 2, 200"), "{found}");
    });
}

/// A transaction that came to its end, without the services.
async fn processed(stack: &Stack, payment: &Payment) -> Uuid {
    let database = stack.database.superuser();
    let account = "INSERT INTO accounts (id, currency, balance_cents, entry_count)
                   VALUES ($1, 'EUR', 100, 1)";
    query(account)
        .bind(payment.account)
        .execute(database)
        .await
        .expect("no account");
    let transaction = "INSERT INTO transactions (id, account_id, amount_cents, currency, type,
                                                 status, idempotency_key, processed_at)
                       VALUES ($1, $2, 100, 'EUR', 'CREDIT', 'PROCESSED', $3, now())";
    let id = Uuid::now_v7();
    let transaction = query(transaction)
        .bind(id)
        .bind(payment.account)
        .bind(&payment.key);
    transaction.execute(database).await.expect("no transaction");
    id
}

async fn enter(stack: &Stack, account: Uuid, transaction: Uuid, number: i64) {
    let entry = "INSERT INTO ledger_entries (account_id, entry_no, transaction_id, amount_cents,
                                             balance_after_cents)
                 VALUES ($1, $2, $3, 100, $2 * 100)";
    let entry = query(entry).bind(account).bind(number).bind(transaction);
    entry
        .execute(stack.database.superuser())
        .await
        .expect("no entry");
}

async fn wrongs(stack: &Stack, book: &Book) -> Vec<String> {
    let snapshot = Snapshot::of_database(stack.database.superuser()).await;
    snapshot.wrongs(&book.entries())
}
