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
