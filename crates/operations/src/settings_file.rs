//! The text of a settings file. One that holds a secret, or names a command, is nobody else's to read or change.

use std::path::Path;

use toml::Value;
use zeroize::Zeroizing;

use crate::error::Error;

const SECRET_WORDS: [&str; 3] = ["password", "passphrase", "secret"];
/// Settings that name a program that is run.
const PROGRAMS: [&str; 3] = ["kubectl", "helm", "program"];

/// `None`: there is no such file.
pub fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Error> {
    let mut opened = match secrets::open(path) {
        Ok(opened) => opened,
        Err(secrets::SecretFileError::Io { source, .. }) => {
            return match source.kind() {
                std::io::ErrorKind::NotFound => Ok(None),
                _ => Err(Error::file("cannot read the settings", path)(source)),
            };
        }
        Err(error) => return Err(error.into()),
    };
    let text = opened.text()?;
    if let Some(exposed) = opened.exposed() {
        let table: toml::Table = toml::from_str(&text).map_err(|error| {
            Error::from(host::Error::Settings {
                path: path.into(),
                reason: error.to_string(),
            })
        })?;
        let found = sensitive("", &Value::Table(table));
        let found = found.filter(|found| found.is_secret || exposed.is_writable());
        if let Some(found) = found {
            return Err(Error::refused(
                "the settings are not usable",
                format!(
                    "{}: {} {}, and {exposed}",
                    path.display(),
                    found.name,
                    if found.is_secret {
                        "holds a password"
                    } else {
                        "is a command that is run"
                    }
                ),
            ));
        }
    }
    Ok(Some(text))
}

/// For display: every secret becomes `…`, in remarks too. Where that cannot be made sure of, nothing is shown.
pub fn redacted(text: &str) -> String {
    let hidden = |why: &str| format!("(not shown: {why})\n");
    let Ok(table) = toml::from_str::<toml::Table>(text) else {
        return hidden("these settings cannot be parsed, and may hold a secret");
    };
    let mut secrets = Vec::new();
    secrets_of("", &Value::Table(table), &mut secrets);
    // The longest first: one may be part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut shown: String = text.lines().map(without_remark).collect();
    for secret in &secrets {
        let before = shown.clone();
        for quote in ['"', '\''] {
            shown = shown.replace(
                &format!("{quote}{secret}{quote}"),
                &format!("{quote}…{quote}"),
            );
        }
        if shown == before || (secret.len() >= SECRET_BYTES_MIN && shown.contains(secret.as_str()))
        {
            shown = shown.replace(secret.as_str(), "…");
        }
        if shown == before && !before.contains("…") {
            return hidden("a secret in these settings is written with escapes");
        }
    }
    shown
}

/// A shorter one may be part of any word: only whole values of it are taken out.
const SECRET_BYTES_MIN: usize = 6;

/// A line whose remark may hold a secret loses the remark.
fn without_remark(line: &str) -> String {
    match line.split_once('#') {
        Some((before, remark)) if tells_secret(remark) => format!("{before}# …\n"),
        _ => format!("{line}\n"),
    }
}

fn tells_secret(remark: &str) -> bool {
    let remark = remark.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| remark.contains(word)) || remark.contains("://")
}

/// Every secret among the values.
fn secrets_of(name: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let name = match name {
                    "" => key.clone(),
                    name => format!("{name}.{key}"),
                };
                secrets_of(&name, value, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| secrets_of(name, value, found)),
        Value::String(text) if sensitive(name, value).is_some_and(|it| it.is_secret) => {
            found.push(text.clone());
        }
        _ => {}
    }
}

/// A setting that says who may see its file.
#[derive(Debug, PartialEq, Eq)]
struct Sensitive {
    /// Dotted.
    name: String,
    /// Otherwise a command.
    is_secret: bool,
}

/// The first secret; where there is none, the first command. Judged by name and form, so that a setting that is added later is too.
fn sensitive(name: &str, value: &Value) -> Option<Sensitive> {
    let found = |is_secret| {
        let name = name.to_owned();
        Some(Sensitive { name, is_secret })
    };
    match value {
        Value::Table(table) => first_secret(table.iter().map(|(key, value)| match name {
            "" => (key.clone(), value),
            name => (format!("{name}.{key}"), value),
        })),
        Value::Array(all) => first_secret(all.iter().map(|value| (name.to_owned(), value))),
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => {
            let last = name.rsplit('.').next().unwrap_or_default();
            let named = SECRET_WORDS.iter().any(|word| last.contains(word));
            let is_way = last.ends_with("_file") || last.ends_with("_command");
            if (named && !is_way) || holds_password(text) {
                found(true)
            } else if last.ends_with("_command")
                || PROGRAMS.contains(&last)
                || text.contains("password_command=")
            {
                found(false)
            } else {
                None
            }
        }
        _ => None,
    }
}

