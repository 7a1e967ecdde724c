//! `bre keys`: API keys of the running instance.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::import::who;
use crate::{cli::KeysCommand, control::Control, error::Error, instance::Instance, terminal};

#[derive(Debug, Serialize, Deserialize)]
struct Created {
    key_id: String,
    client_id: String,
    api_key: String,
    expires_at: String,
}

pub(crate) async fn run(
    instance: &Instance,
    print_json: bool,
    command: KeysCommand,
) -> Result<(), Error> {
    let control = Control::to(instance)?;
    match command {
        KeysCommand::Create { client, tier } => {
            let created: Created = control
                .post(
                    "/internal/keys",
                    &json!({"client_id": client, "tier": tier, "by": who()}),
                )
                .await?;
            terminal::result(print_json, &created, || {
                format!(
                    "{}\nKey {} of {} until {}. It is shown this once; keep it where secrets are kept.",
                    created.api_key, created.key_id, created.client_id, created.expires_at
                )
            });
        }
        KeysCommand::List => {
            let keys: Value = control.get("/internal/keys").await?;
            terminal::result(print_json, &keys, || list(&keys));
        }
        KeysCommand::Revoke { id } => {
            let revoked: Value = control.delete(&format!("/internal/keys/{id}")).await?;
            terminal::result(print_json, &revoked, || format!("revoked {id}"));
        }
    }
    Ok(())
}

fn list(keys: &Value) -> String {
    let mut text = String::new();
    for key in keys["items"].as_array().into_iter().flatten() {
        let field = |name: &str| key[name].as_str().unwrap_or("-").to_owned();
        text.push_str(&format!(
            "{}  {:<24} {:<12} expires {}  revoked {}\n",
            field("key_id"),
            field("client_id"),
            field("tier"),
            field("expires_at"),
            field("revoked_at")
        ));
    }
    text
}
