//! `bre completion SHELL` and `bre man`: what shells and readers of manuals know of the commands, made from the
//! commands themselves.

use std::path::Path;

use crate::{
    cli::{Cli, CompletionShell},
    error::Error,
};
use clap::CommandFactory;
use clap_complete::{Shell, generate};

const PROGRAM: &str = "bre";

pub(super) fn print(shell: CompletionShell) {
    terminal::bytes(&script(shell));
}

fn script(shell: CompletionShell) -> Vec<u8> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), PROGRAM, &mut script);
    script
}

/// The page of `bre` itself, or every command's page into a folder.
pub(super) fn manual(json: bool, out: Option<&Path>) -> Result<(), Error> {
    let Some(folder) = out else {
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(Cli::command());
        man.render(&mut page)
            .map_err(Error::file("cannot write", PROGRAM))?;
        terminal::bytes(&page);
        return Ok(());
    };
    std::fs::create_dir_all(folder).map_err(Error::file("cannot make the folder", folder))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(Error::file("cannot write into", folder))?;
    let pages = std::fs::read_dir(folder)
        .map_err(Error::file("cannot read", folder))?
        .count();
    let written = serde_json::json!({ "folder": folder, "pages": pages });
    terminal::result(json, &written, || {
        format!("the manual pages are in {}", folder.display())
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command that help shows, as `bre backup run`.
    fn commands() -> Vec<String> {
        fn walk(command: &clap::Command, path: &str, all: &mut Vec<String>) {
            for inner in command
                .get_subcommands()
                .filter(|inner| !inner.is_hide_set())
            {
                let path = format!("{path}-{}", inner.get_name());
                walk(inner, &path, all);
                all.push(path);
            }
        }
        let mut all = Vec::new();
        walk(&Cli::command(), PROGRAM, &mut all);
        all
    }

    #[test]
    fn every_command_has_a_page_and_no_hidden_one_has() {
        let folder = tempfile::tempdir().unwrap();
        manual(true, Some(folder.path())).unwrap();
        for command in commands() {
            let page = folder.path().join(format!("{command}.1"));
            let text =
                std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{command}: {error}"));
            assert!(text.contains(".SH SYNOPSIS"), "{command}");
        }
        assert!(!folder.path().join("bre-read-book.1").exists());
        let root = std::fs::read_to_string(folder.path().join("bre.1")).unwrap();
        assert!(root.contains("Exit codes"), "{root}");
    }

    #[test]
    fn every_shell_completes_new_words_and_no_old_ones() {
        for shell in [
            CompletionShell::Bash,
            CompletionShell::Zsh,
            CompletionShell::Fish,
        ] {
            let script = String::from_utf8(script(shell)).unwrap();
            for word in ["restore-test", "api-key", "keys-dir", "standby"] {
                assert!(script.contains(word), "{shell:?} does not know {word}");
            }
            assert!(
                !script.contains("repair-pages"),
                "{shell:?} knows an old word"
            );
        }
    }
}
