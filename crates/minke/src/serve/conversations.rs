//! Conversations as they are kept: who said what, and how it was thought out. Everything asks for the person they belong
//! to, so that nobody is shown another's.

use anyhow::Result;
use minke_model::Message;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::credentials::random;
use super::database::now;
use super::steps::Step;

/// Longest title, in characters.
const TITLE: usize = 60;

/// A conversation in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    pub id: i64,
    pub title: String,
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub from: From,
    pub content: String,
}

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    User,
    Model { model: String, steps: Vec<Step>, thought_ms: i64, ended: Option<String> },
}

/// What a reply came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub answer: String,
    pub steps: Vec<Step>,
    pub thought_ms: u64,
    /// `stop`, `length`, `stopped` or `failed`; none while it is being written.
    pub ended: Option<&'static str>,
}

/// A person's conversations, the latest first.
pub fn of_person(connection: &Connection, person: u32) -> Result<Vec<Conversation>> {
    let mut statement = connection.prepare(
        "SELECT id, title FROM conversation WHERE person = ?1 AND title <> '' ORDER BY updated DESC, id DESC LIMIT 500",
    )?;
    let found = statement.query_map([person], |row| Ok(Conversation { id: row.get(0)?, title: row.get(1)? }))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// One of a person's conversations.
pub fn one(connection: &Connection, person: u32, id: i64) -> Result<Option<Conversation>> {
    let found = connection.query_row(
        "SELECT id, title FROM conversation WHERE id = ?1 AND person = ?2",
        params![id, person],
        |row| Ok(Conversation { id: row.get(0)?, title: row.get(1)? }),
    );
    Ok(found.optional()?)
}

/// Begins a conversation.
pub fn create(connection: &Connection, person: u32) -> Result<i64> {
    let sql = "INSERT INTO conversation (person, title, created, updated) VALUES (?1, '', ?2, ?2) RETURNING id";
    Ok(connection.query_row(sql, params![person, now()], |row| row.get(0))?)
}

/// Deletes one of a person's conversations; whether it was there.
pub fn delete(connection: &Connection, person: u32, id: i64) -> Result<bool> {
    Ok(connection.execute("DELETE FROM conversation WHERE id = ?1 AND person = ?2", params![id, person])? > 0)
}

/// All that was said.
pub fn turns(connection: &Connection, id: i64) -> Result<Vec<Turn>> {
    let mut statement = connection.prepare(
        "SELECT role, content, model, steps, thought_ms, ended FROM message WHERE conversation = ?1 ORDER BY turn",
    )?;
    let rows = statement.query_map([id], |row| {
        let (role, content): (String, String) = (row.get(0)?, row.get(1)?);
        let (model, steps, thought_ms, ended): (String, String, i64, Option<String>) =
            (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
        Ok((role, content, model, steps, thought_ms, ended))
    })?;
    let mut turns = Vec::new();
    for row in rows {
        let (role, content, model, steps, thought_ms, ended) = row?;
        let from = match role.as_str() {
            "user" => From::User,
            _ => From::Model { model, steps: serde_json::from_str(&steps)?, thought_ms, ended },
        };
        turns.push(Turn { from, content });
    }
    Ok(turns)
}

/// What was said, as templates read it.
pub fn messages(turns: &[Turn]) -> Vec<Message> {
    let message = |turn: &Turn| match &turn.from {
        From::User => Message::new("user", turn.content.as_str()),
        From::Model { steps, .. } => {
            let thought: String = steps.iter().map(|step| step.text.as_str()).collect();
            let thought = (!thought.is_empty()).then_some(thought);
            Message { reasoning_content: thought, ..Message::new("assistant", turn.content.as_str()) }
        }
    };
    turns.iter().map(message).collect()
}

/// The user says something to a model, whose reply is still to be written: what was said before, and the reply's place.
/// None if the person has no such conversation. Nobody may be writing in it: a reply that has no end never gets one.
pub fn say(
    connection: &mut Connection,
    person: u32,
    id: i64,
    model: &str,
    text: &str,
) -> Result<Option<(Vec<Turn>, i64)>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if one(&transaction, person, id)?.is_none() {
        return Ok(None);
    }
    transaction.execute(
        "UPDATE message SET ended = 'failed' WHERE conversation = ?1 AND role = 'assistant' AND ended IS NULL",
        [id],
    )?;
    let before = turns(&transaction, id)?;
    let turn = i64::try_from(before.len())?;
    insert(&transaction, id, turn, "user", text, "")?;
    insert(&transaction, id, turn + 1, "assistant", "", model)?;
    transaction.execute(
        "UPDATE conversation SET updated = ?2, title = CASE title WHEN '' THEN ?3 ELSE title END WHERE id = ?1",
        params![id, now(), title(text)],
    )?;
    transaction.commit()?;
    Ok(Some((before, turn + 1)))
}

fn insert(transaction: &Transaction<'_>, id: i64, turn: i64, role: &str, content: &str, model: &str) -> Result<()> {
    transaction.execute(
        "INSERT INTO message (conversation, turn, role, content, model) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![id, turn, role, content, model],
    )?;
    Ok(())
}

/// The beginning of a text, on one line.
fn title(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(TITLE) {
        Some((at, _)) => format!("{}…", line[..at].trim_end()),
        None => line,
    }
}

/// Keeps a reply as far as it has come. One that has ended stays as it is: an earlier write may have been overtaken.
pub fn write(connection: &Connection, id: i64, turn: i64, written: &Written) -> Result<()> {
    let Written { answer, steps, thought_ms, ended } = written;
    connection.execute(
        "UPDATE message SET content = ?3, steps = ?4, thought_ms = ?5, ended = ?6
         WHERE conversation = ?1 AND turn = ?2 AND ended IS NULL",
        params![id, turn, answer, serde_json::to_string(steps)?, i64::try_from(*thought_ms)?, ended],
    )?;
    Ok(())
}

/// Replies that a server which is no more was writing will not be gone on with.
pub fn close_all(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE message SET ended = 'failed' WHERE role = 'assistant' AND ended IS NULL", [])?;
    Ok(())
}

/// The token of the link to one of a person's conversations, if there is one.
pub fn share_of(connection: &Connection, person: u32, id: i64) -> Result<Option<String>> {
    let sql = "SELECT token FROM share JOIN conversation ON conversation.id = share.conversation
               WHERE conversation.id = ?1 AND person = ?2";
    Ok(connection.query_row(sql, params![id, person], |row| row.get(0)).optional()?)
}

/// Makes a link to one of a person's conversations; whether it is theirs. The token is kept as it is: it opens no more
/// than what stands beside it.
pub fn share(connection: &Connection, person: u32, id: i64) -> Result<bool> {
    let there = one(connection, person, id)?.is_some();
    if there {
        let sql = "INSERT INTO share (conversation, token, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        connection.execute(sql, params![id, random()?, now()])?;
    }
    Ok(there)
}

/// Takes the link back; whether the conversation is this person's.
pub fn unshare(connection: &Connection, person: u32, id: i64) -> Result<bool> {
    let there = one(connection, person, id)?.is_some();
    if there {
        connection.execute("DELETE FROM share WHERE conversation = ?1", [id])?;
    }
    Ok(there)
}

/// The conversation that a token is the link to.
pub fn shared(connection: &Connection, token: &str) -> Result<Option<Conversation>> {
    let sql = "SELECT id, title FROM conversation JOIN share ON conversation.id = share.conversation WHERE token = ?1";
    let found = connection.query_row(sql, [token], |row| Ok(Conversation { id: row.get(0)?, title: row.get(1)? }));
    Ok(found.optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::database::tests::database;
    use crate::serve::database::tests::person_named;

    #[test]
    fn what_is_said_is_kept_and_is_its_persons() {
        let (_directory, database) = database();
        database
            .now(|c| {
                let (ada, bob) = (person_named(c, "ada")?.id, person_named(c, "bob")?.id);
                let id = create(c, ada)?;
                let (before, turn) = say(c, ada, id, "sums", " 1+1=\n ")?.unwrap();
                assert_eq!((before.len(), turn), (0, 1));
                let steps = vec![Step { ms: 1, tokens: 2, text: "1+1;".into() }];
                let written = Written { answer: "2".into(), steps, thought_ms: 7, ended: Some("stop") };
                write(c, id, turn, &written)?;
                write(c, id, turn, &Written::default())?;
                assert_eq!(say(c, bob, id, "sums", "2+2=")?, None, "it is not his");
                let (before, _) = say(c, ada, id, "sums", "2+2=")?.unwrap();
                let messages = messages(&before);
                assert_eq!(messages[0], Message::new("user", " 1+1=\n "));
                assert_eq!(
                    (messages[1].reasoning_content.as_deref(), messages[1].content.as_str()),
                    (Some("1+1;"), "2")
                );
                assert_eq!(of_person(c, ada)?, [Conversation { id, title: "1+1=".into() }]);
                assert_eq!((of_person(c, bob)?, one(c, bob, id)?), (Vec::new(), None));

                say(c, ada, id, "sums", "3+3=")?.unwrap();
                close_all(c)?;
                let ended = |turn: &Turn| match &turn.from {
                    From::Model { ended, .. } => ended.clone(),
                    From::User => None,
                };
                let ends: Vec<_> = turns(c, id)?.iter().map(ended).collect();
                assert_eq!(ends, [None, Some("stop".into()), None, Some("failed".into()), None, Some("failed".into())]);
                assert!(!delete(c, bob, id)? && delete(c, ada, id)? && turns(c, id)?.is_empty());
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_link_shows_one_conversation_until_it_is_taken_back() {
        let (_directory, database) = database();
        database
            .now(|c| {
                let (ada, bob) = (person_named(c, "ada")?.id, person_named(c, "bob")?.id);
                let id = create(c, ada)?;
                assert!(!share(c, bob, id)? && share_of(c, ada, id)?.is_none());
                assert!(share(c, ada, id)? && share(c, ada, id)?, "a second time changes nothing");
                let token = share_of(c, ada, id)?.unwrap();
                assert_eq!((token.len(), shared(c, &token)?.map(|found| found.id)), (64, Some(id)));
                assert_eq!((share_of(c, bob, id)?, shared(c, "0")?), (None, None));
                assert!(!unshare(c, bob, id)? && shared(c, &token)?.is_some());
                assert!(unshare(c, ada, id)? && shared(c, &token)?.is_none());
                share(c, ada, id)?;
                let another = share_of(c, ada, id)?.unwrap();
                assert_ne!(another, token);
                delete(c, ada, id)?;
                assert_eq!(shared(c, &another)?, None);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn titles_are_short() {
        assert_eq!(title("  a\n b  "), "a b");
        assert_eq!(title(&"word ".repeat(40)).chars().count(), 60);
    }
}
