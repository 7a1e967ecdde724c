//! `bre feed`: figures that are held, and how one of them is believed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::import::encode;
use host::{control::Control, instance::Instance, person::who};
use terminal::{self, Table, instant};

use crate::{cli::FeedCommand, error::Error};

#[derive(Debug, Serialize, Deserialize)]
struct List {
    items: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    source: String,
    subject: String,
    figure: String,
    in_force: String,
    held: String,
    valid_at: String,
    reason: String,
}

pub(crate) async fn run(
    instance: &Instance,
    json: bool,
    command: FeedCommand,
) -> Result<(), Error> {
    let control = Control::to(instance)?;
    match command {
        FeedCommand::Held => {
            let list: List = control.get("/internal/feeds/held").await?;
            terminal::result(json, &list, || table(&list.items));
        }
        FeedCommand::Accept { source, subject } => {
            let path = format!(
                "/internal/feeds/held/accept?source={}&subject={}&by={}",
                encode(&source),
                encode(&subject),
                encode(&who())
            );
            let accepted: Value = control.upload(&path, Vec::new()).await?;
            terminal::result(json, &accepted, || {
                format!("{subject} of {source} is believed from now on")
            });
        }
    }
    Ok(())
}

fn table(items: &[Line]) -> String {
    if items.is_empty() {
        return "nothing is held".to_owned();
    }
    let mut table = Table::new(&[
        "source",
        "subject",
        "figure",
        ">in force",
        ">held",
        "said at",
        "reason",
    ]);
    for line in items {
        table.row([
            line.source.clone(),
            line.subject.clone(),
            line.figure.clone(),
            line.in_force.clone(),
            line.held.clone(),
            instant(&line.valid_at),
            line.reason.clone(),
        ]);
    }
    table.text()
}
