//! Every class of object that a repository holds, by name (repository.md §1). Whoever reads all of it goes through this one list: a new
//! class is a new variant, and does not compile before it says how it is read back.

use serde::Serialize;

/// In the order of the table in repository.md §1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectClass {
    Format,
    Cluster,
    Wrap,
    AuditEntries,
    LogStretch,
    AuditWrap,
    Pack,
    Manifest,
    RestoreTest,
    PackList,
    Snapshot,
    SnapshotPackList,
    SnapshotVerification,
    WalSegment,
    WalTail,
    History,
    Reservation,
    Head,
    /// The newest head of the first repository, in a further one.
    Anchor,
    Thinning,
    /// A head that a proof names.
    Kept,
    Tile,
    Origin,
    Cosigned,
    KeyStatement,
    Tombstone,
    Probe,
    Claim,
    Hold,
    Hole,
    /// What became of one run of a job.
    Run,
    /// The runs of a month.
    RunMonth,
    /// Which engine runs the jobs of the plan.
    PlanClaim,
    /// A name of no class: nobody here wrote it, or a newer engine did.
    Foreign,
}

impl ObjectClass {
    /// All that repository.md lists.
    pub const KNOWN: [Self; 33] = [
        Self::Format,
        Self::Cluster,
        Self::Wrap,
        Self::AuditEntries,
        Self::LogStretch,
        Self::AuditWrap,
        Self::Pack,
        Self::Manifest,
        Self::RestoreTest,
        Self::PackList,
        Self::Snapshot,
        Self::SnapshotPackList,
        Self::SnapshotVerification,
        Self::WalSegment,
        Self::WalTail,
        Self::History,
        Self::Reservation,
        Self::Head,
        Self::Anchor,
        Self::Thinning,
        Self::Kept,
        Self::Tile,
        Self::Origin,
        Self::Cosigned,
        Self::KeyStatement,
        Self::Tombstone,
        Self::Probe,
        Self::Claim,
        Self::Hold,
        Self::Hole,
        Self::Run,
        Self::RunMonth,
        Self::PlanClaim,
    ];

