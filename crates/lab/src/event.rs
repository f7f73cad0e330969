//! What happens: people ask for things, launchers report, time passes.

use crate::advice::{AdviceId, Choice};
use crate::idea::IdeaId;
use crate::link::{LinkId, LinkKind};
use crate::person::PersonId;
use crate::repeats::Repeat;
use crate::run::{End, Fingerprint, Progress, RunId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody is new.
    Arrived {
        /// What they are called.
        name: String,
    },
    /// A person says what they would like to be asked about.
    Introduced {
        /// Who.
        by: PersonId,
        /// In a line; empty takes it back.
        interests: String,
    },
    /// A person tries an idea: it becomes a run.
    Try {
        /// Who.
        by: PersonId,
        /// The idea in words, or one that exists.
        idea: Which,
        /// The program and its arguments.
        command: Vec<String>,
        /// How many chips it wants.
        chips: u32,
        /// The files that it is given, as [`crate::tree`] keeps them.
        tree: String,
        /// What it would compute.
        fingerprint: Fingerprint,
    },
    /// A person was shown what is like their idea.
    Advise {
        /// Who.
        by: PersonId,
        /// The idea that they had.
        sentence: String,
        /// What was shown.
        shown: Vec<Repeat>,
    },
    /// A person chose what to do about what they were shown.
    Choose {
        /// Who.
        by: PersonId,
        /// What they were shown.
        advice: AdviceId,
        /// What they chose.
        choice: Choice,
    },
    /// A person asks another for something.
    Ask {
        /// Who asks.
        by: PersonId,
        /// For what.
        kind: LinkKind,
        /// Over which idea.
        idea: IdeaId,
        /// Who is asked; for a join and a merge, the authors are.
        to: Option<PersonId>,
        /// In their words.
        message: String,
    },
    /// A person answers what they were asked.
    Answer {
        /// Who answers.
        by: PersonId,
        /// What.
        link: LinkId,
        /// Yes or no.
        yes: bool,
    },
    /// A person takes back what they asked.
    Withdraw {
        /// Who asked.
        by: PersonId,
        /// What.
        link: LinkId,
    },
    /// A person is an author no longer. Their runs go on.
    Leave {
        /// Who.
        by: PersonId,
        /// Which idea.
        idea: IdeaId,
    },
    /// An author puts an idea aside, or takes it up again.
    Park {
        /// Who.
        by: PersonId,
        /// Which idea.
        idea: IdeaId,
        /// Aside or not.
        parked: bool,
    },
    /// An owner ends a run for good.
    Stop {
        /// Who.
        by: PersonId,
        /// Which.
        run: RunId,
    },
    /// A launcher says something of a stint.
    Report {
        /// Whose stint.
        run: RunId,
        /// Which: an index into the run's segments.
        segment: usize,
        /// What.
        report: Report,
    },
    /// The lab is up again after its process ended. What its launchers know of stints comes first, as reports.
    Restarted,
    /// Time has passed.
    Tick,
}

/// An idea in words, or one that exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Which {
    /// A new one.
    New {
        /// The idea in one sentence.
        sentence: String,
        /// What it grew out of.
        parent: Option<IdeaId>,
    },
    /// An idea of the person who tries it.
    Known(IdeaId),
}

/// What a launcher says of a stint.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Its command was started.
    Started,
    /// It says how far it is.
    Progress(Progress),
    /// It has heard that it shall save.
    Acknowledged,
    /// Its command has ended, and nothing of it is left.
    Ended(End),
}
