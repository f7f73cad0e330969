//! Battles as they are kept: what was asked, what both answered and how they thought, and the vote. Until its vote a battle
//! is its person's alone, and blind; from then on everybody may read it.

use anyhow::Result;
use minke_arena::Outcome;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::serve::credentials::random;
use crate::serve::database::now;
use crate::serve::steps::Step;

/// Most battles in a list.
const LISTED: u32 = 200;

/// A battle.
#[derive(Clone, Debug, PartialEq)]
pub struct Battle {
    pub id: String,
    pub person: u32,
    /// The person's name.
    pub name: String,
    pub prompt: String,
    /// Seconds since 1970.
    pub created: i64,
    /// A, on the left, and B.
    pub sides: [Side; 2],
    pub verdict: Option<Verdict>,
}

/// One of the two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    pub model: String,
    /// Gives the same reply again.
    pub seed: u64,
    pub written: Written,
}

/// What a reply came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    pub answer: String,
    pub steps: Vec<Step>,
    pub thought_ms: u64,
    /// SHA-256 of the model's files.
    pub checksum: String,
    /// `stop` or `length`; `stopped` or `failed` where there is nothing to vote on; none while it is being written.
    pub ended: Option<String>,
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub answers: Outcome,
    /// None where neither has thought.
    pub thoughts: Option<Outcome>,
    /// When, in seconds since 1970.
    pub at: i64,
}

/// What becomes of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voted {
    Counted,
    /// This person has no such battle.
    Missing,
    /// There was a vote already.
    Again,
    /// A reply is still being written.
    TooEarly,
    /// A reply broke off.
    Failed,
}

impl Battle {
    /// Whether both have replied to their end.
    pub fn is_complete(&self) -> bool {
        self.sides.iter().all(|side| matches!(side.written.ended.as_deref(), Some("stop" | "length")))
    }

    /// Whether a reply is still being written.
    pub fn is_under_way(&self) -> bool {
        self.sides.iter().any(|side| side.written.ended.is_none())
    }

    /// Whether either has thought.
    pub fn has_thoughts(&self) -> bool {
        self.sides.iter().any(|side| !side.written.steps.is_empty())
    }

    /// Whether this person may read it.
    pub fn is_open_to(&self, person: u32) -> bool {
        self.person == person || self.verdict.is_some()
    }
}

/// Begins a battle between two models with their seeds; its id.
pub fn begin(connection: &mut Connection, person: u32, prompt: &str, sides: &[(String, u64); 2]) -> Result<String> {
    let id = random()?[..16].to_string();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = "INSERT INTO battle (id, person, prompt, created) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(sql, params![id, person, prompt, now()])?;
    for (side, (model, seed)) in sides.iter().enumerate() {
        let sql = "INSERT INTO battle_side (battle, side, model, seed) VALUES (?1, ?2, ?3, ?4)";
        transaction.execute(sql, params![id, side as u32, model, seed.cast_signed()])?;
    }
    transaction.commit()?;
    Ok(id)
}

/// Has two others fight a battle that has not come to words.
pub fn redraw(connection: &mut Connection, id: &str, sides: &[(String, u64); 2]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (side, (model, seed)) in sides.iter().enumerate() {
        let sql = "UPDATE battle_side SET model = ?3, seed = ?4 WHERE battle = ?1 AND side = ?2";
        transaction.execute(sql, params![id, side as u32, model, seed.cast_signed()])?;
    }
    Ok(transaction.commit()?)
}

/// Keeps what both have replied.
pub fn finish(connection: &mut Connection, id: &str, written: &[Written; 2]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (side, written) in written.iter().enumerate() {
        let Written { answer, steps, thought_ms, checksum, ended } = written;
        let (steps, thought_ms) = (serde_json::to_string(steps)?, i64::try_from(*thought_ms)?);
        transaction.execute(
            "UPDATE battle_side SET answer = ?3, steps = ?4, thought_ms = ?5, checksum = ?6, ended = ?7
             WHERE battle = ?1 AND side = ?2",
            params![id, side as u32, answer, steps, thought_ms, checksum, ended],
        )?;
    }
    Ok(transaction.commit()?)
}

/// Ends a battle that can't be voted on; `ended` says how.
pub fn give_up(connection: &Connection, id: &str, ended: &str) -> Result<()> {
    connection.execute("UPDATE battle_side SET ended = ?2 WHERE battle = ?1", params![id, ended])?;
    Ok(())
}

