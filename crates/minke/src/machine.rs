//! What the operating system says of the machine; Linux so far, elsewhere the answers are "unknown".

use std::fs;
use std::path::Path;

use serde::Serialize;

/// A cache that the first core uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// 1 is nearest to the core.
    pub level: u32,
    /// `data`, `instruction` or `unified`.
    pub kind: String,
    /// Its size.
    pub bytes: u64,
    /// Cores that share it.
    pub cores: usize,
}

/// The processor's name.
pub fn cpu_name() -> Option<String> {
    let about = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = about.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Cores that are switched on, whether this process may use them or not.
pub fn cores() -> Option<usize> {
    list_length(&fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

/// Bytes of main memory.
pub fn memory() -> Option<u64> {
    let about = fs::read_to_string("/proc/meminfo").ok()?;
    let line = about.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Bytes of memory that this process may still take: what the machine has free or can free at once, or less where the
/// process's group is held to less. Files in memory count as free.
pub fn available_memory() -> Option<u64> {
    let about = fs::read_to_string("/proc/meminfo").ok()?;
    let line = about.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(groups.lines().filter_map(available_in_group).fold(machine, u64::min))
}

/// What is left to the group that a line of `/proc/self/cgroup` names.
fn available_in_group(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    let (root, limit, usage, files) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
        _ if controllers.split(',').any(|c| c == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        }
        _ => return None,
    };
    // In a container the group is often the root that it sees, whatever its name outside.
    [Path::new(root).join(group), root.into()].into_iter().find_map(|directory| {
        let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let (limit, usage) = (number(limit)?, number(usage)?);
        let about = read("memory.stat").unwrap_or_default();
        let files = about.lines().find_map(|line| line.strip_prefix(files)).and_then(|n| n.trim().parse().ok());
        Some(limit.saturating_sub(usage.saturating_sub(files.unwrap_or(0))))
    })
}

/// The first core's caches, nearest first; none where they are not known.
pub fn caches() -> Vec<Cache> {
    let directory = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let cache = |i: u32| -> Option<Cache> {
        let read = |name: &str| fs::read_to_string(directory.join(format!("index{i}/{name}"))).ok();
        Some(Cache {
            level: read("level")?.trim().parse().ok()?,
            kind: read("type")?.trim().to_lowercase(),
            bytes: read("size")?.trim().strip_suffix('K')?.parse::<u64>().ok()? * 1024,
            cores: list_length(&read("shared_cpu_list")?)?,
        })
    };
    (0..16).map_while(cache).collect()
}

/// How many numbers a list such as `0-3,8` names.
fn list_length(list: &str) -> Option<usize> {
    list.trim()
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
            Some(last.checked_sub(first)? + 1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_counted() {
        for (list, expected) in
            [("0-1\n", Some(2)), ("0", Some(1)), ("0-3,8,10-11", Some(7)), ("", None), ("3-1", None)]
        {
            assert_eq!(list_length(list), expected, "{list:?}");
        }
    }
}
