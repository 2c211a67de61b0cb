use e2e::{Kind, Payment, eventually, test};
use tokio::net::TcpStream;

#[test]
fn a_request_under_way_is_answered_before_the_api_ends() {
    test(async |stack| {
        let api = stack.start(Kind::Api).await;
        let client = stack.client().await;
        let account = client.open_account().await;
        let payment = Payment::credit(account, 100);

        let stall = stack.database.stall().await;
        let answer = tokio::spawn({
            let (client, payment) = (client.clone(), payment.clone());
            async move { client.pay(&payment).await }
        });
        stack.database.stalled().await;
        api.signal("TERM").await;
        eventually("the api takes no more", async || {
            TcpStream::connect(stack.api.get())
                .await
                .is_err()
                .then_some(())
        })
        .await;
        stall.rollback().await.unwrap();
        let _accepted = answer.await.unwrap().expect(202);
        assert_eq!(api.ended().await.code(), Some(0));

        stack.start_all().await;
        assert_eq!(stack.audit().await.processed(), 1);
    });
}
