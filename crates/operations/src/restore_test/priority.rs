//! A proof takes what others leave.

use std::process::{Command, Stdio};

/// This thread, the threads and processes that it starts: last in line for the processors and for the disk. On a machine that
/// knows no such thing, or does not allow it, the proof is made all the same.
pub(super) fn lower() {
    // On Linux "this process" is the calling thread; what it starts inherits.
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "a proof at the usual priority");
    }
    let thread = std::fs::read_link("/proc/thread-self").ok();
    let Some(id) = thread.as_deref().and_then(|path| path.file_name()) else {
        return;
    };
    let lowered = Command::new("ionice")
        .args(["-c", "3", "-p"])
        .arg(id)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !lowered
        .as_ref()
        .is_ok_and(std::process::ExitStatus::success)
    {
        tracing::debug!(?lowered, "a proof at the disk's usual priority");
    }
}
