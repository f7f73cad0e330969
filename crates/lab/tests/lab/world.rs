//! A machine that is made up: stints that work, save, fail and vanish as they like. It outlives the lab's process, as real
//! processes do, and finds fault with whoever starts a run twice or gives a chip away twice.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use minke_lab::launch::Launcher;
use minke_lab::{End, Progress, Report, Run, RunId};

/// A handle on the machine; a new one is a new launcher, which has told nobody anything yet.
pub struct World {
    machine: Rc<RefCell<Machine>>,
    told: BTreeSet<(RunId, usize, u8)>,
    steps: BTreeMap<(RunId, usize), u64>,
}

/// What goes on.
#[derive(Default)]
pub struct Machine {
    pub stints: BTreeMap<(RunId, usize), Stint>,
    /// Orders that are still heard before the lab's process dies.
    pub orders_left: Option<u32>,
}

/// A command on chips.
pub struct Stint {
    pub chips: Vec<u32>,
    /// Whether it was asked for its chips.
    pub asked: bool,
    pub acknowledged: bool,
    pub step: u64,
    pub end: Option<End>,
}

impl Machine {
    /// Stints that have not ended.
    pub fn alive(&self) -> impl Iterator<Item = (&(RunId, usize), &Stint)> {
        self.stints.iter().filter(|(_, stint)| stint.end.is_none())
    }

    /// Whether the lab's process is still there to give an order.
    fn hears(&mut self) -> bool {
        match &mut self.orders_left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

impl World {
    pub fn new(machine: &Rc<RefCell<Machine>>) -> World {
        World { machine: Rc::clone(machine), told: BTreeSet::new(), steps: BTreeMap::new() }
    }

    fn heard(&self) -> Option<RefMut<'_, Machine>> {
        let mut machine = self.machine.borrow_mut();
        machine.hears().then_some(machine)
    }
}

impl Launcher for World {
    fn start(&mut self, run: &Run, segment: usize) -> io::Result<()> {
        let Some(mut machine) = self.heard() else { return Ok(()) };
        if machine.stints.contains_key(&(run.id, segment)) {
            return Ok(());
        }
        let chips = run.segments[segment].chips.clone();
        assert_eq!(chips.len(), run.chips as usize, "run {run:?} got other chips than it wants");
        for ((other, _), stint) in machine.alive() {
            assert_ne!(*other, run.id, "run {other:?} was started while it ran");
            let both = stint.chips.iter().find(|chip| chips.contains(chip));
            assert_eq!(both, None, "a chip of {other:?} was given to {:?}", run.id);
        }
        let stint = Stint { chips, asked: false, acknowledged: false, step: 0, end: None };
        machine.stints.insert((run.id, segment), stint);
        Ok(())
    }

    fn suspend(&mut self, run: RunId, segment: usize) -> io::Result<()> {
        if let Some(mut machine) = self.heard()
            && let Some(stint) = machine.stints.get_mut(&(run, segment))
        {
            stint.asked = true;
        }
        Ok(())
    }

    fn kill(&mut self, run: RunId, segment: usize) -> io::Result<()> {
        if let Some(mut machine) = self.heard()
            && let Some(stint) = machine.stints.get_mut(&(run, segment))
        {
            stint.end.get_or_insert(End::Signal(9));
        }
        Ok(())
    }

    fn poll(&mut self, stints: &[(RunId, usize)]) -> io::Result<Vec<(RunId, usize, Report)>> {
        let mut news = Vec::new();
        let machine = self.machine.borrow();
        for key @ &(run, segment) in stints {
            let Some(stint) = machine.stints.get(key) else { continue };
            let mut tell = |what: u8, report: Report| {
                if self.told.insert((run, segment, what)) {
                    news.push((run, segment, report));
                }
            };
            tell(0, Report::Started);
            if stint.acknowledged {
                tell(1, Report::Acknowledged);
            }
            if let Some(end) = &stint.end {
                tell(2, Report::Ended(end.clone()));
            }
            if self.steps.insert(*key, stint.step) != Some(stint.step) && stint.end.is_none() {
                let progress = Progress { step: stint.step, ..Progress::default() };
                news.push((run, segment, Report::Progress(progress)));
            }
        }
        Ok(news)
    }
}
