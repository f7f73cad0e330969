//! What the operating system tells and does: time and energy that were spent, limits of programs, and their ends. Linux first;
//! what is not known elsewhere is `None`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

/// Where Linux tells of energy.
pub const POWERCAP: &str = "/sys/class/powercap";

/// Seconds of cores' time that this process has taken so far, all its threads, for itself and in the system.
#[cfg(unix)]
pub fn core_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64)
}

/// Seconds of cores' time that this process has taken so far.
#[cfg(not(unix))]
pub fn core_seconds() -> Option<f64> {
    None
}

/// Counters of the energy that the machine's processors take, whoever uses them: one a package (RAPL, on Intel's and AMD's).
/// Most virtual machines have none, and most systems show them to the administrator alone.
#[derive(Debug)]
pub struct Energy {
    packages: Vec<Package>,
}

#[derive(Debug)]
struct Package {
    counter: PathBuf,
    /// Microjoules after which the counter begins again at 0.
    range: u64,
    /// What it said last.
    last: u64,
}

impl Energy {
    /// The counters under a directory such as [`POWERCAP`].
    pub fn of(powercap: &Path) -> Energy {
        let package = |path: PathBuf| {
            // A package's parts have counters too, and so has the whole system.
            let name = fs::read_to_string(path.join("name")).ok()?;
            let range = number(&path.join("max_energy_range_uj"))?;
            let counter = path.join("energy_uj");
            let last = name.starts_with("package-").then(|| number(&counter))??;
            Some(Package { counter, range, last })
        };
        let zones = fs::read_dir(powercap).into_iter().flatten().flatten();
        let zones = zones.filter(|zone| zone.file_name().to_string_lossy().starts_with("intel-rapl:"));
        Energy { packages: zones.filter_map(|zone| package(zone.path())).collect() }
    }

    /// Joules since it was asked last; counters begin again at 0 every so many minutes, and must be asked more often than that.
    pub fn joules(&mut self) -> Option<f64> {
        let mut sum = 0;
        for Package { counter, range, last } in &mut self.packages {
            let now = number(counter)?;
            sum += if now >= *last { now - *last } else { range.saturating_sub(*last).saturating_add(now) };
            *last = now;
        }
        (!self.packages.is_empty()).then_some(1e-6 * sum as f64)
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Holds a program to so many bytes of address space for each of its processes.
///
/// # Errors
/// Why that can't be, as a sentence's end.
#[cfg(target_os = "linux")]
pub fn limit_memory(child: &Child, bytes: u64) -> Result<(), String> {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let most = getrlimit(Resource::As).maximum.map_or(bytes, |most| most.min(bytes));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    match prlimit(Some(Pid::from_child(child)), Resource::As, limit) {
        // One that has ended already is found out when it is asked.
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(format!("can't be given a memory limit: {error}")),
    }
}

/// Holds a program to so many bytes of address space, where the system can.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn limit_memory(_: &Child, _: u64) -> Result<(), String> {
    Ok(())
}

/// Ends a program, and on Unix all that is in its process group.
pub fn end(child: &mut Child) {
    #[cfg(unix)]
    let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(child), rustix::process::Signal::KILL);
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn time_passes_only_where_something_is_done() {
        let start = core_seconds().unwrap();
        let mut sum = 0_u64;
        while core_seconds().unwrap() < start + 0.02 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }

    #[test]
    fn energy_is_the_packages_and_counters_begin_again() {
        let powercap = tempfile::tempdir().unwrap();
        let write = |zone: &str, file: &str, text: &str| {
            let zone = powercap.path().join(zone);
            fs::create_dir_all(&zone).unwrap();
            fs::write(zone.join(file), text).unwrap();
        };
        let zones = [
            ("intel-rapl:0", "package-0\n", "4000000\n"),
            ("intel-rapl:1", "package-1\n", "9000000\n"),
            ("intel-rapl:0:0", "core\n", "1\n"),
            ("intel-rapl:2", "psys\n", "1\n"),
            ("dtpm", "package-2\n", "1\n"),
        ];
        for (zone, name, counter) in zones {
            write(zone, "name", name);
            write(zone, "max_energy_range_uj", "10000000\n");
            write(zone, "energy_uj", counter);
        }
        let mut energy = Energy::of(powercap.path());
        assert_eq!(energy.joules(), Some(0.0));
        for (zone, _, _) in zones {
            write(zone, "energy_uj", "5500000");
        }
        // 1.5 J of the first; of the second 1 J to its end, and 5.5 J from there.
        assert!((energy.joules().unwrap() - 8.0).abs() < 1e-9);
        assert_eq!(energy.joules(), Some(0.0));
        fs::remove_file(powercap.path().join("intel-rapl:1/energy_uj")).unwrap();
        assert_eq!(energy.joules(), None);
        assert_eq!(Energy::of(&powercap.path().join("nowhere")).joules(), None);
    }
}
