//! The help of every command as people read it, and that the tree of commands hangs together.

use clap::{Command, CommandFactory};

use super::Cli;

const COLUMNS: usize = 100;

#[test]
fn the_command_line_hangs_together() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_of_every_command() {
    let mut root = Cli::command().term_width(COLUMNS);
    root.build();
    let mut text = String::new();
    walk(&root, "", &mut text);
    let version = env!("CARGO_PKG_VERSION");
    insta::assert_snapshot!("help", text.replace(version, "VERSION"));
}

/// Every command that help shows, however deep it lies.
fn walk(command: &Command, path: &str, text: &mut String) {
    let path = format!("{path} {}", command.get_name());
    let help = command.clone().term_width(COLUMNS).render_long_help();
    text.push_str(&format!(
        "== {}\n{}\n",
        path.trim(),
        help.to_string().trim_end()
    ));
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
    {
        walk(inner, &path, text);
    }
}
