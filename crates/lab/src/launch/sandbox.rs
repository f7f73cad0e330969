//! What keeps a run in its place: Landlock for files, signals and sockets, and limits that the kernel enforces.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::order::Order;
use super::stint::{Held, Stint};
use super::system::{self, Bound};

/// Programs and what they are made of; of `/etc` what everybody may read.
const SYSTEM: [&str; 14] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/snap",
    "/proc",
    "/sys",
    "/run/systemd/resolve",
];
/// Devices that hold nothing.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// The newest of Landlock that this was tried with; older ones are used as far as they go.
const NEWEST: ABI = ABI::V7;
/// Scopes are there from this version on.
const SCOPES: ABI = ABI::V6;
/// Files open at a time, where the system does not allow fewer.
const OPEN_FILES: u64 = 65_536;

/// Shuts this process in, and whatever it executes: it may read the system, what the order names and its own directories,
/// and write the latter.
///
/// # Errors
/// When the kernel can't.
pub fn shut_in(stint: &Stint, order: &Order, own_shared_memory: bool) -> io::Result<Held> {
    let failed = |e: landlock::RulesetError| io::Error::other(format!("Landlock can't be used: {e}"));
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .map_err(|_| without_landlock())?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    let mut rules = allow(rules, &readable(order), AccessFs::from_read(NEWEST))?;
    rules = allow(rules, &[stint.directory().to_path_buf()], AccessFs::ReadFile | AccessFs::ReadDir)?;
    rules = allow(rules, &DEVICES.map(PathBuf::from), AccessFs::ReadFile | AccessFs::WriteFile)?;
    let everything = AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    rules = allow(rules, &stint.writable(), everything)?;
    if own_shared_memory {
        rules = allow(rules, &[PathBuf::from("/dev/shm")], everything)?;
    }
    let status = rules.restrict_self().map_err(failed)?;
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return Err(without_landlock());
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(without_landlock());
    }
    let mut held = Held::default();
    held.in_force.push(format!("Landlock {effective_abi} for files"));
    let scopes = if effective_abi >= SCOPES { &mut held.in_force } else { &mut held.missing };
    scopes.push("Landlock for signals and abstract sockets".to_string());
    Ok(held)
}

fn without_landlock() -> io::Error {
    io::Error::other(
        "this machine's kernel does not offer Landlock, which keeps a run away from everybody else's files; boot Linux \
         5.13 or later with lsm=landlock,…, or start the lab without a sandbox, among people who trust each other",
    )
}

fn allow(rules: RulesetCreated, paths: &[PathBuf], access: BitFlags<AccessFs>) -> io::Result<RulesetCreated> {
    let mut rules = rules;
    for path in paths {
        let (Ok(file), Ok(metadata)) = (PathFd::new(path), path.metadata()) else { continue };
        let access = if metadata.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        rules = rules.add_rule(PathBeneath::new(file, access)).map_err(io::Error::other)?;
    }
    Ok(rules)
}

/// Everything that may be read besides the run's own, so that nothing of what is closed is among it.
fn readable(order: &Order) -> Vec<PathBuf> {
    let closed: Vec<PathBuf> = order.closed.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let mut paths = Vec::new();
    for path in SYSTEM.iter().map(Path::new).chain(order.reads.iter().map(PathBuf::as_path)) {
        if let Ok(path) = path.canonicalize() {
            leave_out(path, &closed, &mut paths);
        }
    }
    let etc = PathBuf::from("/etc");
    if public(&etc, &mut paths) {
        paths.push(etc);
    }
    paths
}

/// Adds a path, or where something closed lies in it, what else lies there. Landlock knows no exceptions to what it allows.
fn leave_out(path: PathBuf, closed: &[PathBuf], into: &mut Vec<PathBuf>) {
    if closed.contains(&path) {
        return;
    }
    if !closed.iter().any(|closed| closed.starts_with(&path)) {
        into.push(path);
        return;
    }
    for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
        // What a link leads to needs leave of its own.
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            leave_out(entry.path(), closed, into);
        }
    }
}

/// Whether all in a directory is readable for everybody; if not, adds what is. As root a run reads like its owner, and
/// `/etc` has secrets that the owner may read.
fn public(directory: &Path, into: &mut Vec<PathBuf>) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    let (mut all, mut parts) = (true, Vec::new());
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let (kind, mode) = (metadata.file_type(), metadata.permissions().mode());
        let open = match () {
            () if kind.is_symlink() => continue,
            () if kind.is_dir() => mode & 0o005 == 0o005 && public(&path, &mut parts),
            () => mode & 0o004 != 0 && !kind.is_socket() && !kind.is_fifo(),
        };
        if open {
            parts.push(path);
        }
        all &= open;
    }
    if !all {
        into.append(&mut parts);
    }
    all
}

/// Sets the limits that the kernel keeps by itself; those of a whole run are watched (`watch.rs`).
pub fn bound(order: &Order, own_user_namespace: bool, held: &mut Held) -> io::Result<()> {
    system::bound(Bound::Core, 0)?;
    system::bound(Bound::File, order.limits.file)?;
    system::bound(Bound::OpenFiles, OPEN_FILES)?;
    // The kernel counts all threads of a user, in a user namespace only those in there.
    let others = if own_user_namespace { 0 } else { system::threads_of_user() };
    system::bound(Bound::Threads, others + u64::from(order.limits.threads()))?;
    held.in_force.push("limits for files and threads".to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_is_closed_is_left_out_of_what_it_lies_in() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        for name in ["a/home/secret", "a/home/models/m", "a/other", "b"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("a/home"), root.join("a/link")).unwrap();
        let closed = [root.join("a/home")];
        let left = |path: &str| {
            let mut left = Vec::new();
            leave_out(root.join(path), &closed, &mut left);
            left.sort();
            left.into_iter().map(|path| path.strip_prefix(&root).unwrap().to_path_buf()).collect::<Vec<_>>()
        };
        assert_eq!(left("a"), paths(&["a/other"]));
        assert_eq!(left(""), paths(&["a/other", "b"]));
        assert_eq!(left("a/home"), paths(&[]));
        // What lies in something closed and is named all the same is meant.
        assert_eq!(left("a/home/models"), paths(&["a/home/models"]));
    }

    #[test]
    fn secrets_among_public_files_are_left_out() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        for (name, mode) in
            [("hosts", 0o644), ("shadow", 0o640), ("ssl/cert", 0o644), ("ssh/config", 0o644), ("ssh/key", 0o600)]
        {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "").unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(root.join(name).parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(root.join("private")).unwrap();
        fs::write(root.join("private/open"), "").unwrap();
        fs::set_permissions(root.join("private"), fs::Permissions::from_mode(0o710)).unwrap();
        let mut open = Vec::new();
        assert!(!public(root, &mut open));
        open.sort();
        let expected: Vec<PathBuf> = ["hosts", "ssh/config", "ssl"].iter().map(|name| root.join(name)).collect();
        assert_eq!(open, expected);
        assert!(public(&root.join("ssl"), &mut Vec::new()));
    }
}