    /// Its form: `<hex N>` stands for N lower-case hex digits, `<number>` for decimal ones, `<name>` for a component or the rest of one.
    #[must_use]
    pub fn form(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Cluster => "cluster/<hex 16>",
            Self::Wrap => "wraps/<hex 32>/<hex 32>",
            Self::AuditEntries => "audit/entries/<number>/<hex 8>-<hex 16>-<hex 16>",
            Self::LogStretch => "logs/<name>/<name>/<hex 16>-<number>.<hex 8>",
            Self::AuditWrap => "audit/wraps/<hex 32>/<hex 32>",
            Self::Pack => "packs/<hex 32>",
            Self::Manifest => "backups/<name>/manifest",
            Self::RestoreTest => "backups/<name>/proof-<hex 16>",
            Self::PackList => "backups/<name>/packs-<hex 32>",
            Self::Snapshot => "snapshots/<name>/<name>/manifest",
            Self::SnapshotPackList => "snapshots/<name>/<name>/packs-<hex 32>",
            Self::SnapshotVerification => "snapshots/<name>/<name>/verified-<hex 16>",
            Self::WalSegment => "wal/<hex 8>/<hex 16>.<name>",
            Self::WalTail => "tail/<hex 8>/<hex 16>/<hex 16>.<name>",
            Self::History => "timelines/<hex 8>.history",
            Self::Reservation => "timelines/<hex 8>.reserved.<name>",
            Self::Head => "heads/<number>/<hex 8>-<hex 16>",
            Self::Anchor => "anchors/<number>/<hex 8>-<hex 16>",
            Self::Thinning => "thinned/<number>/<hex 8>-<hex 16>-<hex 16>.<hex 16>",
            Self::Kept => "kept/<number>/<hex 8>-<hex 16>",
            Self::Tile => "tlog/<number>/<hex 8>/<hex 2>-<hex 16>",
            Self::Origin => "origins/<number>/<hex 8>",
            Self::Cosigned => "cosigned/<number>/<hex 8>-<hex 16>.<hex 8>",
            Self::KeyStatement => "signing-keys/<number>/<hex 32>",
            Self::Tombstone => "tombstones/<name>",
            Self::Probe => "probes/<hex 16>",
            Self::Claim => "probes/claim-<hex 32>",
            Self::Hold => "holds/<name>/<hex 16>-<name>",
            Self::Hole => "holes/<hex 8>/<hex 16>-<hex 16>.<name>",
            Self::Run => "runs/<number>-<number>/<hex 16>-<hex 8>",
            Self::RunMonth => "runs/compacted/<number>-<number>-<hex 32>",
            Self::PlanClaim => "claims/<hex 1>-<hex 16>.<hex 8>.<name>",
            Self::Foreign => "",
        }
    }

    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Format => "the repository's marker",
            Self::Cluster => "whose repository it is",
            Self::Wrap => "data keys",
            Self::AuditEntries => "archive of the audit log",
            Self::LogStretch => "stretches of logs",
            Self::AuditWrap => "data keys of the archive",
            Self::Pack => "packs",
            Self::Manifest => "manifests",
            Self::RestoreTest => "restore tests",
            Self::PackList => "pack lists",
            Self::Snapshot => "manifests of snapshots",
            Self::SnapshotPackList => "pack lists of snapshots",
            Self::SnapshotVerification => "verifications of snapshots",
            Self::WalSegment => "WAL segments",
            Self::WalTail => "WAL tails",
            Self::History => "timeline histories",
            Self::Reservation => "reserved timelines",
            Self::Head => "signed heads",
            Self::Anchor => "anchors",
            Self::Thinning => "thinnings",
            Self::Kept => "heads that are kept",
            Self::Tile => "hash tiles",
            Self::Origin => "first checkpoints",
            Self::Cosigned => "cosigned checkpoints",
            Self::KeyStatement => "statements about keys",
            Self::Tombstone => "marks of expiry",
            Self::Probe | Self::Claim => "probes",
            Self::Hold => "legal holds",
            Self::Hole => "known holes",
            Self::Run => "run records",
            Self::RunMonth => "run records by the month",
            Self::PlanClaim => "claims to the plan",
            Self::Foreign => "not of this format",
        }
    }

    #[must_use]
    pub fn of(name: &str) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|class| is_of_form(name, class.form()))
            .unwrap_or(Self::Foreign)
    }
}

