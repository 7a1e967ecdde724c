//! Why Redis does not do what it is asked.

/// Away, or there and unwilling: the remedy is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    Away,
    /// Its own word: `OOM command not allowed when used memory > 'maxmemory'.`
    Refused(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Trouble::Away => "it does not answer",
            Trouble::Refused(word) => word,
        })
    }
}

impl Trouble {
    /// Of a connection that did not come about. Nobody there is one thing; a TLS or a login that failed says why.
    pub(crate) fn of_login(error: &redis::RedisError) -> Trouble {
        match Trouble::of(error) {
            Trouble::Away if !error.is_connection_refusal() && !error.is_timeout() => {
                Trouble::Refused(error.to_string())
            }
            trouble => trouble,
        }
    }

    pub(crate) fn of(error: &redis::RedisError) -> Trouble {
        // Of a pipeline the first refusal speaks for all.
        let refusals = error.clone().into_server_errors();
        match refusals.as_deref().and_then(<[_]>::first) {
            Some((_, refusal)) => Trouble::Refused(worded(refusal.code(), refusal.details())),
            None => match error.code() {
                Some(code) => Trouble::Refused(worded(code, error.detail())),
                // A refused login is said in another way.
                None if error.kind() == redis::ErrorKind::AuthenticationFailed => {
                    Trouble::Refused(error.to_string())
                }
                None => Trouble::Away,
            },
        }
    }
}

fn worded(code: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("{code} {}", detail.trim()),
        None => code.to_owned(),
    }
}