/// Battles that a server which is no more was fighting will not be gone on with.
pub fn close_all(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE battle_side SET ended = 'failed' WHERE ended IS NULL", [])?;
    Ok(())
}

/// One battle, whosever it is.
pub fn one(connection: &Connection, id: &str) -> Result<Option<Battle>> {
    let sql = format!("{SELECT} WHERE battle.id = ?1");
    let head = connection.query_row(&sql, [id], head).optional()?;
    head.map(|head| with_sides(connection, head)).transpose()
}

/// A model's battles that were voted on, the latest first.
pub fn of_model(connection: &Connection, model: &str) -> Result<Vec<Battle>> {
    let sql = format!(
        "{SELECT} WHERE voted IS NOT NULL AND battle.id IN (SELECT battle FROM battle_side WHERE model = ?1)
         ORDER BY voted DESC, battle.id LIMIT {LISTED}"
    );
    let mut statement = connection.prepare(&sql)?;
    let heads: Vec<Battle> = statement.query_map([model], head)?.collect::<Result<_, _>>()?;
    heads.into_iter().map(|head| with_sides(connection, head)).collect()
}

/// A person's battles that can be voted on, the latest first.
pub fn waiting(connection: &Connection, person: u32) -> Result<Vec<Battle>> {
    let sql = format!(
        "{SELECT} WHERE voted IS NULL AND person = ?1 AND NOT EXISTS
             (SELECT 1 FROM battle_side WHERE battle = battle.id AND (ended IS NULL OR ended NOT IN ('stop', 'length')))
         ORDER BY battle.created DESC, battle.id LIMIT {LISTED}"
    );
    let mut statement = connection.prepare(&sql)?;
    let heads: Vec<Battle> = statement.query_map([person], head)?.collect::<Result<_, _>>()?;
    heads.into_iter().map(|head| with_sides(connection, head)).collect()
}

/// A person votes on a battle of theirs; `append` puts the vote into the log. Either both know of it or neither does, but
/// for a crash between the two: then the log has it, and `append` says so by returning false.
pub fn vote(
    connection: &mut Connection,
    person: u32,
    id: &str,
    answers: Outcome,
    thoughts: Option<Outcome>,
    append: impl FnOnce(&Battle, Option<Outcome>) -> Result<bool>,
) -> Result<Voted> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(battle) = one(&transaction, id)?.filter(|battle| battle.person == person) else {
        return Ok(Voted::Missing);
    };
    if battle.verdict.is_some() {
        return Ok(Voted::Again);
    }
    if !battle.is_complete() {
        return Ok(if battle.is_under_way() { Voted::TooEarly } else { Voted::Failed });
    }
    let thoughts = thoughts.filter(|_| battle.has_thoughts());
    transaction.execute(
        "UPDATE battle SET answers = ?2, thoughts = ?3, voted = ?4 WHERE id = ?1",
        params![id, answers.name(), thoughts.map(Outcome::name), now()],
    )?;
    let is_new = append(&battle, thoughts)?;
    Transaction::commit(transaction)?;
    Ok(if is_new { Voted::Counted } else { Voted::Again })
}

const SELECT: &str = "SELECT battle.id, person, people.name, prompt, battle.created, answers, thoughts, voted
    FROM battle JOIN people ON people.id = person";

fn head(row: &Row<'_>) -> rusqlite::Result<Battle> {
    let outcome = |at: usize| {
        Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(at)?.and_then(|name| Outcome::from_name(&name)))
    };
    let (answers, thoughts, voted) = (outcome(5)?, outcome(6)?, row.get::<_, Option<i64>>(7)?);
    Ok(Battle {
        id: row.get(0)?,
        person: row.get(1)?,
        name: row.get(2)?,
        prompt: row.get(3)?,
        created: row.get(4)?,
        sides: Default::default(),
        verdict: answers.zip(voted).map(|(answers, at)| Verdict { answers, thoughts, at }),
    })
}