fn is_of_form(name: &str, form: &str) -> bool {
    let Some((literal, rest)) = form.split_once('<') else {
        return name == form;
    };
    let Some(name) = name.strip_prefix(literal) else {
        return false;
    };
    let Some((field, rest)) = rest.split_once('>') else {
        return false;
    };
    let hex = |c: &u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    let field_len = match field.strip_prefix("hex ").map(str::parse::<usize>) {
        Some(Ok(len)) => {
            let digits = name.as_bytes().get(..len);
            digits
                .is_some_and(|digits| digits.iter().all(hex))
                .then_some(len)
        }
        Some(Err(_)) => None,
        None => {
            let of_field = |c: char| match field {
                "number" => c.is_ascii_digit(),
                _ => c != '/',
            };
            let len = name.find(|c| !of_field(c)).unwrap_or(name.len());
            (len > 0).then_some(len)
        }
    };
    field_len.is_some_and(|len| is_of_form(&name[len..], rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Fields of a name in the table of the format document, in the words of [`ObjectClass::form`].
    fn form_of_row(row: &str) -> String {
        let mut form = String::new();
        let mut rest = row;
        while let Some((literal, after)) = rest.split_once('<') {
            let (field, after) = after.split_once('>').unwrap();
            form.push_str(literal);
            let digits: String = field.chars().filter(char::is_ascii_digit).collect();
            // Their width stands once in the document, where they are first named.
            form.push_str(&match field {
                "timeline" | "epoch" => "<hex 8>".to_owned(),
                "segment number" => "<hex 16>".to_owned(),
                "log" | "year" | "month" | "day" => "<number>".to_owned(),
                "n" => "<hex 16>".to_owned(),
                _ if !digits.is_empty() => format!("<hex {digits}>"),
                _ => "<name>".to_owned(),
            });
            rest = after;
        }
        form.push_str(rest);
        form
    }

    #[test]
    fn the_format_document_and_the_code_know_the_same_classes() {
        let page = include_str!("../../../../docs/formats/repository.md");
        let (_, table) = page.split_once("## 1. Names").unwrap();
        let (table, _) = table.split_once("\n\nComponents").unwrap();
        let named = |line: &&str| line.starts_with("| `");
        let documented: BTreeSet<String> = table
            .lines()
            .filter(named)
            .map(|line| form_of_row(line.split('`').nth(1).unwrap()))
            .collect();
        let coded: BTreeSet<String> = ObjectClass::KNOWN
            .iter()
            .map(|class| match class {
                // The document says which kinds there are, and what words.
                ObjectClass::Tombstone => "tombstones/<name>.<name>".to_owned(),
                ObjectClass::Hold => "holds/<name>/<hex 16>-set".to_owned(),
                other => other.form().to_owned(),
            })
            .collect();
        assert_eq!(documented, coded);
    }

    #[test]
    fn a_name_is_of_one_class_or_foreign() {
        let check = |name: &str, class| assert_eq!(ObjectClass::of(name), class, "{name}");
        let hex = "0123456789abcdef0123456789abcdef";
        check("format", ObjectClass::Format);
        check("format2", ObjectClass::Foreign);
        check(&format!("packs/{hex}"), ObjectClass::Pack);
        check(&format!("packs/{hex}0"), ObjectClass::Foreign);
        check(
            &format!("packs/{}", hex.to_uppercase()),
            ObjectClass::Foreign,
        );
        check("backups/x/manifest", ObjectClass::Manifest);
        check("backups/x/y/manifest", ObjectClass::Foreign);
        check("backups/x/proof-0123456789abcdef", ObjectClass::RestoreTest);
        check(&format!("wraps/{hex}/{hex}"), ObjectClass::Wrap);
        check(&format!("wraps/{hex}"), ObjectClass::Foreign);
        let snapshot = "snapshots/configuration/20261123T081530Z-00000001";
        check(&format!("{snapshot}/manifest"), ObjectClass::Snapshot);
        check(
            &format!("{snapshot}/packs-{hex}"),
            ObjectClass::SnapshotPackList,
        );
        check(&format!("{snapshot}/part-1"), ObjectClass::Foreign);
        check(
            "wal/00000001/0000000000000001.s1-0a0b0c0d",
            ObjectClass::WalSegment,
        );
        check(
            "tail/00000001/0000000000000001/0000000000000010.s1-0a0b0c0d-1",
            ObjectClass::WalTail,
        );
        check("timelines/00000002.history", ObjectClass::History);
        check("timelines/00000002.reserved.r-1", ObjectClass::Reservation);
        check("timelines/00000002.histories", ObjectClass::Foreign);
        check("heads/1/00000001-0000000000000002", ObjectClass::Head);
        check("heads/x/00000001-0000000000000002", ObjectClass::Foreign);
        check(&format!("probes/claim-{hex}"), ObjectClass::Claim);
        check("runs/2026-11/0123456789abcdef-0a0b0c0d", ObjectClass::Run);
        check(
            &format!("runs/compacted/2026-11-{hex}"),
            ObjectClass::RunMonth,
        );
        check("runs/open/0123456789abcdef-0a0b0c0d", ObjectClass::Foreign);
        check("", ObjectClass::Foreign);
    }
}
