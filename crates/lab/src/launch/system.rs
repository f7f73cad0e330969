//! What the launcher asks of the operating system. Linux first; elsewhere the answer is one sentence.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
pub use linux::*;

/// A process: its number, and when it began, so that another that gets the number later is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began, in ticks since the machine did.
    pub start: u64,
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::*;

    fn unsupported<T>() -> io::Result<T> {
        let sentence = "running commands for the lab needs Linux; start `minke serve` on a Linux machine";
        Err(io::Error::new(io::ErrorKind::Unsupported, sentence))
    }

    impl Process {
        pub fn is_gone(&self) -> bool {
            true
        }
    }

    pub fn supported() -> io::Result<()> {
        unsupported()
    }

    pub fn boot() -> io::Result<String> {
        unsupported()
    }

    pub fn cores() -> Vec<usize> {
        vec![0]
    }

    pub fn memory() -> u64 {
        0
    }

    pub fn kill(_: u32) {}

    pub fn inode(_: &Metadata) -> u64 {
        0
    }

    pub fn open_file(path: &Path) -> io::Result<File> {
        File::open(path)
    }

    /// Stands over one stint.
    ///
    /// # Errors
    /// Always, on this system.
    pub fn supervise(_: &Path) -> io::Result<()> {
        unsupported()
    }

    /// Stands over one command.
    ///
    /// # Errors
    /// Always, on this system.
    pub fn confine(_: &Path) -> io::Result<()> {
        unsupported()
    }

    /// Becomes a command.
    ///
    /// # Errors
    /// Always, on this system.
    pub fn enter(_: &Path, _: bool) -> io::Result<()> {
        unsupported()
    }
}
#[cfg(not(target_os = "linux"))]
pub use elsewhere::*;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;
    use std::ffi::{CStr, CString};
    use std::fs;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    use std::os::unix::net::UnixStream;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use nix::sched::CloneFlags;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::OFlags;
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::process::{self, Pid, Resource, Rlimit, Signal, WaitOptions};
    use rustix::thread::{self, CapabilitySet, CapabilitySets, CpuSet};

    use super::*;
    use crate::run::End;

    /// The only capability that is of use after `execve` in a new user namespace: to mount.
    const MOUNT: CapabilitySet = CapabilitySet::SYS_ADMIN;
    /// Linux has had a highest process number for each namespace since then.
    const OWN_PID_MAX: (u32, u32) = (6, 14);
    /// Process numbers below this are not given out a second time.
    const RESERVED_PIDS: u32 = 300;

    pub fn supported() -> io::Result<()> {
        Ok(())
    }

    /// What tells one start of the machine from another.
    pub fn boot() -> io::Result<String> {
        Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_string())
    }

    /// Bytes of memory in this machine.
    pub fn memory() -> u64 {
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total =
            info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB")?.trim().parse().ok());
        total.map_or(0, |kilobytes: u64| kilobytes * 1024)
    }

    pub fn inode(metadata: &Metadata) -> u64 {
        metadata.ino()
    }

    /// Opens a regular file: neither what a link leads to nor a pipe that nobody writes to.
    pub fn open_file(path: &Path) -> io::Result<File> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// What the kernel says of a process.
    pub struct Status {
        state: String,
        start: u64,
        /// How many threads it has.
        pub threads: u64,
        /// Bytes of it in memory.
        pub resident: u64,
    }

    impl Status {
        /// Of a process that is there.
        pub fn of(pid: u32) -> Option<Status> {
            let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
            let text = String::from_utf8_lossy(&text);
            // The name in brackets may hold anything, brackets too; the third field comes after it.
            let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
            let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
            let resident = number(24)? * rustix::param::page_size() as u64;
            Some(Status { state: fields[0].to_string(), threads: number(20)?, start: number(22)?, resident })
        }
    }

    impl Process {
        /// The process that has this number now.
        pub fn of(pid: u32) -> Option<Process> {
            Status::of(pid).map(|status| Process { pid, start: status.start })
        }

        /// Whether it has ended. The first process of a namespace is a zombie only once all others in it are gone.
        pub fn is_gone(&self) -> bool {
            Status::of(self.pid).is_none_or(|now| now.start != self.start || now.state.starts_with(['Z', 'X']))
        }
    }

    fn pid(number: u32) -> Option<Pid> {
        Pid::from_raw(number.cast_signed())
    }

    /// Sends a signal that can't be ignored.
    pub fn kill(number: u32) {
        signal(number, Signal::KILL);
    }

    fn signal(number: u32, signal: Signal) {
        // Whoever is gone already needs no signal.
        let _ = pid(number).map(|pid| process::kill_process(pid, signal));
    }

    /// Asks a process group to end.
    pub fn terminate_group(leader: u32) {
        let _ = pid(leader).map(|pid| process::kill_process_group(pid, Signal::TERM));
    }

    /// From now on no terminal's end is ours.
    pub fn new_session() -> io::Result<()> {
        Ok(process::setsid().map(drop)?)
    }

    /// When whoever started this process ends, it does too.
    pub fn end_with_parent() -> io::Result<()> {
        Ok(process::set_parent_process_death_signal(Some(Signal::KILL))?)
    }

    /// Orphans among this process's descendants become its children.
    pub fn adopt_orphans() -> io::Result<()> {
        Ok(process::set_child_subreaper(Some(process::getpid()))?)
    }

    /// Whether this is the first process of its namespace.
    pub fn is_first() -> bool {
        process::getpid() == Pid::INIT
    }

    /// What became of a child.
    pub enum Child {
        /// It ended.
        Ended(u32, End),
        /// All go on.
        Busy,
        /// There are none.
        None,
    }

    /// Takes note of the end of one child, if one has ended.
    pub fn reap() -> Child {
        match process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let code = status.exit_status().map(End::Exit);
                let end = code.or(status.terminating_signal().map(End::Signal)).unwrap_or(End::Vanished);
                Child::Ended(pid.as_raw_nonzero().get().cast_unsigned(), end)
            }
            Ok(None) => Child::Busy,
            Err(rustix::io::Errno::CHILD) => Child::None,
            Err(_) => Child::Busy,
        }
    }

    /// Everything that a process has started, and what that has started, as far as it can be seen in one look.
    pub fn descendants(of: u32) -> BTreeSet<u32> {
        let (mut all, mut next) = (BTreeSet::new(), vec![of]);
        while let Some(pid) = next.pop() {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
            let children: Vec<u32> = lists.flat_map(|list| numbers(&list)).collect();
            next.extend(children.into_iter().filter(|child| all.insert(*child)));
        }
        all
    }

    fn numbers(list: &str) -> Vec<u32> {
        list.split(' ').filter_map(|number| number.parse().ok()).collect()
    }

    /// Ends everything that this process has started. Only one that adopts orphans can know that nothing is left.
    pub fn end_descendants() {
        loop {
            // What stands still starts nothing more; a program that multiplies is outrun in a few rounds.
            let (mut still, begin) = (BTreeSet::new(), Instant::now());
            while begin.elapsed() < Duration::from_secs(1) {
                let mut all = descendants(process::getpid().as_raw_nonzero().get().cast_unsigned());
                all.retain(|pid| !still.contains(pid));
                if all.is_empty() {
                    break;
                }
                all.iter().for_each(|pid| signal(*pid, Signal::STOP));
                still.extend(all);
            }
            still.into_iter().for_each(kill);
            loop {
                match reap() {
                    Child::Ended(..) => {}
                    Child::Busy => break,
                    Child::None => return,
                }
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// Which of these has something to read, or will never have again.
    pub fn readable<const N: usize>(fds: [Option<BorrowedFd<'_>>; N], timeout: Duration) -> io::Result<[bool; N]> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut waited: Vec<PollFd<'_>> =
            fds.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut waited, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok([false; N]),
            Err(error) => return Err(error.into()),
        }
        let mut answers = waited.iter().map(|fd| !fd.revents().is_empty());
        Ok(fds.map(|fd| fd.is_some() && answers.next().unwrap_or_default()))
    }

    /// Something that becomes readable when a child ends.
    pub fn end_of(number: u32) -> Option<OwnedFd> {
        process::pidfd_open(pid(number)?, process::PidfdFlags::empty()).ok()
    }

    /// What this process was given as its standard input, which is empty from now on.
    pub fn take_stdin() -> io::Result<OwnedFd> {
        let given = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(given)
    }

    /// The same, where it must be a socket.
    pub fn take_socket() -> io::Result<UnixStream> {
        Ok(UnixStream::from(take_stdin()?))
    }

    /// What this process starts next will be the first of namespaces of its own, and hold the right to mount; says which.
    pub fn separate() -> io::Result<&'static str> {
        let namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
        if nix::sched::unshare(namespaces).is_ok() {
            return Ok("namespaces for processes and shared memory");
        }
        let (user, group) = (process::geteuid().as_raw(), process::getegid().as_raw());
        nix::sched::unshare(namespaces | CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
        let mut sets = thread::capabilities(None)?;
        sets.inheritable |= MOUNT;
        thread::set_capabilities(None, sets)?;
        thread::configure_capability_in_ambient_set(MOUNT, true)?;
        Ok("namespaces for users, processes and shared memory")
    }

    /// Mounts are this process's own from now on.
    pub fn own_mounts() -> io::Result<()> {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
        Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
    }

    /// Shows this namespace's processes in `/proc`, and no others.
    pub fn own_proc() -> io::Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        Ok(mount("proc", "/proc", "proc", flags, None::<&CStr>)?)
    }

    /// A `/dev/shm` that no other run sees.
    pub fn own_shared_memory(bytes: u64) -> io::Result<()> {
        let options = CString::new(format!("mode=1777,size={bytes}"))?;
        Ok(mount("tmpfs", "/dev/shm", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?)
    }

    /// No more than so many threads in this namespace, whoever they belong to; after [`own_proc`].
    pub fn limit_namespace(threads: u32) -> io::Result<()> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let mut parts = release.split('.').map(|part| part.parse().unwrap_or(0));
        // Before, this file stood for the whole machine.
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OWN_PID_MAX {
            return Err(io::Error::other("needs Linux 6.14"));
        }
        fs::write("/proc/sys/kernel/pid_max", RESERVED_PIDS.saturating_add(threads).to_string())
    }

    /// Gives up every capability, for this process and whatever it executes.
    pub fn drop_capabilities() -> io::Result<()> {
        thread::clear_ambient_capability_set()?;
        for bit in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            // Past the last capability there is, or without the right to: the check below counts.
            let _ = thread::remove_capability_from_bounding_set(one);
        }
        let none = CapabilitySet::empty();
        thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
        let mut bounds = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
        let bound = bounds.any(|one| thread::capability_is_in_bounding_set(one).unwrap_or_default());
        if bound && process::geteuid().is_root() {
            return Err(io::Error::other("root's capabilities can't be given up"));
        }
        Ok(())
    }

    /// Nothing that is executed from now on gains rights by it.
    pub fn no_new_privileges() -> io::Result<()> {
        Ok(thread::set_no_new_privs(true)?)
    }

    /// Computes on these cores only.
    pub fn use_cores(cores: &[usize]) -> io::Result<()> {
        let mut set = CpuSet::new();
        for &core in cores {
            if core >= CpuSet::MAX_CPU {
                return Err(io::Error::other(format!("there is no core {core}")));
            }
            set.set(core);
        }
        thread::sched_setaffinity(None, &set)?;
        // The kernel leaves out cores that there are not.
        if thread::sched_getaffinity(None)? != set {
            return Err(io::Error::other(format!("not all of the cores {cores:?} are there")));
        }
        Ok(())
    }

    /// The cores that this process may use.
    pub fn cores() -> Vec<usize> {
        let set = rustix::thread::sched_getaffinity(None);
        set.map_or_else(|_| vec![0], |set| (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
    }

    /// What a process may not exceed.
    #[derive(Clone, Copy, Debug)]
    pub enum Bound {
        /// Bytes in one file.
        File,
        /// Files open at a time.
        OpenFiles,
        /// Threads of its user.
        Threads,
        /// Bytes in a core dump.
        Core,
    }

    /// Bounds this process and whatever it starts; nothing makes a bound higher again.
    pub fn bound(what: Bound, value: u64) -> io::Result<()> {
        let resource = match what {
            Bound::File => Resource::Fsize,
            Bound::OpenFiles => Resource::Nofile,
            Bound::Threads => Resource::Nproc,
            Bound::Core => Resource::Core,
        };
        let value = process::getrlimit(resource).maximum.map_or(value, |maximum| maximum.min(value));
        Ok(process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
    }

    /// Whether this process's user namespace is not the machine's: then the kernel counts its users' threads apart.
    pub fn has_own_users() -> bool {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_whitespace().nth(2).is_some_and(|many| many == "1")
    }

    /// Threads that this process's user has on this machine.
    pub fn threads_of_user() -> u64 {
        let user = process::geteuid().as_raw();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let own = all.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == user));
        own.filter_map(|entry| Status::of(entry.file_name().to_str()?.parse().ok()?)).map(|s| s.threads).sum()
    }

    /// Where memory runs out, this is to be ended rather than what the machine lives by.
    pub fn end_first() -> io::Result<()> {
        fs::write("/proc/self/oom_score_adj", "800")
    }
}
