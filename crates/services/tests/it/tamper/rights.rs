//! Owners, grants, memberships and attributes of roles.

use super::{Case, case};

/// With a role of the attacker's own, which goes afterwards.
macro_rules! intruder {
    ($name:literal, $sql:literal, $finds:literal) => {
        Case {
            name: $name,
            sql: concat!("CREATE ROLE intruder; ", $sql),
            undo: "REASSIGN OWNED BY intruder TO bre_owner; DROP OWNED BY intruder; DROP ROLE intruder",
            finds: $finds,
        }
    };
}

pub const CASES: &[Case] = &[
    case(
        "everything granted to the serving role",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO bre_service",
        "serving role bre_service: it has the right DELETE on audit_log",
    ),
    case(
        "the log given to the serving role",
        "ALTER TABLE audit_log OWNER TO bre_service",
        "serving role bre_service: it owns audit_log",
    ),
    Case {
        name: "the owner's role given to the serving role",
        sql: "GRANT bre_owner TO bre_service",
        undo: "REVOKE bre_owner FROM bre_service",
        finds: "it is a member of bre_owner, which owns",
    },
    Case {
        name: "the owner's role given by a way around",
        sql: "CREATE ROLE between IN ROLE bre_owner; GRANT between TO bre_service",
        undo: "DROP ROLE between",
        finds: "it is a member of bre_owner, which owns",
    },
    Case {
        name: "a superuser that serves",
        sql: "ALTER ROLE bre_service SUPERUSER",
        undo: "ALTER ROLE bre_service NOSUPERUSER",
        finds: "it is a superuser and may change everything",
    },
    Case {
        name: "a serving role that makes roles",
        sql: "ALTER ROLE bre_service CREATEROLE",
        undo: "ALTER ROLE bre_service NOCREATEROLE",
        finds: "CREATEROLE",
    },
    Case {
        name: "a serving role that writes everywhere",
        sql: "GRANT pg_write_all_data TO bre_service",
        undo: "REVOKE pg_write_all_data FROM bre_service",
        finds: "it is a member of pg_write_all_data",
    },
    Case {
        name: "a serving role that runs programs",
        sql: "GRANT pg_execute_server_program TO bre_service",
        undo: "REVOKE pg_execute_server_program FROM bre_service",
        finds: "it is a member of pg_execute_server_program",
    },
    case(
        "one column of one table",
        "GRANT UPDATE (hash) ON api_keys TO bre_service",
        "rights of bre_service on column hash on api_keys",
    ),
    case(
        "one column of the record",
        "GRANT UPDATE (total_fee) ON quotes TO bre_service",
        "it has the right UPDATE on quotes",
    ),
    case(
        "a right for everybody",
        "GRANT DELETE ON quotes TO PUBLIC",
        "rights of everybody on quotes",
    ),
    case(
        "a right that may be passed on",
        "GRANT SELECT ON audit_log TO bre_service WITH GRANT OPTION",
        "rights of bre_service on audit_log: is ",
    ),
    case(
        "a right taken away",
        "REVOKE INSERT ON audit_log FROM bre_service",
        "rights of bre_service on audit_log: is \"SELECT\"",
    ),
    intruder!(
        "somebody else may write the log",
        "GRANT INSERT ON audit_log TO intruder",
        "rights of intruder on audit_log"
    ),
    intruder!(
        "somebody else may change terms",
        "GRANT UPDATE ON brokers TO intruder",
        "rights of intruder on brokers"
    ),
    intruder!(
        "somebody else owns a table",
        "ALTER TABLE locates OWNER TO intruder",
        "owner of locates: is \"intruder\""
    ),
    intruder!(
        "somebody else owns every table",
        "REASSIGN OWNED BY bre_owner TO intruder",
        "owner of audit_log: is \"intruder\""
    ),
];
