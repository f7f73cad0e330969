//! What the lab wants done. Every action may be carried out again after a crash; the second time it changes nothing.

use crate::advice::AdviceId;
use crate::idea::IdeaId;
use crate::link::LinkId;
use crate::person::PersonId;
use crate::run::RunId;

/// Something to do, or to say to whoever caused the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the stint of a run: its command, on the chips that the segment names.
    Start {
        /// Which run.
        run: RunId,
        /// Which stint.
        segment: usize,
    },
    /// Ask a stint to save and end with code 75.
    Suspend {
        /// Which run.
        run: RunId,
        /// Which stint.
        segment: usize,
    },
    /// End a stint now, whatever it does.
    Kill {
        /// Which run.
        run: RunId,
        /// Which stint.
        segment: usize,
    },
    /// Say that somebody is known now.
    Welcome(PersonId),
    /// Say what a try came to.
    Tried {
        /// The idea.
        idea: IdeaId,
        /// The run.
        run: RunId,
    },
    /// Say that it was written down what was shown.
    Advised(AdviceId),
    /// Say that a question was put.
    Asked(LinkId),
    /// Say that it is done.
    Done,
    /// Say why not, in a sentence; nothing has changed.
    Refuse(String),
}
