//! What PostgreSQL's own base backup leaves out, by name: `sendDir` of its `basebackup.c`, rule for rule.

use std::collections::BTreeSet;

/// Folders that are copied empty: the server makes their content anew.
const EMPTY_FOLDERS: [&str; 7] = [
    "pg_stat_tmp",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
];

const FILES: [&str; 7] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
];

/// Relation caches, rebuilt at the start, and files of sorts that did not fit into memory.
const PREFIXES: [&str; 2] = ["pg_internal.init", "pgsql_tmp"];

/// At any depth, whatever it is.
pub(super) fn is_left_out(name: &str) -> bool {
    FILES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// At any depth.
pub(super) fn is_copied_empty(name: &str) -> bool {
    EMPTY_FOLDERS.contains(&name)
}

/// Whether relations of a database lie in the folder: `base/5`, `pg_tblspc/16390/PG_15_202209061/5`.
pub(super) fn holds_relations(folder: &str) -> bool {
    match folder.split('/').collect::<Vec<_>>()[..] {
        ["base", database] => is_number(database),
        ["pg_tblspc", _, version, database] => version.starts_with("PG_") && is_number(database),
        _ => false,
    }
}

/// In a folder that holds relations: temporary ones, and the forks of unlogged ones, which a recovery makes anew from
/// their init fork.
pub(super) fn is_relation_left_out(name: &str, folder: &BTreeSet<String>) -> bool {
    is_temporary_relation(name) || is_unlogged_relation(name, folder)
}

/// `16384`, `16384_fsm`, `16384.1` beside a `16384_init`.
fn is_unlogged_relation(name: &str, folder: &BTreeSet<String>) -> bool {
    match relation_and_fork(name) {
        Some((_, Some("init"))) | None => false,
        Some((relation, _)) => folder.contains(&format!("{relation}_init")),
    }
}

/// `t3_16384`, `t3_16384_fsm.1`
fn is_temporary_relation(name: &str) -> bool {
    let Some((backend, relation)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_'))
    else {
        return false;
    };
    is_number(backend) && relation_and_fork(relation).is_some()
}

fn relation_and_fork(name: &str) -> Option<(&str, Option<&str>)> {
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) => (name, Some(segment)),
        None => (name, None),
    };
    let (relation, fork) = match name.split_once('_') {
        Some((relation, fork)) => (relation, Some(fork)),
        None => (name, None),
    };
    let known = fork.is_none_or(|fork| ["fsm", "vm", "init"].contains(&fork));
    (is_number(relation) && known && segment.is_none_or(is_number)).then_some((relation, fork))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_that_a_recovery_makes_anew() {
        let folder: BTreeSet<String> = ["16384", "16384_init", "16384_fsm", "16390"]
            .map(str::to_owned)
            .into();
        let check = |name: &str, expected: bool| {
            assert_eq!(is_relation_left_out(name, &folder), expected, "{name}");
        };
        check("16384", true);
        check("16384.1", true);
        check("16384_fsm", true);
        check("16384_vm.2", true);
        check("16384_init", false);
        check("16390", false);
        check("16384_other", false);
        check("t3_16384", true);
        check("t3_16384_vm.1", true);
        check("t3_16384_other", false);
        check("t_16384", false);
        check("tx_1", false);
        check("pg_filenode.map", false);
        check("PG_VERSION", false);
    }

    #[test]
    fn folders_of_relations() {
        let check = |folder: &str, expected: bool| {
            assert_eq!(holds_relations(folder), expected, "{folder}")
        };
        check("base/5", true);
        check("pg_tblspc/16390/PG_15_202209061/5", true);
        check("global", false);
        check("base", false);
        check("base/pgsql_tmp", false);
        check("pg_tblspc/16390/other/5", false);
    }
}
