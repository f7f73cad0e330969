//! `lab.db`: what the lab knows, in SQLite.
//!
//! Each thing is a row with its number and its JSON; a view next to each table has the columns that people ask for. What one
//! event changes is one transaction, made before any of its actions is carried out. Decisions can be added only.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::run::RunId;

/// Each brings the database to the next version, from a file that has none.
const MIGRATIONS: [&str; 2] = [include_str!("store/1.sql"), include_str!("store/2.sql")];

/// The lab's database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens or makes the database, and brings it to this version. Nobody but its owner may read it.
    ///
    /// # Errors
    /// When it can't be opened, is damaged, or was made by a newer minke.
    pub fn open(path: &Path) -> Result<Store> {
        let said = |e: rusqlite::Error| failed(path, &e);
        make_private(path).map_err(|e| failed(path, &e))?;
        let mut connection = Connection::open(path).map_err(said)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(said)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(said)?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(said)?;
        let version: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(said)?;
        if version > MIGRATIONS.len() {
            return Err(Error::new(format!(
                "{} is of version {version}, but this minke knows up to {}; use a newer minke",
                path.display(),
                MIGRATIONS.len()
            )));
        }
        for (i, migration) in MIGRATIONS.iter().enumerate().skip(version) {
            let transaction = connection.transaction().map_err(said)?;
            transaction.execute_batch(migration).map_err(said)?;
            transaction.pragma_update(None, "user_version", i + 1).map_err(said)?;
            transaction.commit().map_err(said)?;
        }
        Ok(Store { connection, path: path.to_path_buf() })
    }

    /// The lab as it was kept last, with so many chips from now on.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn load(&self, chips: u32) -> Result<Lab> {
        let decisions: Option<u64> =
            self.ask(|c| c.query_row("SELECT max(id) FROM decision", [], |row| row.get(0)).optional())?.flatten();
        Ok(Lab::restored(
            chips,
            self.all("person")?,
            self.all("idea")?,
            self.all("link")?,
            self.all("run")?,
            self.all("advice")?,
            decisions.unwrap_or(0),
        ))
    }

    /// Keeps what has changed; all of it, or nothing.
    ///
    /// # Errors
    /// When it can't be written. What is in memory is then ahead of what is kept, and must be loaded anew.
    pub fn keep(&mut self, lab: &mut Lab) -> Result<()> {
        let changes = lab.take_changes();
        let path = self.path.clone();
        let said = |e: rusqlite::Error| failed(&path, &e);
        let transaction = self.connection.transaction().map_err(said)?;
        let put = |table: &str, id: u32, json: String| {
            let sql =
                format!("INSERT INTO {table} (id, json) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET json = ?2");
            transaction.prepare_cached(&sql).and_then(|mut put| put.execute(params![id, json])).map_err(said)
        };
        for id in &changes.people {
            put("person", id.0, json(&lab.people()[id]))?;
        }
        for id in &changes.ideas {
            put("idea", id.0, json(&lab.ideas()[id]))?;
        }
        for id in &changes.links {
            put("link", id.0, json(&lab.links()[id]))?;
        }
        for id in &changes.runs {
            put("run", id.0, json(&lab.runs()[id]))?;
        }
        for id in &changes.advice {
            put("advice", id.0, json(&lab.advice()[id]))?;
        }
        for decision in &changes.decisions {
            let Decision { id, at, run, .. } = decision;
            transaction
                .prepare_cached("INSERT INTO decision (id, at, run, json) VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut put| put.execute(params![id, at, run.0, json(decision)]))
                .map_err(said)?;
        }
        transaction.commit().map_err(said)
    }

    /// What was decided about a run, or about all of them, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn decisions(&self, run: Option<RunId>) -> Result<Vec<Decision>> {
        let rows: Vec<String> = self.ask(|c| {
            let mut select = c.prepare_cached("SELECT json FROM decision WHERE run = ifnull(?1, run) ORDER BY id")?;
            select.query_map([run.map(|run| run.0)], |row| row.get(0))?.collect()
        })?;
        rows.iter().map(|row| self.parse("decision", row)).collect()
    }

    fn all<T: DeserializeOwned>(&self, table: &str) -> Result<Vec<T>> {
        let rows: Vec<String> = self.ask(|c| {
            let mut select = c.prepare(&format!("SELECT json FROM {table} ORDER BY id"))?;
            select.query_map([], |row| row.get(0))?.collect()
        })?;
        rows.iter().map(|row| self.parse(table, row)).collect()
    }

    fn ask<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        query(&self.connection).map_err(|e| failed(&self.path, &e))
    }

    fn parse<T: DeserializeOwned>(&self, table: &str, row: &str) -> Result<T> {
        serde_json::from_str(row).map_err(|e| failed(&self.path, &format!("a row of {table} can't be read: {e}")))
    }
}

/// Makes a file that nobody but its owner may read, if there is none, and its directory.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // SQLite gives its other files the mode of this one.
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the lab's own words are JSON")
}

fn failed(path: &Path, what: &dyn std::fmt::Display) -> Error {
    Error::new(format!(
        "{}: {what}; make sure that it can be read and written, or put back a copy of it",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn what_was_kept_is_there_again_and_decisions_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lab.db");
        let mut store = Store::open(&path).unwrap();
        let mut lab = store.load(2).unwrap();
        lab.on(Event::Arrived { name: "Ada".into() }, 1000);
        store.keep(&mut lab).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.load(2).unwrap().people(), lab.people());
        store.connection.execute("INSERT INTO decision (id, at, run, json) VALUES (1, 1, 1, '{}')", []).unwrap();
        for sql in ["UPDATE decision SET at = 2", "DELETE FROM decision"] {
            let error = store.connection.execute(sql, []).unwrap_err().to_string();
            assert!(error.contains("decisions stay"), "{error}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_an_earlier_minke_kept_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lab.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute("INSERT INTO person VALUES (1, '{\"id\":1,\"name\":\"Ada\",\"chip_s\":0.0}')", []).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.load(1).unwrap().people()[&crate::PersonId(1)].interests, "");
        let view = store.connection.query_row("SELECT name || interests FROM people", [], |row| row.get(0));
        assert_eq!(view, Ok("Ada".to_string()));
    }

    #[test]
    fn files_that_are_no_database_or_newer_are_refused_in_a_sentence() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lab.db");
        std::fs::write(&path, "not a database, and long enough to be sure of it").unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("lab.db: ") && error.contains("put back a copy"), "{error}");
        std::fs::remove_file(&path).unwrap();
        let store = Store::open(&path).unwrap();
        store.connection.pragma_update(None, "user_version", 99).unwrap();
        drop(store);
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("version 99") && error.contains("newer minke"), "{error}");
    }
}
