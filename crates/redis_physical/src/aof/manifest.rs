//! `appendonly.aof.manifest`: a line a file, `file NAME seq N type b|i|h`.

use std::fmt;

/// More files than any server keeps.
const FILES_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AofKind {
    Base,
    Increment,
    /// Replaced; the server deletes it soon.
    History,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofFile {
    pub name: String,
    pub sequence: u64,
    pub kind: AofKind,
}

/// What a server reads at its start, in that order: the base, then the increments. The last increment grows; all other
/// files are complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub base: Option<AofFile>,
    pub increments: Vec<AofFile>,
}

impl Manifest {
    /// Strict: what a server of a later version may add is not understood here, and said so.
    pub fn parse(text: &str) -> Result<Manifest, String> {
        let mut manifest = Manifest::default();
        for (at, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            if at > FILES_MAX {
                return Err(format!("more than {FILES_MAX} lines"));
            }
            let file = parse_line(line).map_err(|fault| format!("line {}: {fault}", at + 1))?;
            match file.kind {
                AofKind::Base if manifest.base.is_some() => return Err("two base files".to_owned()),
                AofKind::Base => manifest.base = Some(file),
                AofKind::Increment => {
                    let last = manifest.increments.last();
                    if last.is_some_and(|last| last.sequence >= file.sequence) {
                        return Err(format!("line {}: increments do not ascend", at + 1));
                    }
                    manifest.increments.push(file);
                }
                AofKind::History => {}
            }
        }
        match manifest.base.is_none() && manifest.increments.is_empty() {
            true => Err("names no file".to_owned()),
            false => Ok(manifest),
        }
    }

    pub fn files(&self) -> impl Iterator<Item = &AofFile> {
        self.base.iter().chain(&self.increments)
    }

    /// The one that grows.
    #[must_use]
    pub fn newest(&self) -> Option<&AofFile> {
        self.increments.last()
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in self.files() {
            let kind = match file.kind {
                AofKind::Base => 'b',
                AofKind::Increment => 'i',
                AofKind::History => 'h',
            };
            writeln!(f, "file {} seq {} type {kind}", file.name, file.sequence)?;
        }
        Ok(())
    }
}

fn parse_line(line: &str) -> Result<AofFile, String> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["file", name, "seq", sequence, "type", kind, ..] = words[..] else {
        return Err("not `file NAME seq N type T`".to_owned());
    };
    // A server quotes other names; a path out of the folder is none.
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
        return Err(format!(
            "the name {name:?} is not plain: appendfilename may have letters, digits and ._- here"
        ));
    }
    let kind = match kind {
        "b" => AofKind::Base,
        "i" => AofKind::Increment,
        "h" => AofKind::History,
        other => return Err(format!("a file of type {other:?}, which is not known here")),
    };
    let sequence = sequence
        .parse()
        .map_err(|_| format!("seq {sequence:?} is no number"))?;
    Ok(AofFile {
        name: name.to_owned(),
        sequence,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_wrote_is_read_and_written_the_same() {
        let text = "file a.3.base.rdb seq 3 type b\nfile a.3.incr.aof seq 3 type i\nfile a.4.incr.aof seq 4 type i\n";
        let with_history = format!("#comment\nfile a.2.base.rdb seq 2 type h\n{text}");
        for text in [text, &with_history] {
            let manifest = Manifest::parse(text).unwrap();
            assert_eq!(manifest.newest().unwrap().name, "a.4.incr.aof");
            assert_eq!(manifest.files().count(), 3);
            assert_eq!(
                manifest.to_string(),
                *text.trim_start_matches("#comment\nfile a.2.base.rdb seq 2 type h\n")
            );
        }
        // The server writes a start offset behind newer ones.
        assert!(Manifest::parse("file a seq 1 type i startoffset 3\n").is_ok());
    }

    #[test]
    fn what_is_no_manifest_says_why() {
        for (text, says) in [
            ("", "names no file"),
            ("file a seq 1 type h\n", "names no file"),
            ("file a seq x type b\n", "no number"),
            ("file a seq 1 type q\n", "type \"q\""),
            ("file ../../etc/passwd seq 1 type b\n", "not plain"),
            ("file .. seq 1 type b\n", "not plain"),
            ("file \"a b\" seq 1 type b\n", "not `file"),
            ("file a seq 1 type b\nfile b seq 2 type b\n", "two base"),
            ("file a seq 2 type i\nfile b seq 2 type i\n", "ascend"),
            ("file a seq 1\n", "line 1"),
            ("\u{fffd}\u{fffd}", "line 1"),
        ] {
            let fault = Manifest::parse(text).unwrap_err();
            assert!(fault.contains(says), "{text:?}: {fault}");
        }
    }
}
