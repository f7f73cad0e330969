//! The process that stands over one stint, and outlives the lab's.
//!
//! It holds the run's lock as its standard input from before its first instruction, so that at no time two stand over the
//! same run. It says who it is before the command is started, and how the stint ended once nothing of it is left.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::confine::{GO, TERMINATE, Word};
use super::log::Log;
use super::stint::{END, Guards, Held, KILL, LOG, PID, SANDBOX, STARTED, SUSPEND, Stint};
use super::system::{self, Child, Process};
use super::watch::Watch;
use crate::run::{End, SAVED};

/// How often orders and limits are looked at.
const ROUND: Duration = Duration::from_millis(100);
/// What killed stints end by.
const SIGKILL: i32 = 9;
/// How often the end is tried to be written, a second apart: a full disk may get room again.
const PATIENCE: u32 = 600;

/// Stands over a stint until it has ended.
///
/// # Errors
/// When a launcher did not start it, or when it can't write how the stint ended.
pub fn supervise(directory: &Path) -> io::Result<()> {
    let stint = Stint::new(directory.to_path_buf());
    let lock = File::from(system::take_stdin()?);
    let (held, meant) = (lock.metadata()?, stint.lock()?.metadata()?);
    // Closed by the end of this process, not before.
    std::mem::forget(lock);
    if (held.dev(), held.ino()) != (meant.dev(), meant.ino()) {
        return Err(io::Error::other("only the lab starts this command, once for each stint of a run"));
    }
    if stint.has(END) || stint.has(PID) {
        return Ok(());
    }
    // Refused to the leader of a group, who is not ours to end with either.
    let _ = system::new_session();
    let end = stand_over(&stint).unwrap_or_else(|error| End::NotStarted(error.to_string()));
    let mut written = stint.write(END, &end);
    for _ in 0..PATIENCE {
        if written.is_ok() {
            break;
        }
        sleep(Duration::from_secs(1));
        written = stint.write(END, &end);
    }
    written
}

/// How the stint ended. An error only before its command was started.
fn stand_over(stint: &Stint) -> io::Result<End> {
    if stint.has(KILL) {
        return Ok(End::NotStarted("it was ended before its command was started".to_string()));
    }
    if stint.has(SUSPEND) {
        return Ok(End::Exit(SAVED));
    }
    let order = stint.order()?;
    let log = Log::new(&stint.path(LOG), order.limits.log)?;
    let mut held = Held::default();
    let mut separate = false;
    if order.namespaces {
        let came = system::separate();
        separate = came.is_ok();
        match came {
            Ok(which) => held.in_force.push(which.to_string()),
            Err(error) => held.missing.push(format!("namespaces: {error}")),
        }
    } else {
        held.missing.push("namespaces: the lab was started without them".to_string());
    }
    if !separate {
        system::adopt_orphans()?;
    }
    let (output, into) = io::pipe()?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("minke").arg("confine").arg(stint.directory()).env_clear();
    command.stdin(OwnedFd::from(theirs)).stdout(into.try_clone()?).stderr(into);
    let mut child = command.spawn()?;
    drop(command);
    let keeper = Process::of(child.id()).ok_or_else(|| io::Error::other("its keeper can't be seen in /proc"));
    let announced = keeper.and_then(|keeper| {
        let supervisor = Process::of(std::process::id()).ok_or(io::ErrorKind::NotFound)?;
        stint.write(PID, &Guards { boot: system::boot()?, supervisor, keeper })?;
        (&ours).write_all(&[GO])
    });
    if let Err(error) = announced {
        // A keeper that no one tells to go on ends.
        drop(ours);
        let _ = child.wait();
        return Err(error);
    }
    let (channel, output, words) = (Some(ours), Some(output), Vec::new());
    let watch = Watch::new(order.limits, &stint.writable());
    let stand = Stand { stint, keeper: child.id(), separate, channel, output, log, watch, words };
    Ok(stand.until_it_ends(held))
}

/// A stint under way.
struct Stand<'a> {
    stint: &'a Stint,
    keeper: u32,
    separate: bool,
    channel: Option<UnixStream>,
    output: Option<PipeReader>,
    log: Log,
    watch: Watch,
    words: Vec<u8>,
}

/// What the keeper has said.
struct Heard {
    held: Held,
    started: bool,
    end: Option<End>,
}

impl Stand<'_> {
    fn until_it_ends(mut self, held: Held) -> End {
        let mut heard = Heard { held, started: false, end: None };
        let (mut ordered, mut suspended, mut next) = (None, false, Instant::now());
        let keeper_ended = loop {
            self.listen(if self.channel.is_some() { ROUND } else { ROUND / 20 });
            self.hear(&mut heard);
            match system::reap() {
                Child::Ended(pid, end) if pid == self.keeper => break Some(end),
                // Others are orphans; ended ones may stand before the keeper.
                Child::Ended(..) => continue,
                Child::Busy => {}
                Child::None => break None,
            }
            if Instant::now() < next {
                continue;
            }
            next = Instant::now() + ROUND;
            if !suspended && heard.started && self.stint.has(SUSPEND) {
                suspended = true;
                let _ = self.channel.as_ref().map(|mut keeper| keeper.write_all(&[TERMINATE]));
            }
            if ordered.is_none() && self.stint.has(KILL) {
                ordered = Some(End::Signal(SIGKILL));
            } else if ordered.is_none() && heard.started {
                ordered = self.watch.look(self.keeper).map(End::Broke);
            }
            if ordered.is_some() {
                self.kill();
            }
        };
        if !self.separate {
            system::end_descendants();
        }
        while self.listen(Duration::ZERO) {}
        self.hear(&mut heard);
        let _ = self.log.finish();
        heard.end.or(ordered).or(keeper_ended).unwrap_or(End::Vanished)
    }

    fn kill(&self) {
        system::kill(self.keeper);
        if !self.separate {
            system::end_descendants();
        }
    }

    /// Takes what the command prints and what the keeper says, waiting for so long at most; whether there was anything.
    fn listen(&mut self, time: Duration) -> bool {
        let fds = [self.channel.as_ref().map(AsFd::as_fd), self.output.as_ref().map(AsFd::as_fd)];
        let Ok([channel, output]) = system::readable(fds, time) else {
            sleep(ROUND);
            return false;
        };
        let mut bytes = [0; 64 * 1024];
        if output {
            match self.output.as_mut().map(|pipe| pipe.read(&mut bytes)) {
                Some(Ok(many)) if many > 0 => self.log.take(&bytes[..many]),
                _ => self.output = None,
            }
        }
        if channel {
            match self.channel.as_mut().map(|keeper| keeper.read(&mut bytes)) {
                Some(Ok(many)) if many > 0 => self.words.extend_from_slice(&bytes[..many]),
                _ => self.channel = None,
            }
        }
        channel || output
    }

    /// Understands what the keeper has said so far.
    fn hear(&mut self, heard: &mut Heard) {
        while let Some(end) = self.words.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.words.drain(..=end).collect();
            // Only to be read by people: without these files a stint is none the worse.
            match serde_json::from_slice(&line) {
                Ok(Word::Held(more)) => {
                    heard.held.extend(more);
                    let _ = self.stint.write(SANDBOX, &heard.held);
                }
                Ok(Word::Started) => {
                    heard.started = true;
                    let _ = self.stint.mark(STARTED);
                }
                Ok(Word::Ended(end)) => heard.end = Some(end),
                Err(_) => {}
            }
        }
    }
}
