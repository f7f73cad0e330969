//! Who is who: people, and the secrets that they log in and call with. Of a secret only its SHA-256 is kept; it has 256
//! random bits, so there is nothing to guess it by. The people themselves are the lab's; its view `people` has their names.

use anyhow::{Context, Result, anyhow};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use super::database::now;
use crate::units::hexadecimal;

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub id: u32,
    pub name: String,
    /// What they would like to be asked about.
    pub interests: String,
}

/// What a secret is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Logs in, once.
    Link,
    /// Stays logged in: a cookie.
    Session,
    /// Calls the API.
    Key,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Link => "link",
            Kind::Session => "session",
            Kind::Key => "key",
        }
    }
}

/// An API key as its person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: i64,
    pub label: String,
    pub created: i64,
    pub used: Option<i64>,
}

/// Days that a session lasts.
pub const SESSION_DAYS: i64 = 30;

const DAY: i64 = 24 * 60 * 60;

/// 256 random bits as hexadecimal digits.
pub fn random() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random numbers ({error})"))?;
    Ok(hexadecimal(&bytes))
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// What forms of a session must carry: nobody who can't read the cookie can make it up.
pub fn csrf(session: &str) -> String {
    hexadecimal(&hash(&format!("csrf {session}")))
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub fn equal(a: &str, b: &str) -> bool {
    hash(a).iter().zip(hash(b)).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// The person whose id, name and interests are these columns and the next two.
fn person(row: &Row<'_>, column: usize) -> rusqlite::Result<Person> {
    Ok(Person { id: row.get(column)?, name: row.get(column + 1)?, interests: row.get(column + 2)? })
}

/// Everybody.
pub fn people(connection: &Connection) -> Result<Vec<Person>> {
    let mut statement = connection.prepare("SELECT id, name, interests FROM people ORDER BY name")?;
    let people = statement.query_map([], |row| person(row, 0))?;
    Ok(people.collect::<Result<_, _>>()?)
}

/// A new secret for a person; `days` is how long it is good for, for ever if it is none.
pub fn issue(connection: &Connection, kind: Kind, person: u32, label: &str, days: Option<i64>) -> Result<String> {
    let (secret, now) = (random()?, now());
    // What has expired is of no use to anybody.
    connection.execute("DELETE FROM credential WHERE expires <= ?1", [now])?;
    connection.execute(
        "INSERT INTO credential (kind, hash, person, label, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![kind.name(), hash(&secret), person, label, now, days.map(|days| now + days * DAY)],
    )?;
    Ok(secret)
}

/// Whose secret this is, if it is one and has not expired.
pub fn owner(connection: &Connection, kind: Kind, secret: &str) -> Result<Option<Person>> {
    let now = now();
    let found = connection.query_row(
        "SELECT credential.id, credential.used, people.id, people.name, people.interests FROM credential
         JOIN people ON people.id = credential.person
         WHERE hash = ?1 AND kind = ?2 AND (expires IS NULL OR expires > ?3)",
        params![hash(secret), kind.name(), now],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?, person(row, 2)?)),
    );
    let Some((id, used, person)) = found.optional()? else { return Ok(None) };
    // To the minute is near enough, and saves the disk.
    if kind != Kind::Link && used.is_none_or(|used| used < now - 60) {
        connection.execute("UPDATE credential SET used = ?1 WHERE id = ?2", params![now, id])?;
    }
    Ok(Some(person))
}

/// Turns a login link into a session; the link is used up, and of several that try only one succeeds.
pub fn log_in(connection: &mut Connection, link: &str) -> Result<Option<String>> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let person: Option<u32> = transaction
        .query_row(
            "DELETE FROM credential WHERE hash = ?1 AND kind = 'link' AND expires > ?2 RETURNING person",
            params![hash(link), now()],
            |row| row.get(0),
        )
        .optional()?;
    let Some(person) = person else { return Ok(None) };
    let session = issue(&transaction, Kind::Session, person, "", Some(SESSION_DAYS))?;
    transaction.commit()?;
    Ok(Some(session))
}

/// Ends a session.
pub fn log_out(connection: &Connection, session: &str) -> Result<()> {
    connection.execute("DELETE FROM credential WHERE hash = ?1 AND kind = 'session'", params![hash(session)])?;
    Ok(())
}

/// A person's API keys, newest first.
pub fn keys(connection: &Connection, person: u32) -> Result<Vec<Key>> {
    let mut statement = connection.prepare(
        "SELECT id, label, created, used FROM credential WHERE person = ?1 AND kind = 'key' ORDER BY id DESC",
    )?;
    let keys = statement.query_map([person], |row| {
        Ok(Key { id: row.get(0)?, label: row.get(1)?, created: row.get(2)?, used: row.get(3)? })
    })?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// Takes back one of a person's keys; whether it was there.
pub fn revoke(connection: &Connection, person: u32, key: i64) -> Result<bool> {
    let deleted = connection
        .execute("DELETE FROM credential WHERE id = ?1 AND person = ?2 AND kind = 'key'", params![key, person])
        .context("the key can't be deleted")?;
    Ok(deleted > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::database::tests::{database, person_named};

    #[test]
    fn a_link_logs_in_once_and_only_as_long_as_it_is_good() {
        let (_directory, database) = database();
        database
            .now(|c| {
                let ada = person_named(c, "ada")?;
                assert_eq!(person_named(c, "ada")?, ada);
                let link = issue(c, Kind::Link, ada.id, "", Some(1))?;
                assert_eq!(owner(c, Kind::Link, &link)?, Some(ada.clone()));
                assert_eq!((owner(c, Kind::Session, &link)?, owner(c, Kind::Key, &link)?), (None, None));
                let session = log_in(c, &link)?.unwrap();
                assert_eq!((log_in(c, &link)?, owner(c, Kind::Link, &link)?), (None, None));
                assert_eq!(owner(c, Kind::Session, &session)?, Some(ada.clone()));
                log_out(c, &session)?;
                assert_eq!(owner(c, Kind::Session, &session)?, None);
                let late = issue(c, Kind::Link, ada.id, "", Some(0))?;
                assert_eq!((log_in(c, &late)?, owner(c, Kind::Link, &late)?), (None, None));
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn keys_are_their_persons_and_are_not_kept() {
        let (_directory, database) = database();
        database
            .now(|c| {
                let (ada, bob) = (person_named(c, "ada")?, person_named(c, "bob")?);
                let secret = issue(c, Kind::Key, ada.id, "laptop", None)?;
                assert_eq!((secret.len(), secret == issue(c, Kind::Key, ada.id, "", None)?), (64, false));
                assert_eq!(owner(c, Kind::Key, &secret)?, Some(ada.clone()));
                let found: Vec<Vec<u8>> = c
                    .prepare("SELECT hash FROM credential")?
                    .query_map([], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                assert!(found.iter().all(|hash| hash.len() == 32 && hexadecimal(hash) != secret));
                let key = keys(c, ada.id)?.into_iter().find(|key| key.label == "laptop").unwrap();
                assert!(key.used.is_some());
                assert!(!revoke(c, bob.id, key.id)? && owner(c, Kind::Key, &secret)?.is_some());
                assert!(revoke(c, ada.id, key.id)? && owner(c, Kind::Key, &secret)?.is_none());
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn secrets_are_compared_whole() {
        assert!(equal("abc", "abc") && !equal("abc", "abd") && !equal("abc", "ab") && equal("", ""));
        assert_ne!(csrf("a"), csrf("b"));
    }
}
