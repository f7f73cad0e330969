//! People. There are no roles: everybody has the same rights.

use serde::{Deserialize, Serialize};

use crate::policy::Account;

/// Names a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersonId(pub u32);

/// Somebody who has ideas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Who this is.
    pub id: PersonId,
    /// What the others call them; no two have the same.
    pub name: String,
    /// What they would like to be asked about, in a line of theirs; empty while they have said nothing.
    #[serde(default)]
    pub interests: String,
    /// Chip-seconds that they have had, by their shares.
    pub chip_s: f64,
    /// What the policy remembers of them.
    #[serde(default)]
    pub account: Account,
}

/// A person's part in a run; the parts of its owners add up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Whose part.
    pub person: PersonId,
    /// How much of what the run costs is charged to them.
    pub share: f64,
}

/// An equal part for everybody.
pub(crate) fn equal_shares(people: &[PersonId]) -> Vec<Share> {
    people.iter().map(|&person| Share { person, share: 1.0 / people.len() as f64 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_of_an_older_lab_begin_with_a_new_account() {
        let ada: Person = serde_json::from_str(r#"{"id":1,"name":"Ada","chip_s":5.0}"#).unwrap();
        assert_eq!(ada.account, Account::default());
    }
}
