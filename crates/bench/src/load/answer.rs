use uuid::Uuid;

/// What stands before the id of an accepted transaction in the answer to a single request.
const SINGLE: &[u8] = b"{\"id\":\"";
/// The same in the answer to a batch.
const ITEM: &[u8] = b"\"status\":202,\"transaction\":{\"id\":\"";
/// The start of an item's result that leaves its outcome open, in the answer to a batch.
const OPEN_ITEM: &[u8] = b"\"status\":504,\"problem\":";
/// The length of a UUID as text.
const UUID_TEXT: usize = 36;

/// The id of the transaction in an answer. It is read off its place: parsing the JSON would cost the
/// generator more than all the rest.
#[must_use]
pub(super) fn transaction_id(body: &[u8]) -> Option<Uuid> {
    uuid_at(body.strip_prefix(SINGLE)?)
}

/// The ids of the transactions that a batch's answer says were accepted, appended to a list.
pub(super) fn accepted_ids(body: &[u8], ids: &mut Vec<Uuid>) {
    let mut rest = body;
    while let Some(place) = find(rest, ITEM) {
        rest = &rest[place + ITEM.len()..];
        ids.extend(uuid_at(rest));
    }
}

/// How many items of a batch's answer leave it open whether their transactions were written.
#[must_use]
pub(super) fn open_items(body: &[u8]) -> usize {
    let (mut rest, mut items) = (body, 0);
    while let Some(place) = find(rest, OPEN_ITEM) {
        rest = &rest[place + OPEN_ITEM.len()..];
        items += 1;
    }
    items
}

/// Whether a transaction, as the API shows it, has been posted.
#[must_use]
pub(super) fn is_processed(body: &[u8]) -> bool {
    find(body, b"\"status\":\"PROCESSED\"").is_some()
}

fn uuid_at(text: &[u8]) -> Option<Uuid> {
    Uuid::try_parse_ascii(text.get(..UUID_TEXT)?).ok()
}

/// Jumps from quote to quote: each of the needles begins with one, and most bytes are none.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(quote) = text[from..].iter().position(|byte| *byte == needle[0]) {
        let place = from + quote;
        if text[place..].starts_with(needle) {
            return Some(place);
        }
        from = place + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "018f4e6c-0000-7000-8000-000000000001";
    const B: &str = "018f4e6c-0000-7000-8000-000000000002";

    #[test]
    fn the_id_of_a_single_answer_is_found() {
        let body = format!(r#"{{"id":"{A}","account_id":"{B}","status":"PENDING"}}"#);
        assert_eq!(transaction_id(body.as_bytes()), A.parse().ok());
        assert!(!is_processed(body.as_bytes()));
        assert_eq!(transaction_id(b"{\"type\":\"urn:postonce\"}"), None);
    }

    #[test]
    fn only_the_accepted_items_of_a_batch_count() {
        let body = format!(
            r#"{{"results":[{{"index":0,"status":202,"transaction":{{"id":"{A}","status":"PROCESSED"}}}},
               {{"index":1,"status":404,"problem":{{}}}},
               {{"index":2,"status":504,"problem":{{"status":504,"code":"outcome_unknown"}}}},
               {{"index":3,"status":202,"transaction":{{"id":"{B}"}}}}]}}"#
        );
        let mut ids = Vec::new();
        accepted_ids(body.as_bytes(), &mut ids);
        let expected: [Uuid; 2] = [A, B].map(|id| id.parse().unwrap());
        assert_eq!(ids, expected);
        assert_eq!(open_items(body.as_bytes()), 1);
        assert!(is_processed(body.as_bytes()));
    }
}