fn first_secret<'a>(all: impl Iterator<Item = (String, &'a Value)>) -> Option<Sensitive> {
    let mut command = None;
    for (name, value) in all {
        match sensitive(&name, value) {
            Some(found) if found.is_secret => return Some(found),
            other => command = command.or(other),
        }
    }
    command
}

/// `scheme://user:password@host`, or `password=` in a connection string.
fn holds_password(text: &str) -> bool {
    let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let authority = text
        .split_once("://")
        .and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    let user = authority.and_then(|authority| authority.rsplit_once('@'));
    let in_url = user
        .and_then(|(user, _)| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty());
    in_url || squeezed.to_ascii_lowercase().contains("password=")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn settings_are_shown_without_their_secrets() {
        let text = r#"
port = 8000 # the public one
# password = "old one"
url = "postgres://bre:hunter22@db/bre"
[database]
password = 'p' # see postgres://x:y@z
names = ["p", "password=abc host=x"]
path = "/p/password"
"#;
        let shown = redacted(text);
        for secret in ["hunter22", "old one", "abc", "y@z"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        for line in [
            "port = 8000 # the public one",
            "password = '…' # …",
            "path = \"/p/password\"",
        ] {
            assert!(shown.contains(line), "{line} not in {shown}");
        }
        let escaped = "password = \"a\\u0062cdef\"\n";
        assert!(
            redacted(escaped).contains("not shown"),
            "{}",
            redacted(escaped)
        );
        assert!(redacted("password = ").contains("cannot be parsed"));
        assert_eq!(redacted("port = 1\n"), "port = 1\n");
    }

    #[test]
    fn settings_with_a_secret_or_a_command_are_known_by_name_and_form() {
        let check = |text: &str, expected: Option<(&str, bool)>| {
            let table: toml::Table = toml::from_str(text).unwrap();
            let found = sensitive("", &Value::Table(table));
            let found = found.as_ref().map(|it| (it.name.as_str(), it.is_secret));
            assert_eq!(found, expected, "{text}");
        };
        let secret = |name| Some((name, true));
        check("[server]\nport = 8000", None);
        check(
            "[database]\nurl = 'postgresql://bob:hush@db/bre'",
            secret("database.url"),
        );
        check(
            "[database]\nurl = 'host=db password = hush'",
            secret("database.url"),
        );
        check(
            "[database]\nurl = 'postgresql://db/bre?user=b&password=x'",
            secret("database.url"),
        );
        check(
            "[cache]\nurl = 'rediss://:hush@cache:6379/'",
            secret("cache.url"),
        );
        check(
            "[clusters.one]\nurl = 'postgresql://b:x@h'",
            secret("clusters.one.url"),
        );
        check(
            "[later]\nmail_password = 'x'",
            secret("later.mail_password"),
        );
        check("[[later.list]]\nsecret = 'x'", secret("later.list.secret"));
        for harmless in [
            "[database]\nurl = 'postgresql://bob@db:5432/bre?password_file=/etc/p'",
            "[cache]\npassword_file = '/etc/p'",
            "[internal]\nsecret_file = '/etc/s'",
            "[repository_key.pkcs11]\ntoken = 'label'",
            "[repository]\npath = 's3://bucket/a@b:c'",
        ] {
            check(harmless, None);
        }
        let command = Some(("cache.password_command", false));
        check("[cache]\npassword_command = 'vault read x'", command);
        check(
            "[a]\nx_command = 'x'\n[b]\npassword = 'x'",
            secret("b.password"),
        );
    }

    #[test]
    fn settings_that_others_can_reach_are_refused_when_they_hold_something() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bre.toml");
        assert!(read(&file).unwrap().is_none());
        let check = |text: &str, mode: u32, says: &[&str]| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            match read(&file) {
                Ok(read) => {
                    assert!(says.is_empty(), "{mode:04o} passes: {text}");
                    assert_eq!(&**read.unwrap(), text);
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(!says.is_empty() && !error.contains("hush"), "{error}");
                    says.iter()
                        .for_each(|word| assert!(error.contains(word), "{word:?}: {error}"));
                }
            }
        };
        let secret = "[database]\nurl = 'postgresql://bob:hush@db/bre'\n";
        let command = "[cache]\npassword_command = 'cat /run/hush'\n";
        check(secret, 0o600, &[]);
        check(secret, 0o644, &["database.url", "0644", "chmod 600"]);
        check(command, 0o644, &[]);
        check(command, 0o646, &["cache.password_command", "change"]);
        check("[server]\nport = 1\n", 0o666, &[]);
    }
}
