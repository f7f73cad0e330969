//! The lab at work: its host, asked by one at a time, and the thread that lets time pass in it.

pub mod answers;
pub mod api;

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use minke_lab::launch::{Local, Settings, cores};
use minke_lab::policy::Pace;
use minke_lab::{Action, Event, Host, Link, LinkStatus, Person, PersonId};

use super::error::Failure;
use super::loaded::blocking;
use crate::terminal::say;

/// How often the lab looks after its runs.
const PACE: Duration = Duration::from_millis(200);

/// The lab, for one at a time.
#[derive(Clone)]
pub struct Desk {
    host: Arc<Mutex<Host<Local>>>,
    /// Two labs over the same runs would each hand out the same chips.
    _lock: Arc<File>,
}

impl Desk {
    /// Takes up the lab's work, with so many chips, or as many as there are cores.
    pub fn open(home: &Path, database: &Path, chips: Option<u32>, pace: Pace) -> Result<Desk> {
        let lock = claim(home)?;
        let cores = cores();
        let chips = chips.unwrap_or(cores.len() as u32).max(1);
        let minke = std::env::current_exe().context("this program's own file can't be found")?;
        let settings = Settings::new(home.to_path_buf(), minke, shared_out(&cores, chips));
        let launcher = Local::new(settings).context("runs can't be started on this machine")?;
        let host = Host::open(minke_lab::Store::open(database)?, launcher, chips, pace, now())?;
        let desk = Desk { host: Arc::new(Mutex::new(host)), _lock: Arc::new(lock) };
        let weak = Arc::downgrade(&desk.host);
        let look = move || {
            let mut failed = false;
            while let Some(host) = weak.upgrade() {
                let ticked = host.lock().unwrap_or_else(PoisonError::into_inner).tick(now());
                // Said once, not five times a second.
                if let (Err(error), false) = (&ticked, failed) {
                    say(&format!("minke: the lab: {error}"));
                }
                failed = ticked.is_err();
                drop(host);
                std::thread::sleep(PACE);
            }
        };
        std::thread::Builder::new().name("minke-lab".into()).spawn(look).context("the system refuses a thread")?;
        Ok(desk)
    }

    /// Asks the lab something, now.
    pub fn now<T>(&self, question: impl FnOnce(&mut Host<Local>) -> T) -> T {
        question(&mut self.host.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the lab something on a thread that may wait for the disk.
    pub async fn with<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Host<Local>) -> Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let desk = self.clone();
        blocking(move || desk.now(question)).await
    }

    /// Tells the lab what happened; what it refuses is a failure of whoever asked.
    pub async fn tell(&self, event: Event) -> Result<Action, Failure> {
        let actions = self.with(move |host| Ok(host.tell(event, now())?)).await?;
        match actions.into_iter().next() {
            Some(Action::Refuse(why)) => Err(Failure::conflict(why)),
            Some(action) => Ok(action),
            None => Ok(Action::Done),
        }
    }

    /// How many questions wait for a person's answer.
    pub async fn questions_to(&self, person: u32) -> Result<usize, Failure> {
        let waits = move |link: &&Link| link.status == LinkStatus::Pending && link.to.contains(&PersonId(person));
        self.with(move |host| Ok(host.lab().links().values().filter(waits).count())).await
    }

    /// The person of this name, who is welcomed if they are new.
    pub fn person_named(&self, name: &str) -> Result<Person> {
        self.now(|host| {
            if let Some(person) = host.lab().person_called(name) {
                return Ok(person.clone());
            }
            match host.tell(Event::Arrived { name: name.into() }, now())?.into_iter().next() {
                Some(Action::Welcome(id)) => Ok(host.lab().people()[&id].clone()),
                Some(Action::Refuse(why)) => anyhow::bail!(why),
                _ => anyhow::bail!("the lab did not answer"),
            }
        })
    }
}

/// Makes the lab in a directory this process's until the file is closed.
fn claim(home: &Path) -> Result<File> {
    let path = home.join("lab.lock");
    let opened = fs::create_dir_all(home).and_then(|()| File::create(&path));
    let lock = opened.with_context(|| {
        format!("the lab can't be kept in {}; set MINKE_HOME to a directory that can be written", home.display())
    })?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another minke serves the lab in {}; use that one, stop it, or set MINKE_HOME to a directory that can be written",
                home.display()
            )
        }
        // Where there are no locks, there is nobody to find out about.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(lock),
    }
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The cores of each chip: shared out evenly, and several chips to a core where there are more of them.
fn shared_out(cores: &[usize], chips: u32) -> Vec<Vec<usize>> {
    let (cores_there, chips) = (cores.len(), chips as usize);
    (0..chips)
        .map(|chip| {
            let (from, to) = (chip * cores_there / chips, (chip + 1) * cores_there / chips);
            cores[from..to.max(from + 1).min(cores_there)].to_vec()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::shared_out;

    #[test]
    fn every_chip_has_a_core() {
        assert_eq!(shared_out(&[0, 1], 2), [[0], [1]]);
        assert_eq!(shared_out(&[4, 5, 6, 7, 8], 2), [vec![4, 5], vec![6, 7, 8]]);
        assert_eq!(shared_out(&[3], 3), [[3], [3], [3]]);
        assert_eq!(shared_out(&[0, 1], 4), [[0], [0], [1], [1]]);
    }
}
