//! How much memory this process may have, and what it need not keep.

use std::fs;
use std::path::Path;

/// The lowest limit of the control groups that this process is in (cgroups(7)), in bytes. `None`: it has none, or that
/// cannot be told.
pub fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(limit_of).min()
}

/// Has malloc(3) give large pieces back to the kernel when they are freed: to load the programs takes 12 MiB that nobody
/// needs afterwards, and tables that grow leave their old room behind. By default it keeps all that is not larger than
/// what was freed before.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes numbers, and there is one thread yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1024 * 1024);
    }
}

/// Of a line such as `4:memory:/pod` (version 1) or `0::/pod` (version 2).
fn limit_of(group: &str) -> Option<u64> {
    let mut parts = group.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (root, file) = if controllers.is_empty() {
        ("/sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return None;
    };
    // A parent's limit counts too. Inside a container only the last one is there: its own group is the root.
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    let limits = groups.filter_map(|group| fs::read_to_string(Path::new(root).join(group).join(file)).ok());
    limits.filter_map(|limit| limit.trim().parse().ok()).min()
}
