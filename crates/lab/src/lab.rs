//! What the lab knows, and how an event changes it.
//!
//! Accounting comes first, then the event, then what is overdue, then who gets the chips. An event that is refused changes
//! nothing but the accounts.

mod links;
mod queue;
mod runs;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};

use crate::action::Action;
use crate::advice::{Advice, AdviceId};
use crate::decision::{Decision, Verb};
use crate::event::Event;
use crate::idea::{Idea, IdeaId, IdeaStatus};
use crate::link::{Link, LinkId};
use crate::person::{Person, PersonId};
use crate::policy::{Account, Pace, Reason};
use crate::repeats::{self, Repeat};
use crate::run::{Fingerprint, Run, RunId};

/// Why an event was refused: a sentence for the one who caused it.
type Refusal = String;

/// Longest sentence of an idea and longest message, in bytes.
const TEXT_MAX: usize = 2_000;

/// Longest name of a person, in characters.
pub const NAME_MAX: usize = 60;

/// Longest line on a person's interests, in characters.
pub const INTERESTS_MAX: usize = 200;

/// While nothing else happens, chips are charged this often.
const CHARGE_MS: u64 = 10_000;

/// Ideas, people and runs, and who gets the chips.
#[derive(Debug, Default)]
pub struct Lab {
    chips: u32,
    pace: Pace,
    /// The time of the last event; the lab's clock does not go backwards.
    now: u64,
    /// When chips were last charged.
    charged: u64,
    pub(crate) people: BTreeMap<PersonId, Person>,
    pub(crate) ideas: BTreeMap<IdeaId, Idea>,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) advice: BTreeMap<AdviceId, Advice>,
    /// How many decisions there are so far.
    pub(crate) decisions: u64,
    changes: Changes,
}

/// What was changed since it was last kept.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub people: BTreeSet<PersonId>,
    pub ideas: BTreeSet<IdeaId>,
    pub links: BTreeSet<LinkId>,
    pub runs: BTreeSet<RunId>,
    pub advice: BTreeSet<AdviceId>,
    pub decisions: Vec<Decision>,
}

impl Lab {
    /// The same, with chips that change hands at this pace.
    pub fn at(self, pace: Pace) -> Lab {
        Lab { pace, ..self }
    }

    /// A lab with so many chips, and nobody in it yet.
    pub fn new(chips: u32) -> Lab {
        Lab { chips, ..Lab::default() }
    }

    /// Takes what happened at `now`, and says what to do.
    pub fn on(&mut self, event: Event, now: u64) -> Vec<Action> {
        self.now = self.now.max(now);
        // An idle second is not worth a write.
        if event != Event::Tick || self.now >= self.charged + CHARGE_MS {
            self.charge();
        }
        let mut actions = self.take(event).unwrap_or_else(|why| vec![Action::Refuse(why)]);
        self.hurry(&mut actions);
        self.schedule(&mut actions);
        actions
    }

    fn take(&mut self, event: Event) -> Result<Vec<Action>, Refusal> {
        match event {
            Event::Arrived { name } => self.arrive(&name),
            Event::Introduced { by, interests } => self.introduce(by, &interests),
            Event::Try { by, idea, command, chips, tree, fingerprint } => {
                self.try_idea(by, idea, command, chips, tree, fingerprint)
            }
            Event::Advise { by, sentence, shown } => self.advise(by, sentence, shown),
            Event::Choose { by, advice, choice } => self.choose(by, advice, choice),
            Event::Ask { by, kind, idea, to, message } => self.ask(by, kind, idea, to, message),
            Event::Answer { by, link, yes } => self.answer(by, link, yes),
            Event::Withdraw { by, link } => self.withdraw(by, link),
            Event::Leave { by, idea } => self.leave(by, idea),
            Event::Park { by, idea, parked } => self.park(by, idea, parked),
            Event::Stop { by, run } => self.stop(by, run),
            Event::Report { run, segment, report } => {
                self.report(run, segment, report);
                Ok(Vec::new())
            }
            Event::Restarted => Ok(self.orders_again()),
            Event::Tick => Ok(Vec::new()),
        }
    }

    /// Somebody is new. A name can be had once.
    fn arrive(&mut self, name: &str) -> Result<Vec<Action>, Refusal> {
        let name = name.trim();
        if !is_name(name) {
            return Err(format!("a name has 1 to {NAME_MAX} characters; choose another"));
        }
        if self.people.values().any(|person| person.name.eq_ignore_ascii_case(name)) {
            return Err(format!("there is somebody called {name} already; choose another name"));
        }
        let id = PersonId(next(self.people.last_key_value().map(|(id, _)| id.0)));
        let (interests, account) = (String::new(), Account::default());
        self.people.insert(id, Person { id, name: name.to_string(), interests, chip_s: 0.0, account });
        self.changes.people.insert(id);
        Ok(vec![Action::Welcome(id)])
    }

    /// Somebody says what they would like to be asked about, or nothing any more.
    fn introduce(&mut self, by: PersonId, interests: &str) -> Result<Vec<Action>, Refusal> {
        let interests = interests.trim();
        if interests.chars().count() > INTERESTS_MAX || interests.chars().any(char::is_control) {
            return Err(format!("interests are one line of at most {INTERESTS_MAX} characters; shorten it"));
        }
        self.person(by)?;
        if let Some(person) = self.people.get_mut(&by) {
            person.interests = interests.to_string();
            self.changes.people.insert(by);
        }
        Ok(vec![Action::Done])
    }

