//! From which backup a restore starts. Every backup of a span leads to the same place: WAL replays from each.

use repository::backup::BackupSummary;

use super::window::{Holdings, Span};
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// The newest one that leads to the target: the least WAL to replay.
    Newest,
    /// The newest one but for these, by their ids. The place where replay stops is the same.
    Without(&'a [String]),
    /// The newest one that is older than this.
    OlderThan(&'a str),
    /// This one.
    Backup(&'a str),
}

impl Start<'_> {
    pub(super) fn choose<'a>(
        self,
        holdings: &'a Holdings,
        span: &Span,
        link: usize,
        lsn: u64,
    ) -> Result<&'a BackupSummary> {
        let mut usable = usable(holdings, span, link, lsn);
        match self {
            Self::Newest => usable.next().ok_or_else(|| {
                Error::NothingToRestore("no complete backup reaches the target".to_owned())
            }),
            Self::Without(passed_over) => usable
                .find(|backup| !passed_over.contains(&backup.id))
                .ok_or_else(|| Error::NoOtherBackup {
                    passed_over: passed_over.to_vec(),
                }),
            Self::OlderThan(id) => {
                let mut older = usable.skip_while(|backup| backup.id != id).skip(1);
                older.next().ok_or_else(|| Error::NoOtherBackup {
                    passed_over: vec![id.to_owned()],
                })
            }
            Self::Backup(id) => usable.find(|backup| backup.id == id).ok_or_else(|| {
                let id = id.to_owned();
                match holdings.complete.iter().any(|backup| backup.id == id) {
                    true => Error::LeadsElsewhere { id },
                    false => Error::NoSuchBackup { id },
                }
            }),
        }
    }
}

/// Those from which WAL leads to the target without a hole, the newest first.
fn usable<'a>(
    holdings: &'a Holdings,
    span: &Span,
    link: usize,
    lsn: u64,
) -> impl Iterator<Item = &'a BackupSummary> {
    let links = span.links[..=link].iter().enumerate().rev();
    let mut found = Vec::new();
    for (number, link_here) in links {
        // The last record of a span may start before the backup's end and end at it.
        let upto = if number == link {
            lsn.max(span.from_lsn())
        } else {
            link_here.to
        };
        let here = holdings.complete.iter().filter(|backup| {
            backup.timeline == link_here.timeline
                && link_here.wal_from <= backup.start_lsn
                && link_here.from <= backup.stop_lsn
                && backup.stop_lsn <= upto
        });
        let mut here: Vec<_> = here.collect();
        here.sort_by_key(|backup| std::cmp::Reverse(backup.stop_lsn));
        found.extend(here);
    }
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::two_spans;
    use super::super::window::tests::{backup, holdings, path};
    use super::*;

    fn choose<'a>(
        holdings: &'a Holdings,
        span: &Span,
        link: usize,
        lsn: u64,
    ) -> Result<&'a BackupSummary> {
        Start::Newest.choose(holdings, span, link, lsn)
    }

    #[test]
    fn the_newest_consistent_backup_is_taken() {
        let (holdings, spans) = two_spans();
        let check = |span: usize, lsn: u64, expected: &str| {
            assert_eq!(
                choose(&holdings, &spans[span], 0, lsn).unwrap().id,
                expected,
                "{lsn:x}"
            );
        };
        check(0, 0x150, "a");
        check(0, 0x21f, "a");
        check(0, 0x220, "b");
        check(0, 0x2ff, "b");
        check(1, 0x500, "c");
        // The last record may be the one that ends the backup.
        check(1, 0x478, "c");
    }

    #[test]
    fn a_backup_of_an_ancestor_serves_its_child() {
        let backups = vec![backup("a", 1, 0x120, 0x150), backup("b", 1, 0x260, 0x290)];
        let holdings = holdings(&[(1, 0x100, 0x300), (2, 0x200, 0x500)], backups);
        let spans = holdings.spans(&path(&[(2, 0x280)]));
        assert_eq!(choose(&holdings, &spans[0], 1, 0x400).unwrap().id, "a");
    }
    #[test]
    fn another_backup_is_taken_only_where_it_leads_to_the_same_place() {
        let (holdings, spans) = two_spans();
        let check = |start: Start<'_>, span: usize, lsn: u64, expected: Result<&str, &str>| match (
            start.choose(&holdings, &spans[span], 0, lsn),
            expected,
        ) {
            (Ok(found), Ok(id)) => assert_eq!(found.id, id, "{start:?}"),
            (Err(error), Err(words)) => {
                assert!(error.to_string().contains(words), "{start:?}: {error}");
            }
            (found, _) => panic!("{start:?} gave {found:?}"),
        };
        let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        check(Start::Without(&ids(&["b"])), 0, 0x2ff, Ok("a"));
        check(Start::Without(&ids(&["a"])), 0, 0x2ff, Ok("b"));
        check(
            Start::Without(&ids(&["b", "a"])),
            0,
            0x2ff,
            Err("Not used: b, a"),
        );
        // Behind the hole nothing older leads to the newest WAL: what is before it would be less than there was.
        check(Start::Without(&ids(&["c"])), 1, 0x500, Err("Not used: c"));
        check(Start::OlderThan("b"), 0, 0x2ff, Ok("a"));
        check(Start::OlderThan("a"), 0, 0x2ff, Err("Not used: a"));
        check(Start::Backup("a"), 0, 0x2ff, Ok("a"));
        check(
            Start::Backup("b"),
            0,
            0x21f,
            Err("does not lead to this target"),
        );
        check(
            Start::Backup("a"),
            1,
            0x500,
            Err("does not lead to this target"),
        );
        check(Start::Backup("z"), 0, 0x2ff, Err("no complete backup z"));
    }
}
