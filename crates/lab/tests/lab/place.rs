//! A lab to try things on, with a store that is quick and a machine that is made up.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use minke_lab::policy::Pace;
use minke_lab::{Action, Event, Fingerprint, Host, IdeaId, PersonId, RunId, State, Store, Which};
use tempfile::TempDir;

use crate::world::{Machine, World};

pub struct Place {
    directory: TempDir,
    pub machine: Rc<RefCell<Machine>>,
    pub host: Host<World>,
    pub now: u64,
    chips: u32,
}

impl Place {
    pub fn new(chips: u32) -> Place {
        // In memory where that can be had: what is tested is the order of writes, not the disk.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let machine = Rc::default();
        let store = Store::open(&directory.path().join("lab.db")).unwrap();
        let now = 1_000_000;
        let host = Host::open(store, World::new(&machine), chips, Pace::default(), now).unwrap();
        Place { directory, machine, host, now, chips }
    }

    /// The lab's process dies, and another takes up its work.
    pub fn restart(&mut self) {
        self.machine.borrow_mut().orders_left = None;
        let store = Store::open(&self.directory.path().join("lab.db")).unwrap();
        self.host = Host::open(store, World::new(&self.machine), self.chips, Pace::default(), self.now).unwrap();
    }

    pub fn tell(&mut self, event: Event) -> Vec<Action> {
        self.host.tell(event, self.now).unwrap()
    }

    /// Why an event is refused.
    pub fn refusal(&mut self, event: Event) -> String {
        match self.tell(event).as_slice() {
            [Action::Refuse(why)] => why.clone(),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Time passes, seen by the lab.
    pub fn wait(&mut self, seconds: u64) {
        self.now += seconds * 1000;
        self.host.tick(self.now).unwrap();
    }

    pub fn person(&mut self, name: &str) -> PersonId {
        match self.tell(Event::Arrived { name: name.into() }).as_slice() {
            [Action::Welcome(id)] => *id,
            other => panic!("{other:?}"),
        }
    }

    pub fn try_idea(&mut self, by: PersonId, sentence: &str, chips: u32) -> (IdeaId, RunId) {
        let idea = Which::New { sentence: sentence.into(), parent: None };
        let (command, fingerprint) = (vec!["work".into()], Fingerprint::default());
        match self.tell(Event::Try { by, idea, command, chips, tree: String::new(), fingerprint }).as_slice() {
            [Action::Tried { idea, run }] => (*idea, *run),
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&self, run: RunId) -> State {
        self.host.lab().runs()[&run].state
    }
}
