//! Which of PostgreSQL's answers say that something written is committed (protocol 3.0, "Message Formats").
//!
//! The answer alone does not tell: a statement that inserts in a WITH is answered as the SELECT that it is
//! at its top, and the COMMIT of a transaction that only read like that of any other. So the questions are
//! listened to as well.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What a client begins with, behind the length: the version of the protocol.
const STARTUP: [u8; 4] = [0, 3, 0, 0];
/// What an answer ends with once the session is outside of any transaction.
const READY_AND_IDLE: &[u8] = b"Z\0\0\0\x05I";
/// What may stand before that: a portal was closed.
const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
/// No tag of a command is longer, with its type and length before it.
const TAG_BYTES_MAX: usize = 64;
/// The words that a statement which writes has.
const WRITING: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "MERGE"];

/// What one session is asked and answered.
#[derive(Debug, Default)]
pub(super) struct Writes(Mutex<Session>);

#[derive(Debug, Default)]
struct Session {
    /// The beginning of a message of which the rest has not come yet.
    unread: Vec<u8>,
    /// Whether messages have a type by now: those before the session begins have none.
    begun: bool,
    /// The names of prepared statements that write.
    prepared: HashSet<Vec<u8>>,
    /// Whether the transaction that is open, or under way, writes.
    writes: bool,
}

impl Writes {
    /// The client sends these bytes next.
    pub(super) fn asked(&self, bytes: &[u8]) {
        let mut session = self.lock();
        session.unread.extend_from_slice(bytes);
        while let Some(message) = session.next_message() {
            session.hear(&message);
        }
    }

    /// Whether an answer says that something written is committed now.
    pub(super) fn committed_by(&self, answer: &[u8]) -> bool {
        let Some(before) = answer.strip_suffix(READY_AND_IDLE) else {
            return false;
        };
        let wrote = std::mem::take(&mut self.lock().writes);
        let before = before.strip_suffix(CLOSE_COMPLETE).unwrap_or(before);
        wrote && last_tag(before).is_some_and(|tag| tag != b"ROLLBACK")
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Takes the next message off, if it is there as a whole.
    fn next_message(&mut self) -> Option<Vec<u8>> {
        let typed = usize::from(self.begun);
        let length = self.unread.get(typed..typed + 4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        let end = typed + usize::try_from(length).ok()?.max(4);
        (self.unread.len() >= end).then(|| self.unread.drain(..end).collect())
    }

    fn hear(&mut self, message: &[u8]) {
        if !self.begun {
            // A question whether the server can encrypt comes first, and ours cannot.
            self.begun = message[4..].starts_with(&STARTUP);
            return;
        }
        let content = &message[5..];
        match message[0] {
            b'Q' if writes(content) => self.writes = true,
            b'P' => {
                let (name, sql) = text(content);
                if writes(sql) {
                    self.prepared.insert(name.to_owned());
                } else {
                    self.prepared.remove(name);
                }
            }
            b'B' => {
                let (_portal, rest) = text(content);
                self.writes |= self.prepared.contains(text(rest).0);
            }
            _ => {}
        }
    }
}

/// A text that ends with a zero, and what comes behind it.
fn text(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0);
    let end = end.unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// Whether SQL writes anything. A lock (`FOR UPDATE`, `FOR NO KEY UPDATE`) writes nothing that anybody
/// could miss.
fn writes(sql: &[u8]) -> bool {
    let sql = String::from_utf8_lossy(text(sql).0).to_uppercase();
    let said = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or(""));
    let said: String = said.flat_map(|line| [line, " "]).collect();
    let no_word = |c: char| !c.is_alphanumeric() && c != '_';
    let words: Vec<_> = said
        .split(no_word)
        .filter(|word| !word.is_empty())
        .collect();
    (0..words.len()).any(|at| {
        let is_lock = at > 0 && matches!(words[at - 1], "FOR" | "KEY");
        WRITING.contains(&words[at]) && !is_lock
    })
}

/// The tag of the command whose completion is the last message here.
fn last_tag(answer: &[u8]) -> Option<&[u8]> {
    let from = answer.len().saturating_sub(TAG_BYTES_MAX);
    (from..answer.len()).find_map(|at| {
        let message = answer[at..].strip_prefix(b"C")?;
        let (length, tag) = message.split_first_chunk()?;
        let whole = usize::try_from(u32::from_be_bytes(*length)) == Ok(message.len());
        tag.strip_suffix(b"\0").filter(|_| whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of a type, with these parts.
    fn message(kind: &[u8], parts: &[&str]) -> Vec<u8> {
        let content = parts.concat();
        let length = u32::try_from(content.len() + 4).unwrap();
        [kind, &length.to_be_bytes(), content.as_bytes()].concat()
    }

    fn query(sql: &str) -> Vec<u8> {
        message(b"Q", &[sql, "\0"])
    }

    /// What the client says to run a statement that it has prepared.
    fn bind(name: &str) -> Vec<u8> {
        message(b"B", &["\0", name, "\0"])
    }

    /// An answer with a tag, in or outside of a transaction.
    fn done(tag: &str, status: &str) -> Vec<u8> {
        let ready = message(b"Z", &[status]);
        [
            b"D...",
            &*message(b"C", &[tag, "\0"]),
            CLOSE_COMPLETE,
            &ready,
        ]
        .concat()
    }

    /// A session that has begun and prepared a statement that reads and one that writes.
    fn session() -> Writes {
        let writes = Writes::default();
        // The code of SSLRequest.
        let mut asked = vec![0, 0, 0, 8, 4, 210, 22, 47];
        asked.extend(message(b"", &["\0\x03\0\0user\0a\0\0"]));
        let reads = "SELECT status, updated_at FROM t FOR NO KEY UPDATE -- no INSERT";
        let inserts = "WITH new AS (insert INTO t VALUES (1)) SELECT count(*) FROM new";
        asked.extend(message(b"P", &["s_1\0", reads, "\0\0\0"]));
        asked.extend(message(b"P", &["s_2\0", inserts, "\0\0\0"]));
        // However the bytes come.
        asked.chunks(3).for_each(|some| writes.asked(some));
        writes
    }

    #[test]
    fn the_commit_of_something_written_is_told_from_one_that_only_read() {
        let session = session();
        for (statement, is_write) in [("s_2", true), ("s_1", false)] {
            session.asked(&query("BEGIN"));
            assert!(!session.committed_by(&done("BEGIN", "T")));
            session.asked(&bind(statement));
            assert!(!session.committed_by(&done("SELECT 1", "T")));
            session.asked(&query("COMMIT"));
            assert_eq!(session.committed_by(&done("COMMIT", "I")), is_write);
        }
    }

    #[test]
    fn a_statement_that_is_a_transaction_of_its_own_counts_if_it_writes() {
        let session = session();
        for (statement, is_write) in [("s_1", false), ("s_2", true), ("s_1", false)] {
            session.asked(&bind(statement));
            assert_eq!(session.committed_by(&done("SELECT 1", "I")), is_write);
        }
    }

    #[test]
    fn what_is_rolled_back_or_refused_does_not_count() {
        let session = session();
        session.asked(&bind("s_2"));
        assert!(!session.committed_by(&done("ROLLBACK", "I")));
        session.asked(&bind("s_2"));
        let refused = [&*message(b"E", &["no\0"]), READY_AND_IDLE].concat();
        assert!(!session.committed_by(&refused));
    }
}
