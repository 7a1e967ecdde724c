//! Connection parameters written for another program's parser: a name here stays a name there.

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
}
