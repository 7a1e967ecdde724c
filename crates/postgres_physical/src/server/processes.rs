//! Other processes of this machine, as `/proc` shows them.

/// The numbers of all of them.
pub fn running_pids() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[must_use]
pub fn children_of(parent: i32) -> Vec<i32> {
    running_pids()
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

#[must_use]
pub fn parent_of(pid: i32) -> Option<i32> {
    stat_of(pid, 1)?.parse().ok()
}

/// `Z` and `X` do not run any more: nobody has waited for them yet.
#[must_use]
pub fn state_of(pid: i32) -> Option<char> {
    stat_of(pid, 0)?.chars().next()
}

#[must_use]
pub fn is_alive(pid: i32) -> bool {
    state_of(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// A field of `/proc/PID/stat`, counted from behind the program's name, which may hold spaces and brackets.
fn stat_of(pid: i32, field: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    Some(after_name.split_whitespace().nth(field)?.to_owned())
}
