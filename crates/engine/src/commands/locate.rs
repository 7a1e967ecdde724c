//! `bre locate reopen`: an operator has looked at what a recovery may have lost.

use serde_json::{Value, json};

use super::detach::confirmed;
use crate::{cli::LocateCommand, control::Control, error::Error, instance::Instance, terminal};

pub(crate) async fn run(
    instance: &Instance,
    json: bool,
    command: LocateCommand,
) -> Result<(), Error> {
    let LocateCommand::Reopen { yes } = command;
    let control = Control::to(instance)?;
    let status: Value = control.get("/internal/status").await?;
    let question = match status["locates"]["reason"].as_str() {
        Some(why) => format!(
            "{why}.\nEvery grant that a client holds and the log does not is granted a second time from here on."
        ),
        None => "Locates are served: nothing is closed.".to_owned(),
    };
    if !yes && !confirmed(&question) {
        return Err(Error::Refused {
            what: "nothing was changed",
            reason: "give --yes to do it without asking".into(),
        });
    }
    let answer: Value = control.post("/internal/locates/reopen", &json!({})).await?;
    terminal::result(json, &answer, || {
        format!(
            "locates are served again; entry {} of epoch {} says so",
            answer["audit"]["position"], answer["audit"]["epoch"]
        )
    });
    Ok(())
}
