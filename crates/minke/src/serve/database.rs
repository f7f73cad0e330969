//! `lab.db`: people, what they log in with, what they said. SQLite with a write-ahead log, readable by its owner alone.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rusqlite::Connection;

use super::error::Failure;
use super::loaded::blocking;

/// How the server's tables came to be, one step for each version of them; a step is never changed, only followed.
const STEPS: [&str; 2] = [
    "
    CREATE TABLE credential (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('link', 'session', 'key')),
        hash BLOB NOT NULL UNIQUE,
        person INTEGER NOT NULL REFERENCES person (id),
        label TEXT NOT NULL DEFAULT '',
        created INTEGER NOT NULL,
        expires INTEGER,
        used INTEGER
    ) STRICT;
    CREATE TABLE conversation (
        id INTEGER PRIMARY KEY,
        person INTEGER NOT NULL REFERENCES person (id),
        title TEXT NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX conversation_of_person ON conversation (person, updated);
    CREATE TABLE message (
        conversation INTEGER NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
        turn INTEGER NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        content TEXT NOT NULL,
        model TEXT NOT NULL DEFAULT '',
        steps TEXT NOT NULL DEFAULT '[]',
        thought_ms INTEGER NOT NULL DEFAULT 0,
        ended TEXT,
        PRIMARY KEY (conversation, turn)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE share (
        conversation INTEGER PRIMARY KEY REFERENCES conversation (id) ON DELETE CASCADE,
        token TEXT NOT NULL UNIQUE,
        created INTEGER NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE battle (
        id TEXT PRIMARY KEY,
        person INTEGER NOT NULL REFERENCES person (id),
        prompt TEXT NOT NULL,
        created INTEGER NOT NULL,
        answers TEXT,
        thoughts TEXT,
        voted INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE battle_side (
        battle TEXT NOT NULL REFERENCES battle (id) ON DELETE CASCADE,
        side INTEGER NOT NULL CHECK (side IN (0, 1)),
        model TEXT NOT NULL,
        seed INTEGER NOT NULL,
        checksum TEXT NOT NULL DEFAULT '',
        answer TEXT NOT NULL DEFAULT '',
        steps TEXT NOT NULL DEFAULT '[]',
        thought_ms INTEGER NOT NULL DEFAULT 0,
        ended TEXT,
        PRIMARY KEY (battle, side)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX battle_of_model ON battle_side (model);
",
];
/// The version that the last step makes.
const LATEST: u32 = STEPS.len() as u32;

/// The database, for one at a time.
#[derive(Clone)]
pub struct Database(Arc<Mutex<Connection>>);

impl Database {
    /// Opens the database, which the lab's store has made for its owner alone, and brings our tables up to date.
    pub fn open(path: &Path) -> Result<Database> {
        let strange =
            || format!("{} can't be used as minke's database; if it is something else, move it away", path.display());
        let mut connection = Connection::open(path).with_context(strange)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL").with_context(strange)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        migrate(&mut connection).with_context(strange)?;
        Ok(Database(Arc::new(Mutex::new(connection))))
    }

    /// Does something with it now, which may wait for the disk.
    pub fn now<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something with it on a thread that may wait for the disk.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let this = self.clone();
        blocking(move || this.now(work)).await
    }
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.execute_batch("CREATE TABLE IF NOT EXISTS schema_serve (version INTEGER NOT NULL) STRICT")?;
    let version: u32 =
        transaction.query_row("SELECT coalesce(max(version), 0) FROM schema_serve", [], |row| row.get(0))?;
    if version > LATEST {
        bail!("a newer minke has written it (version {version}, this one knows {LATEST}); use that one");
    }
    for step in &STEPS[version as usize..] {
        transaction.execute_batch(step)?;
    }
    transaction.execute("DELETE FROM schema_serve", [])?;
    transaction.execute("INSERT INTO schema_serve VALUES (?1)", [LATEST])?;
    Ok(transaction.commit()?)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub mod tests {
    use std::fs;

    use super::*;
    use crate::serve::credentials::Person;

    /// A database of a test's own.
    pub fn database() -> (tempfile::TempDir, Database) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("home/lab.db");
        drop(minke_lab::Store::open(&path).unwrap());
        let database = Database::open(&path).unwrap();
        (directory, database)
    }

    /// The person of this name, in the lab's table.
    pub fn person_named(connection: &Connection, name: &str) -> Result<Person> {
        let all = crate::serve::credentials::people(connection)?;
        if let Some(person) = all.into_iter().find(|person| person.name == name) {
            return Ok(person);
        }
        connection.execute("INSERT INTO person (json) VALUES (json_object('name', ?1))", [name])?;
        person_named(connection, name)
    }

    #[test]
    fn it_is_made_once_and_is_its_owners_alone() {
        let (directory, database) = database();
        database.now(|c| person_named(c, "ada")).unwrap();
        drop(database);
        let path = directory.path().join("home/lab.db");
        let again = Database::open(&path).unwrap();
        let people: i64 = again.now(|c| Ok(c.query_row("SELECT count(*) FROM person", [], |row| row.get(0))?)).unwrap();
        assert_eq!(people, 1);
        #[cfg(unix)]
        for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
            use std::os::unix::fs::PermissionsExt;
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
        again.now(|c| Ok(c.execute("UPDATE schema_serve SET version = 99", [])?)).unwrap();
        drop(again);
        let error = format!("{:#}", Database::open(&path).err().unwrap());
        assert!(error.contains("a newer minke has written it (version 99"), "{error}");
    }
}
