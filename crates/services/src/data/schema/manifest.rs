//! What the migrations make, at every version.

use super::Facts;

/// One line each: the first version that makes it so, the first that no longer does (or nothing), table, object, what it is; tabs between.
const TEXT: &str = include_str!("manifest.txt");

/// A fact and the versions at which it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    from: i64,
    until: Option<i64>,
    key: (String, String),
    is: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest(Vec<Line>);

impl Manifest {
    pub(super) fn embedded() -> Manifest {
        Manifest::read(TEXT)
    }

    /// A line that is none is left out; a test compares the whole with the migrations.
    fn read(text: &str) -> Manifest {
        let line = |line: &str| {
            let mut parts = line.splitn(5, '\t');
            let mut next = || parts.next();
            let (from, until) = (next()?.parse().ok()?, next()?.parse().ok());
            let key = (next()?.to_owned(), next()?.to_owned());
            let is = next()?.to_owned();
            Some(Line {
                from,
                until,
                key,
                is,
            })
        };
        Manifest(text.lines().filter_map(line).collect())
    }

    pub(super) fn at(&self, version: i64) -> Facts {
        let holds =
            |line: &&Line| line.from <= version && line.until.is_none_or(|until| version < until);
        let lines = self.0.iter().filter(holds);
        lines
            .map(|line| (line.key.clone(), line.is.clone()))
            .collect()
    }

    /// Of every version.
    pub(super) fn tables(&self) -> Vec<&str> {
        let mut tables: Vec<&str> = self.0.iter().map(|line| line.key.0.as_str()).collect();
        tables.sort_unstable();
        tables.dedup();
        tables.retain(|table| !table.is_empty());
        tables
    }

    /// From the facts of each version, in order.
    #[cfg(test)]
    pub(super) fn made(versions: &[(i64, Facts)]) -> Manifest {
        let mut lines: Vec<Line> = Vec::new();
        for (version, facts) in versions {
            for line in lines.iter_mut().filter(|line| line.until.is_none()) {
                if facts.get(&line.key) != Some(&line.is) {
                    line.until = Some(*version);
                }
            }
            for (key, is) in facts {
                let known = |line: &Line| line.until.is_none() && line.key == *key;
                if !lines.iter().any(known) {
                    lines.push(Line {
                        from: *version,
                        until: None,
                        key: key.clone(),
                        is: is.clone(),
                    });
                }
            }
        }
        lines.sort_by(|a, b| (&a.key, a.from).cmp(&(&b.key, b.from)));
        Manifest(lines)
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        let line = |line: &Line| {
            let until = line.until.map_or(String::new(), |until| until.to_string());
            let (table, object) = &line.key;
            format!("{}\t{until}\t{table}\t{object}\t{}\n", line.from, line.is)
        };
        self.0.iter().map(line).collect()
    }
}
