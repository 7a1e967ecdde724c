//! What a command shows in the end, where another process may have done the work.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::{error::Error, exit::Exit};

#[derive(Debug, Serialize, Deserialize)]
pub struct CommandOutput {
    /// For machines.
    json: Box<RawValue>,
    /// For people.
    text: String,
    /// For both, beside it.
    notes: Vec<String>,
    exit: Exit,
}

impl CommandOutput {
    pub fn of(machines: &impl Serialize, text: String) -> Result<Self, Error> {
        let json = to_raw_value(machines).map_err(|error| {
            Error::failed(format!("the result cannot be shown as JSON: {error}"))
        })?;
        Ok(Self {
            json,
            text,
            notes: Vec::new(),
            exit: Exit::Done,
        })
    }

    pub fn noted(mut self, note: String) -> Self {
        self.notes.push(note);
        self
    }

    pub fn exits(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub fn print(self, json: bool) -> ExitCode {
        terminal::result(json, &self.json, || self.text.clone());
        for note in &self.notes {
            terminal::note(note);
        }
        self.exit.into()
    }
}
