//! The process above a command, and the command's own last steps before it is one.
//!
//! The keeper is the first process of the run's namespace: whatever the command leaves behind becomes the keeper's, and
//! all of it ends with the keeper, which ends with the command or with its supervisor. Where there is no namespace it
//! adopts orphans and ends them itself. The keeper itself is not shut in; what it starts ([`enter`]) shuts itself in and
//! then becomes the command, which so can reach neither the keeper nor the supervisor.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::order::Order;
use super::sandbox;
use super::stint::{Held, Stint};
use super::system::{self, Child};
use crate::run::End;

/// What the supervisor says to the keeper.
pub const GO: u8 = b'g';
pub const TERMINATE: u8 = b't';

/// How often orphans are looked after.
const ROUND: Duration = Duration::from_millis(500);

/// What the keeper says to the supervisor, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// What holds the command in its place.
    Held(Held),
    /// The command was started.
    Started,
    /// It has ended, or could not be started.
    Ended(End),
}

/// What a process says that is about to become the command; nothing more once it is.
#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    /// It is shut in.
    Held(Held),
    /// Why it can't become the command.
    Failed(String),
}

/// Says something on a line of its own. Whoever does not listen any more will end this process in another way.
fn say(to: &mut UnixStream, what: &impl Serialize) {
    if let Ok(mut line) = serde_json::to_vec(what) {
        line.push(b'\n');
        let _ = to.write_all(&line);
    }
}

/// Stands over the command of a stint, as the supervisor started it.
///
/// # Errors
/// When it was not started by a supervisor.
pub fn confine(directory: &Path) -> io::Result<()> {
    let mut supervisor = system::take_socket()?;
    if let Err(error) = keep(directory, &mut supervisor) {
        say(&mut supervisor, &Word::Ended(End::NotStarted(error.to_string())));
    }
    Ok(())
}

fn keep(directory: &Path, supervisor: &mut UnixStream) -> io::Result<()> {
    let stint = Stint::new(directory.to_path_buf());
    let order = stint.order()?;
    let mut held = Held::default();
    let first = system::is_first();
    let own_shared_memory = first && own_view(&order, &mut held);
    if !first {
        system::adopt_orphans()?;
    }
    system::drop_capabilities()?;
    held.in_force.push("no capabilities".to_string());
    if first {
        system::end_with_parent()?;
    }
    let mut go = [0];
    if supervisor.read(&mut go)? == 0 || go[0] != GO {
        return Ok(());
    }
    let (command, held) = match start(directory, own_shared_memory, held)? {
        Ok(started) => started,
        Err(sentence) => {
            say(supervisor, &Word::Ended(End::NotStarted(sentence)));
            return Ok(());
        }
    };
    say(supervisor, &Word::Held(held));
    say(supervisor, &Word::Started);
    let end = until_it_ends(command, supervisor)?;
    if !first {
        system::end_descendants();
    }
    if let Some(end) = end {
        say(supervisor, &Word::Ended(end));
    }
    Ok(())
}

/// Gives the namespace its own `/proc` and shared memory; whether it has the latter.
fn own_view(order: &Order, held: &mut Held) -> bool {
    let mounts = system::own_mounts();
    if mounts.is_err() {
        held.note("mounts of its own", mounts);
        return false;
    }
    let proc = system::own_proc();
    let bounded = if proc.is_ok() { system::limit_namespace(order.limits.threads()) } else { Ok(()) };
    held.note("a /proc of its own", proc);
    held.note("a limit for its namespace's threads", bounded);
    let shared = system::own_shared_memory(order.limits.memory / 2);
    let has = shared.is_ok();
    held.note("shared memory of its own", shared);
    has
}

/// Starts the process that becomes the command; its number once it is, or why it can't.
fn start(directory: &Path, own_shared_memory: bool, mut held: Held) -> io::Result<Result<(u32, Held), String>> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("minke").args(["confine", "--enter"]).arg(directory).env_clear();
    if own_shared_memory {
        command.arg("--shared-memory");
    }
    let child = command.process_group(0).stdin(OwnedFd::from(theirs)).spawn()?;
    drop(command);
    let mut said = String::new();
    ours.read_to_string(&mut said)?;
    let mut shut_in = false;
    for line in said.lines() {
        match serde_json::from_str(line)? {
            Entry::Held(more) => {
                held.extend(more);
                shut_in = true;
            }
            Entry::Failed(sentence) => return Ok(Err(sentence)),
        }
    }
    // Silence is no consent: it may have been killed before it was shut in.
    Ok(if shut_in { Ok((child.id(), held)) } else { Err("it ended before its command was started".to_string()) })
}

/// How the command ended; nothing where the supervisor did before it.
fn until_it_ends(command: u32, supervisor: &mut UnixStream) -> io::Result<Option<End>> {
    let ends = system::end_of(command);
    loop {
        // A command that has ended may be followed by others to take note of.
        loop {
            match system::reap() {
                Child::Ended(pid, end) if pid == command => return Ok(Some(end)),
                Child::Ended(..) => {}
                Child::Busy | Child::None => break,
            }
        }
        let fds = [Some(supervisor.as_fd()), ends.as_ref().map(AsFd::as_fd)];
        if system::readable(fds, ROUND)?[0] {
            let mut orders = [0; 16];
            match supervisor.read(&mut orders)? {
                0 => return Ok(None),
                many if orders[..many].contains(&TERMINATE) => system::terminate_group(command),
                _ => {}
            }
        }
    }
}

/// Becomes the command of a stint, as its keeper started it.
///
/// # Errors
/// When it can't.
pub fn enter(directory: &Path, own_shared_memory: bool) -> io::Result<()> {
    let mut keeper = system::take_socket()?;
    let Err(error) = become_command(directory, own_shared_memory, &mut keeper);
    say(&mut keeper, &Entry::Failed(error.to_string()));
    Err(error)
}

fn become_command(
    directory: &Path,
    own_shared_memory: bool,
    keeper: &mut UnixStream,
) -> io::Result<std::convert::Infallible> {
    let stint = Stint::new(directory.to_path_buf());
    let order = stint.order()?;
    let mut held = Held::default();
    system::end_with_parent()?;
    system::no_new_privileges()?;
    if !order.cores.is_empty() {
        system::use_cores(&order.cores)?;
    }
    let code = stint.run().join("code");
    std::env::set_current_dir(&code).map_err(super::stint::about(&code))?;
    held.note("ended first when memory runs out", system::end_first());
    sandbox::bound(&order, system::has_own_users(), &mut held)?;
    if order.landlock {
        held.extend(sandbox::shut_in(&stint, &order, own_shared_memory)?);
    } else {
        held.missing.push("Landlock: the lab was started without it".to_string());
    }
    say(keeper, &Entry::Held(held));
    let Some((program, arguments)) = order.command.split_first() else {
        return Err(io::Error::other("no command was given"));
    };
    let error = Command::new(program).args(arguments).env_clear().envs(&order.environment).exec();
    let hint = "is it installed where runs may read, and executable?";
    Err(io::Error::new(error.kind(), format!("{program:?} could not be started ({error}); {hint}")))
}