    /// What runs and ideas there are like this one, to be shown before a chip is spent.
    pub fn repeats(&self, sentence: &str, fingerprint: &Fingerprint) -> Vec<Repeat> {
        repeats::find(&self.ideas, &self.runs, sentence, fingerprint)
    }

    /// How fast they change hands.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// How many chips there are.
    pub fn chips(&self) -> u32 {
        self.chips
    }

    /// The people, by id.
    pub fn people(&self) -> &BTreeMap<PersonId, Person> {
        &self.people
    }

    /// The ideas, by id.
    pub fn ideas(&self) -> &BTreeMap<IdeaId, Idea> {
        &self.ideas
    }

    /// The links, by id.
    pub fn links(&self) -> &BTreeMap<LinkId, Link> {
        &self.links
    }

    /// The runs, by id.
    pub fn runs(&self) -> &BTreeMap<RunId, Run> {
        &self.runs
    }

    /// What was pointed out to whom, by id.
    pub fn advice(&self) -> &BTreeMap<AdviceId, Advice> {
        &self.advice
    }

    /// The person of that name.
    pub fn person_called(&self, name: &str) -> Option<&Person> {
        self.people.values().find(|person| person.name.eq_ignore_ascii_case(name.trim()))
    }

    /// Runs whose stints a launcher is to be asked about, with the stint's index.
    pub fn stints(&self) -> Vec<(RunId, usize)> {
        let holding = self.runs.values().filter(|run| run.state.holds_chips());
        holding.filter_map(|run| Some((run.id, run.segments.len().checked_sub(1)?))).collect()
    }

    /// What was changed since this was last asked, for the store.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// The lab as it was kept.
    pub(crate) fn restored(
        chips: u32,
        people: Vec<Person>,
        ideas: Vec<Idea>,
        links: Vec<Link>,
        runs: Vec<Run>,
        advice: Vec<Advice>,
        decisions: u64,
    ) -> Lab {
        Lab {
            chips,
            pace: Pace::default(),
            charged: 0,
            now: runs.iter().map(|run| run.counted_until).max().unwrap_or(0),
            people: people.into_iter().map(|person| (person.id, person)).collect(),
            ideas: ideas.into_iter().map(|idea| (idea.id, idea)).collect(),
            links: links.into_iter().map(|link| (link.id, link)).collect(),
            runs: runs.into_iter().map(|run| (run.id, run)).collect(),
            advice: advice.into_iter().map(|advice| (advice.id, advice)).collect(),
            decisions,
            changes: Changes::default(),
        }
    }

    /// Writes a decision down.
    fn decide(&mut self, run: RunId, verb: Verb, because: Vec<Reason>) {
        self.decisions += 1;
        self.changes.decisions.push(Decision { id: self.decisions, at: self.now, run, verb, because });
    }

    fn person(&self, id: PersonId) -> Result<&Person, Refusal> {
        self.people.get(&id).ok_or_else(|| format!("there is no person {}", id.0))
    }

    fn idea(&self, id: IdeaId) -> Result<&Idea, Refusal> {
        self.ideas.get(&id).ok_or_else(|| format!("there is no idea {}; `minke ideas` lists them", id.0))
    }

    /// The idea, if `by` is one of its authors.
    fn own_idea(&self, by: PersonId, id: IdeaId) -> Result<&Idea, Refusal> {
        let idea = self.idea(id)?;
        if idea.authors.contains(&by) {
            return Ok(idea);
        }
        Err(format!("idea {} belongs to {}; ask to join it (`minke join {}`)", id.0, self.names(&idea.authors), id.0))
    }

    /// People's names, for a sentence.
    pub fn names(&self, people: &[PersonId]) -> String {
        let names: Vec<&str> =
            people.iter().map(|id| self.people.get(id).map_or("somebody", |person| person.name.as_str())).collect();
        match names.as_slice() {
            [] => "nobody".into(),
            [one] => (*one).into(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }

    /// Changes an idea that exists.
    fn change_idea(&mut self, id: IdeaId, change: impl FnOnce(&mut Idea)) {
        if let Some(idea) = self.ideas.get_mut(&id) {
            change(idea);
            self.changes.ideas.insert(id);
        }
    }

    /// An idea is active while a run of it is not over, and answered when all are.
    fn update_status(&mut self, id: IdeaId) {
        let mut runs = self.runs.values().filter(|run| run.idea == id).peekable();
        let status = match (runs.peek().is_some(), runs.all(|run| run.state.is_over())) {
            (false, _) => IdeaStatus::Open,
            (true, false) => IdeaStatus::Active,
            (true, true) => IdeaStatus::Answered,
        };
        let settled = |idea: &Idea| matches!(idea.status, IdeaStatus::Parked | IdeaStatus::Merged(_));
        if self.ideas.get(&id).is_some_and(|idea| idea.status != status && !settled(idea)) {
            self.change_idea(id, |idea| idea.status = status);
        }
    }
}

/// Whether somebody can be called so.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// A text of people, which has to say something and not too much.
fn checked(what: &str, text: String) -> Result<String, Refusal> {
    match text.trim() {
        "" => Err(format!("{what} is empty; say it in a sentence")),
        long if long.len() > TEXT_MAX => Err(format!("{what} is longer than {TEXT_MAX} bytes; shorten it")),
        text => Ok(text.to_string()),
    }
}

/// The number after the last one given.
fn next(last: Option<u32>) -> u32 {
    last.map_or(1, |last| last + 1)
}
