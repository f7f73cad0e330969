//! A lab at work: its logic, its memory, and a launcher that carries out what it wants.
//!
//! An event is kept before anything is done about it. After a crash, the launcher tells what became of its stints, and orders
//! that may have been lost are given again.

use crate::action::Action;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::lab::Lab;
use crate::launch::Launcher;
use crate::policy::Pace;
use crate::store::Store;

/// The lab, its store and its launcher.
pub struct Host<L> {
    lab: Lab,
    store: Store,
    launcher: L,
}

impl<L: Launcher> Host<L> {
    /// Takes up work where it was left.
    ///
    /// # Errors
    /// When the store can't be read or written, or the launcher can't tell about its stints.
    pub fn open(store: Store, launcher: L, chips: u32, pace: Pace, now: u64) -> Result<Host<L>> {
        let lab = store.load(chips)?.at(pace);
        let mut host = Host { lab, store, launcher };
        host.listen(now)?;
        host.tell(Event::Restarted, now)?;
        Ok(host)
    }

    /// What the lab knows.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// What carries out its orders.
    pub fn launcher(&self) -> &L {
        &self.launcher
    }

    /// What it keeps.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes an event, keeps what it changes, and carries out what follows from it. What is left is for whoever caused the
    /// event.
    ///
    /// # Errors
    /// When it can't be kept; then nothing of it has happened.
    pub fn tell(&mut self, event: Event, now: u64) -> Result<Vec<Action>> {
        let actions = self.lab.on(event, now);
        if let Err(error) = self.store.keep(&mut self.lab) {
            self.lab = self.store.load(self.lab.chips())?.at(self.lab.pace());
            return Err(error);
        }
        let mut answers = Vec::new();
        for action in actions {
            // An order that fails is given again when nothing has come of it.
            let _ = match action {
                Action::Start { run, segment } => self.launcher.start(&self.lab.runs()[&run], segment),
                Action::Suspend { run, segment } => self.launcher.suspend(run, segment),
                Action::Kill { run, segment } => self.launcher.kill(run, segment),
                answer => {
                    answers.push(answer);
                    Ok(())
                }
            };
        }
        Ok(answers)
    }

    /// Hears what is new of the stints, and lets time pass. To be called about twice a second.
    ///
    /// # Errors
    /// When the launcher can't tell, or what it tells can't be kept.
    pub fn tick(&mut self, now: u64) -> Result<()> {
        self.listen(now)?;
        self.tell(Event::Tick, now)?;
        Ok(())
    }

    fn listen(&mut self, now: u64) -> Result<()> {
        let news = self.launcher.poll(&self.lab.stints());
        for (run, segment, report) in news.map_err(|e| Error::new(format!("the runs can't be looked after: {e}")))? {
            self.tell(Event::Report { run, segment, report }, now)?;
        }
        Ok(())
    }
}