fn with_sides(connection: &Connection, mut battle: Battle) -> Result<Battle> {
    let sql = "SELECT model, seed, checksum, answer, steps, thought_ms, ended FROM battle_side
               WHERE battle = ?1 ORDER BY side";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([&battle.id])?;
    for side in &mut battle.sides {
        let Some(row) = rows.next()? else { break };
        let (seed, steps): (i64, String) = (row.get(1)?, row.get(4)?);
        *side = Side {
            model: row.get(0)?,
            seed: seed.cast_unsigned(),
            written: Written {
                answer: row.get(3)?,
                steps: serde_json::from_str(&steps)?,
                thought_ms: u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0),
                checksum: row.get(2)?,
                ended: row.get(6)?,
            },
        };
    }
    Ok(battle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::database::tests::{database, person_named};

    fn written(ended: &str) -> Written {
        let steps = vec![Step { ms: 1, tokens: 2, text: "1+1=2;".into() }];
        let ended = Some(ended.to_string());
        Written { answer: "2".into(), steps, thought_ms: 7, checksum: "5e".into(), ended }
    }

    #[test]
    fn a_battle_is_voted_on_once_by_its_person_when_both_have_ended() {
        let (_directory, database) = database();
        database
            .now(|c| {
                let (ada, bob) = (person_named(c, "ada")?.id, person_named(c, "bob")?.id);
                let sides = [("x".to_string(), 1), ("y".to_string(), u64::MAX)];
                let id = begin(c, ada, "1+1=", &sides)?;
                let mut appended = 0;
                let mut say = |c: &mut Connection, person, id: &str| {
                    vote(c, person, id, Outcome::Left, Some(Outcome::Tie), |battle, thoughts| {
                        assert_eq!((battle.id.as_str(), thoughts), (id, Some(Outcome::Tie)));
                        appended += 1;
                        Ok(true)
                    })
                };
                assert_eq!(say(c, ada, &id)?, Voted::TooEarly);
                finish(c, &id, &[written("stop"), written("length")])?;
                assert!(!one(c, &id)?.unwrap().is_open_to(bob) && of_model(c, "x")?.is_empty());
                assert_eq!((waiting(c, ada)?.len(), waiting(c, bob)?.len()), (1, 0));
                assert_eq!((say(c, bob, &id)?, say(c, ada, "0")?), (Voted::Missing, Voted::Missing));
                let refused = vote(c, ada, &id, Outcome::Tie, None, |_, _| anyhow::bail!("the disk is full"));
                assert!(refused.is_err() && one(c, &id)?.unwrap().verdict.is_none());
                assert_eq!((say(c, ada, &id)?, say(c, ada, &id)?, appended), (Voted::Counted, Voted::Again, 1));
                let battle = one(c, &id)?.unwrap();
                assert!(battle.is_open_to(bob) && battle.name == "ada");
                assert_eq!(waiting(c, ada)?, []);
                assert_eq!(battle.sides[1], Side { model: "y".into(), seed: u64::MAX, written: written("length") });
                assert_eq!(battle.verdict.map(|verdict| verdict.answers), Some(Outcome::Left));
                assert_eq!((of_model(c, "y")?, of_model(c, "z")?.len()), (vec![battle], 0));
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_battle_that_failed_is_not_voted_on() {
        let (_directory, database) = database();
        database
            .now(|c| {
                let ada = person_named(c, "ada")?.id;
                let sides = [("x".to_string(), 1), ("y".to_string(), 2)];
                for how in ["failed", "stopped", "closed"] {
                    let id = begin(c, ada, "1+1=", &sides)?;
                    if how == "closed" {
                        close_all(c)?
                    } else {
                        give_up(c, &id, how)?
                    }
                    assert_eq!(vote(c, ada, &id, Outcome::Left, None, |_, _| Ok(true))?, Voted::Failed, "{how}");
                }
                // Where neither has thought, there is no opinion on thoughts.
                let id = begin(c, ada, "1+1=", &sides)?;
                let bare = || Written { steps: Vec::new(), ..written("stop") };
                finish(c, &id, &[bare(), bare()])?;
                vote(c, ada, &id, Outcome::Left, Some(Outcome::Left), |_, thoughts| {
                    assert_eq!(thoughts, None);
                    Ok(true)
                })?;
                // The log has it already: the page learns of it, and nothing is counted twice.
                let id = begin(c, ada, "1+1=", &sides)?;
                finish(c, &id, &[bare(), bare()])?;
                assert_eq!(vote(c, ada, &id, Outcome::Left, None, |_, _| Ok(false))?, Voted::Again);
                assert!(one(c, &id)?.unwrap().verdict.is_some());
                Ok(())
            })
            .unwrap();
    }
}
