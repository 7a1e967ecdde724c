//! Where the reason is that PostgreSQL did not make a database of a restored copy. What is not known to be elsewhere is
//! in the copy: to continue with an older backup needlessly costs time, to try the same one for ever costs everything.

use crate::error::Fault;

/// PostgreSQL's words, and those of the system (`lc_messages = C`), for what no other backup would change.
const ELSEWHERE: [&str; 22] = [
    "No space left on device",
    "Disk quota exceeded",
    "Input/output error",
    "Read-only file system",
    "Stale file handle",
    "Permission denied",
    "Operation not permitted",
    "Cannot allocate memory",
    "out of memory",
    "Too many open files",
    "Resource temporarily unavailable",
    "could not fork",
    "could not create any Unix-domain sockets",
    "could not create lock file",
    "could not create shared memory segment",
    "has wrong ownership",
    "has invalid permissions",
    "is not compatible with this version",
    "received fast shutdown request",
    "received immediate shutdown request",
    "received smart shutdown request",
    "was terminated by signal 9",
];

/// Somebody, or the kernel, ended it. It ends itself by 6 (a panic), 7 and 11.
const BY_OTHERS: [&str; 5] = ["1", "2", "3", "9", "15"];

/// How PostgreSQL ended, and what it said before.
pub(super) fn of_server(reason: &str, tail: &str) -> Fault {
    let killed = reason.split_once("killed by signal ");
    let number = killed.map(|(_, rest)| rest.trim_end_matches(|c: char| !c.is_ascii_digit()));
    let by_others = number.is_some_and(|number| BY_OTHERS.contains(&number));
    if by_others || ELSEWHERE.iter().any(|words| tail.contains(words)) {
        Fault::Elsewhere
    } else {
        Fault::Backup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_backup_would_not_change_lies_elsewhere() {
        let check = |reason: &str, tail: &str, expected: Fault| {
            assert_eq!(of_server(reason, tail), expected, "{reason}: {tail}");
        };
        let ended = "PostgreSQL ended (exit code 1)";
        for tail in [
            "FATAL:  \"/d\" is not a valid data directory\nDETAIL:  File \"/d/PG_VERSION\" is missing.",
            "PANIC:  could not locate a valid checkpoint record",
            "FATAL:  could not locate required checkpoint record",
            "FATAL:  WAL ends before end of online backup",
            "FATAL:  WAL ends before consistent recovery point",
            "PANIC:  WAL contains references to invalid pages",
            "FATAL:  could not open file \"base/5/1259\": No such file or directory",
            "FATAL:  incorrect checksum in control file",
            "",
        ] {
            check(ended, tail, Fault::Backup);
        }
        for tail in [
            "FATAL:  could not extend file \"base/5/1259\": No space left on device",
            "FATAL:  could not write to file \"pg_wal/xlogtemp.7\": Disk quota exceeded",
            "FATAL:  data directory \"/d\" has wrong ownership",
            "DETAIL:  The data directory was initialized by PostgreSQL version 15, which is not compatible with this \
             version 16.",
            "LOG:  received fast shutdown request",
        ] {
            check(ended, tail, Fault::Elsewhere);
        }
        check(
            "PostgreSQL ended (killed by signal 9)",
            "",
            Fault::Elsewhere,
        );
        check(
            "PostgreSQL ended (killed by signal 15)",
            "",
            Fault::Elsewhere,
        );
        check("PostgreSQL ended (killed by signal 6)", "", Fault::Backup);
    }
}
