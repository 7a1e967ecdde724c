//! What a program and everything it started has cost in processor time: on a machine that does other work as well, the
//! steadier figure.

use std::{collections::HashMap, fs};

/// Kernel ticks are hundredths of a second on every Linux that we know.
const MICROS_A_TICK: u64 = 10_000;

/// Microseconds of the process, of its living descendants and of those that have ended and were waited for.
pub(crate) fn micros_of(root: u32) -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut ticks: HashMap<u32, u64> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Some((parent, spent)) = parent_and_ticks(pid) else {
            continue;
        };
        children.entry(parent).or_default().push(pid);
        ticks.insert(pid, spent);
    }
    let mut sum = 0;
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        sum += ticks.get(&pid).copied().unwrap_or(0);
        open.extend(children.remove(&pid).unwrap_or_default());
    }
    sum * MICROS_A_TICK
}

fn parent_and_ticks(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks: Option<Vec<u64>> = (11..15).map(|i| fields.get(i)?.parse().ok()).collect();
    Some((fields.get(1)?.parse().ok()?, ticks?.iter().sum()))
}

/// Microseconds each of `count` cost, of `root` and all below it.
#[allow(clippy::float_arithmetic, reason = "a measurement")]
#[allow(clippy::cast_precision_loss, reason = "far below 2⁵² microseconds")]
pub(crate) fn micros_each(since: u64, root: u32, count: f64) -> f64 {
    micros_of(root).saturating_sub(since) as f64 / count.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_done_is_counted() {
        let me = std::process::id();
        let before = micros_of(me);
        let mut sum = 0_u64;
        while micros_of(me) < before + 2 * MICROS_A_TICK {
            sum = std::hint::black_box((0..1_000_000).sum());
        }
        assert!(sum > 0);
    }
}
