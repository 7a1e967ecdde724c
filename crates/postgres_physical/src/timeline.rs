//! Timelines and their history files.

use crate::lsn::Lsn;

/// One line of a history file: `parent` was left at `switch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    pub parent: u32,
    pub switch: Lsn,
    pub reason: String,
}

/// The history of a timeline: its ancestors, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub switches: Vec<Switch>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} of the timeline history file is damaged: {text:?}; fetch the file again from the server or the \
     repository"
)]
pub struct HistoryError {
    pub line: usize,
    pub text: String,
}

/// `00000002.history`
pub fn history_file_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

impl History {
    /// Parents must rise and so must switch points; comments and empty lines are allowed.
    pub fn parse(text: &str) -> Result<History, HistoryError> {
        let mut switches: Vec<Switch> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let error = || HistoryError {
                line: number + 1,
                text: line.to_owned(),
            };
            let mut fields = line.splitn(3, char::is_whitespace);
            let parent: u32 = fields
                .next()
                .and_then(|f| f.parse().ok())
                .ok_or_else(error)?;
            let switch: Lsn = fields
                .next()
                .and_then(|f| f.parse().ok())
                .ok_or_else(error)?;
            if switches
                .last()
                .is_some_and(|last| last.parent >= parent || last.switch > switch)
            {
                return Err(error());
            }
            switches.push(Switch {
                parent,
                switch,
                reason: fields.next().unwrap_or_default().trim().to_owned(),
            });
        }
        Ok(History { switches })
    }

    /// The text PostgreSQL would write.
    pub fn to_text(&self) -> String {
        self.switches
            .iter()
            .map(|s| format!("{}\t{}\t{}\n", s.parent, s.switch, s.reason))
            .collect()
    }

    /// Where `ancestor` was left on the way to this timeline.
    pub fn left_at(&self, ancestor: u32) -> Option<Lsn> {
        self.switches
            .iter()
            .find(|switch| switch.parent == ancestor)
            .map(|switch| switch.switch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_reads_and_writes_the_same() {
        let text = "1\t0/3000158\tno recovery target specified\n3\t0/4000000\tbefore 2026-01-01 00:00:00+00\n";
        let history = History::parse(text).unwrap();
        assert_eq!(history.to_text(), text);
        assert_eq!(history.left_at(3), Some(Lsn(0x400_0000)));
        assert_eq!(history.left_at(2), None);
    }

    #[test]
    fn damaged_lines_are_named() {
        let check = |text: &str, line: usize| {
            assert_eq!(History::parse(text).unwrap_err().line, line, "{text}")
        };
        check("1 0/1 a\nx 0/2 b\n", 2);
        check("1 nonsense a\n", 1);
        check("2 0/1 a\n1 0/2 b\n", 2);
        check("1 0/5 a\n2 0/2 b\n", 2);
        assert_eq!(History::parse("# comment\n\n").unwrap(), History::default());
    }
}
