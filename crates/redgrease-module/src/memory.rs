//! Memory and state of processes, as reported by the kernel.

/// Resident memory of a process and its peak, in bytes; zeros if the process does not exist.
pub fn resident_and_peak_bytes(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    (field("VmRSS:").unwrap_or(0) << 10, field("VmHWM:").unwrap_or(0) << 10)
}

/// The peak memory of a process, in bytes.
pub fn peak_bytes(pid: u32) -> u64 {
    resident_and_peak_bytes(pid).1
}

/// Processes that are looked at below one: more are not counted.
const TREE_PROCESSES_MAX: usize = 1000;

/// Resident memory of all descendants of a process, in bytes. Pages that processes share are counted for each of them.
pub fn tree_resident_bytes(root: u32) -> u64 {
    let mut found = children(root);
    let mut index = 0;
    let mut pages = 0;
    while index < found.len() {
        let pid = found[index];
        pages += resident_pages(pid);
        if found.len() < TREE_PROCESSES_MAX {
            found.extend(children(pid));
        }
        index += 1;
    }
    pages * rustix::param::page_size() as u64
}

fn resident_pages(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// The children of a process, whichever of its threads started them.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split(' ').filter_map(|pid| pid.trim().parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Memory in bytes that this process can use: that of the machine, or of its control group if less; zero if it is not known.
pub fn available_to_process_bytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10;
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = limits.into_iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    limits.chain([total]).filter(|bytes| *bytes > 0).min().unwrap_or(0)
}

/// Whether a process is stopped by a signal.
pub fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// Whether a process has ended, even if its parent has not been notified yet.
pub fn is_gone(pid: u32) -> bool {
    matches!(state(pid), None | Some('Z' | 'X'))
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// The parent of a process; `None` if there is no such process.
pub fn parent_of(pid: u64) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
