//! `bre keys`: API keys of the running instance.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cli::KeysCommand,
    error::Error,
    host::{control::Control, instance::Instance, person::who},
    terminal,
};

#[derive(Debug, Serialize, Deserialize)]
struct Created {
    key_id: String,
    client_id: String,
    role: String,
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
        KeysCommand::Create {
            client,
            tier,
            operator,
        } => {
            let role = if operator { "operator" } else { "client" };
            let mut order = json!({"role": role, "by": who()});
            for (name, value) in [("client_id", client), ("tier", tier)] {
                if let Some(value) = value {
                    order[name] = value.into();
                }
            }
            let created: Created = control.post("/internal/keys", &order).await?;
            terminal::result(print_json, &created, || show(&created));
        }
        KeysCommand::Rotate { id, overlap_hours } => {
            let order = json!({"overlap_hours": overlap_hours, "by": who()});
            let path = format!("/internal/keys/{id}/rotate");
            let created: Created = control.post(&path, &order).await?;
            terminal::result(print_json, &created, || {
                format!(
                    "{}\n{id} works for {overlap_hours} more hours at most.",
                    show(&created)
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

fn show(key: &Created) -> String {
    let kind = match key.role.as_str() {
        "operator" => "Operator token",
        _ => "Key",
    };
    format!(
        "{}\n{kind} {} of {} until {}. It is shown this once; keep it where secrets are kept.",
        key.api_key, key.key_id, key.client_id, key.expires_at
    )
}

fn list(keys: &Value) -> String {
    let mut text = String::new();
    for key in keys["items"].as_array().into_iter().flatten() {
        let field = |name: &str| key[name].as_str().unwrap_or("-").to_owned();
        text.push_str(&format!(
            "{}  {:<24} {:<8} {:<12} expires {}  revoked {}\n",
            field("key_id"),
            field("client_id"),
            field("role"),
            field("tier"),
            field("expires_at"),
            field("revoked_at")
        ));
    }
    text
}
