//! `bre api-key`: API keys of the running instance.

use host::{control::Control, instance::Instance, person::who};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use terminal::{self, Table, instant};

use crate::{cli::ApiKeyCommand, error::Error};

#[derive(Debug, Serialize, Deserialize)]
struct CreatedKey {
    key_id: String,
    client_id: String,
    role: String,
    api_key: String,
    expires_at: String,
}

pub(crate) async fn run(
    instance: &Instance,
    print_json: bool,
    command: ApiKeyCommand,
) -> Result<(), Error> {
    let control = Control::to(instance)?;
    match command {
        ApiKeyCommand::Create {
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
            let created: CreatedKey = control.post("/internal/keys", &order).await?;
            terminal::result(print_json, &created, || show(&created));
        }
        ApiKeyCommand::Rotate { id, overlap_hours } => {
            let order = json!({"overlap_hours": overlap_hours, "by": who()});
            let path = format!("/internal/keys/{id}/rotate");
            let created: CreatedKey = control.post(&path, &order).await?;
            terminal::result(print_json, &created, || {
                format!(
                    "{}\n{id} works for {overlap_hours} more hours at most.",
                    show(&created)
                )
            });
        }
        ApiKeyCommand::List => {
            let keys: Value = control.get("/internal/keys").await?;
            terminal::result(print_json, &keys, || list(&keys));
        }
        ApiKeyCommand::Revoke { id } => {
            let revoked: Value = control.delete(&format!("/internal/keys/{id}")).await?;
            terminal::result(print_json, &revoked, || format!("revoked {id}"));
        }
    }
    Ok(())
}

fn show(key: &CreatedKey) -> String {
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
    let mut table = Table::new(&["key", "client", "role", "tier", "expires", "revoked"]);
    for key in keys["items"].as_array().into_iter().flatten() {
        let field = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        table.row([
            field("key_id"),
            field("client_id"),
            field("role"),
            field("tier"),
            instant(&field("expires_at")),
            instant(&field("revoked_at")),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_keys() {
        let keys = json!({ "items": [
            { "key_id": "k-1", "client_id": "alpha", "role": "client", "tier": "premium",
              "expires_at": "2026-04-01T10:31:00.123456Z", "revoked_at": null },
            { "key_id": "k-2", "client_id": "a name that is somewhat longer", "role": "operator", "tier": "internal",
              "expires_at": "2026-04-01T10:31:00Z", "revoked_at": "2026-04-01T09:00:00Z" },
        ] });
        insta::assert_snapshot!("api_key_list", list(&keys));
    }
}
