//! Connection parameters written down for somebody else's parser: what is a name here stays a name there.

use super::{ConnectOptions, Host};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// One value of a connection string (`dbname=…`) as libpq reads it.
pub fn quote_conninfo(value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('\'', r"\'");
    format!("'{escaped}'")
}

/// One word of a command line that somebody copies into a shell.
pub fn quote_shell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    match !word.is_empty() && !word.starts_with('-') && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

impl ConnectOptions {
    /// For clients that take a URL; without the password. Mirror of [`ConnectOptions::from_url`].
    pub fn to_url(&self) -> String {
        let (user, database) = (
            encode(self.user.as_bytes()),
            encode(self.database.as_bytes()),
        );
        let host = match &self.host {
            // In the query, where a slash is one.
            Host::Unix(folder) => encode(folder.as_os_str().as_bytes()).replace("%2F", "/"),
            Host::Tcp(host) => encode(host.as_bytes()),
        };
        format!(
            "postgresql://{user}@/{database}?host={host}&port={}",
            self.port
        )
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(*byte));
            }
            // Writing to a string cannot fail.
            other => {
                let _ = write!(text, "%{other:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_a_shell_is_one_word() {
        let check = |word: &str, expected: &str| assert_eq!(quote_shell(word), expected);
        check("public.orders", "public.orders");
        check("$(id)", "'$(id)'");
        check("it's \"x\"", r#"'it'\''s "x"'"#);
        check("-d", "'-d'");
        check("", "''");
    }

    #[test]
    fn a_url_says_the_same_when_it_is_read_again() {
        let check = |options: ConnectOptions| {
            let read = ConnectOptions::from_url(&options.to_url()).unwrap();
            assert_eq!(read, options, "{}", options.to_url());
        };
        for name in [
            "bre",
            "a=b",
            "x?host=far",
            "x#y",
            "50%",
            "é/ü",
            "a b&c",
            "'\"\\",
        ] {
            check(ConnectOptions::unix("/tmp/a b,c", 5432, name, name));
            check(ConnectOptions::tcp("db.example", 5433, name, name));
        }
    }
}
