//! Questions to a person before something is deleted.

use std::io::{IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Between two looks whether the question is still open.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Asks a person; where there is none, only shows the question.
pub(crate) fn confirmed(question: &str) -> bool {
    confirmed_unless(question, &|| false)
}

/// The same. `gone`: nobody waits for the answer any more, which is no yes.
pub(crate) fn confirmed_unless(question: &str, gone: &dyn Fn() -> bool) -> bool {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        terminal::note(question);
        return false;
    }
    terminal::note(&format!("{question}\nType yes to go on:"));
    let _ = std::io::stderr().flush();
    // A terminal hands over whole lines. A signal that we listen to does not end a read.
    loop {
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        let readable = match poll(&mut ready, Some(&LOOK)) {
            Ok(count) => count > 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(_) => return false,
        };
        if gone() {
            return false;
        }
        if readable {
            break;
        }
    }
    let mut answer = String::new();
    stdin.read_line(&mut answer).is_ok() && answer.trim() == "yes"
}
