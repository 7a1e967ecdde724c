//! `[secrets_manager]`: which secrets of AWS Secrets Manager are backed up. Which account and region: `[aws]`.

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsManager {
    /// Of names: those that begin with one of these.
    pub prefixes: Vec<String>,
}

impl SecretsManager {
    /// Why it makes no sense.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.prefixes.is_empty() {
            true => Err(
                "prefixes is empty: name how the secrets' names begin; \"\" is all of the region"
                    .to_owned(),
            ),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    #[test]
    fn nothing_and_a_misspelt_word_are_refused() {
        for (text, says) in [
            ("", "prefixes"),
            ("prefixes = []", "all of the region"),
            ("prefix = 'a'", "prefix"),
        ] {
            let text = format!("[secrets_manager]\n{text}\n");
            let error = Config::parse(&text, Path::new("bre.toml"))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(says) && error.contains("bre.toml"),
                "{error}"
            );
        }
    }
}
