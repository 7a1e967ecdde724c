//! What the command line and the supervisor put on record: backups, restores, settings. Quotes, keys and feeds record
//! themselves.

use serde_json::{Value, json};

use crate::{control::Control, error::Error, instance::Instance, person::who};

/// An event for the audit log, with who made it.
#[derive(Clone, Debug)]
pub struct Event {
    kind: &'static str,
    fields: serde_json::Map<String, Value>,
}

impl Event {
    /// By a person at the command line.
    pub fn by_person(kind: &'static str) -> Self {
        Self::new(kind, &who())
    }

    /// By the engine itself.
    pub fn by_engine(kind: &'static str) -> Self {
        Self::new(kind, "engine")
    }

    /// By a person who asked the engine for it.
    pub fn by(kind: &'static str, person: &str) -> Self {
        Self::new(kind, person)
    }

    fn new(kind: &'static str, actor: &str) -> Self {
        let mut event = Self {
            kind,
            fields: serde_json::Map::new(),
        };
        event.fields.insert("actor".into(), json!(actor));
        event
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.insert(name.into(), json!(value.to_string()));
        self
    }

    /// Returns when it is durable.
    pub async fn record(&self, instance: &Instance) -> Result<(), Error> {
        let body = json!({ "kind": self.kind, "fields": self.fields });
        let _: Value = Control::to(instance)?
            .post("/internal/audit/entries", &body)
            .await?;
        Ok(())
    }
}
