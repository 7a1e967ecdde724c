//! Which server a session reached, and what a server says when it shuts down or becomes read-only.

/// `target_session_attrs`, as libpq names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Landing {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

/// What a server says of itself when a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerRole {
    /// It replays another's WAL (`in_hot_standby`, `pg_is_in_recovery()`).
    pub in_recovery: bool,
    /// New transactions may not write (`transaction_read_only`).
    pub read_only: bool,
}

impl ServerRole {
    /// From the values of `in_hot_standby` and `default_transaction_read_only`, which PostgreSQL 14 and newer report
    /// unasked. `None`: the server did not report them.
    pub fn reported(in_hot_standby: Option<&str>, read_only: Option<&str>) -> Option<ServerRole> {
        let in_recovery = in_hot_standby? == "on";
        Some(ServerRole {
            in_recovery,
            read_only: in_recovery || read_only? == "on",
        })
    }
}

impl Landing {
    pub(crate) fn parse(text: &str) -> Option<Landing> {
        Some(match text {
            "any" => Landing::Any,
            "read-write" => Landing::ReadWrite,
            "read-only" => Landing::ReadOnly,
            "primary" => Landing::Primary,
            "standby" => Landing::Standby,
            "prefer-standby" => Landing::PreferStandby,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Landing::Any => "any",
            Landing::ReadWrite => "read-write",
            Landing::ReadOnly => "read-only",
            Landing::Primary => "primary",
            Landing::Standby => "standby",
            Landing::PreferStandby => "prefer-standby",
        }
    }

    /// The demands to go round all addresses with, one after the other.
    pub fn rounds(self) -> &'static [Landing] {
        match self {
            Landing::Any => &[Landing::Any],
            Landing::ReadWrite => &[Landing::ReadWrite],
            Landing::ReadOnly => &[Landing::ReadOnly],
            Landing::Primary => &[Landing::Primary],
            Landing::Standby => &[Landing::Standby],
            Landing::PreferStandby => &[Landing::Standby, Landing::Any],
        }
    }

    /// Why a server of this role will not do.
    pub fn refusal(self, role: ServerRole) -> Option<&'static str> {
        match self {
            Landing::Any | Landing::PreferStandby => None,
            Landing::Primary if role.in_recovery => Some("it is a standby, or still in recovery"),
            Landing::ReadWrite if role.in_recovery => {
                Some("it is a standby, or still in recovery, and takes no writes")
            }
            Landing::ReadWrite if role.read_only => Some("it is read-only"),
            Landing::Standby if !role.in_recovery => Some("it is a primary"),
            Landing::ReadOnly if !role.read_only => Some("it takes writes"),
            _ => None,
        }
    }

    /// The stricter one of what a string says and what a client cannot do without.
    pub fn at_least(self, needed: Landing) -> Landing {
        match self {
            Landing::Any => needed,
            said => said,
        }
    }
}

/// Whether a server that reports this SQLSTATE is going away, or is no longer the one that takes writes: the same may
/// succeed on another connection. 25006 read_only_sql_transaction; 57P01 to 57P03 admin_shutdown, crash_shutdown,
/// cannot_connect_now; class 08 connection exceptions.
pub fn is_away(sqlstate: &str) -> bool {
    matches!(sqlstate, "25006" | "57P01" | "57P02" | "57P03") || sqlstate.starts_with("08")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_will_do() {
        let primary = ServerRole::reported(Some("off"), Some("off")).unwrap();
        let read_only = ServerRole::reported(Some("off"), Some("on")).unwrap();
        let standby = ServerRole::reported(Some("on"), Some("off")).unwrap();
        let check = |landing: Landing, does: [bool; 3]| {
            let judged = [primary, read_only, standby].map(|role| landing.refusal(role).is_none());
            assert_eq!(judged, does, "{landing:?}");
        };
        check(Landing::Any, [true, true, true]);
        check(Landing::ReadWrite, [true, false, false]);
        check(Landing::Primary, [true, true, false]);
        check(Landing::Standby, [false, false, true]);
        check(Landing::ReadOnly, [false, true, true]);
        assert_eq!(ServerRole::reported(None, Some("off")), None);
        assert_eq!(Landing::Any.at_least(Landing::Primary), Landing::Primary);
        assert_eq!(
            Landing::Standby.at_least(Landing::Primary),
            Landing::Standby
        );
    }

    #[test]
    fn going_away() {
        for code in ["25006", "57P01", "57P02", "57P03", "08006", "08P01"] {
            assert!(is_away(code), "{code}");
        }
        for code in ["23505", "57014", "25P02", "42601"] {
            assert!(!is_away(code), "{code}");
        }
    }
}
