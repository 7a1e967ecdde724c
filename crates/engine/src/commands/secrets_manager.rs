//! `bre snapshot restore secrets_manager`: secrets of a snapshot back into AWS Secrets Manager.

use host::{instance::Instance, progress::Steps, signals::interrupted};
use operations::{
    application_state::{ManagerRestore, StateComponent},
    jobs::settings,
};
use recovery::application_state::secrets_manager::{ManagerAction, ManagerPlan, ManagerStep};
use terminal::Table;

use super::snapshot::SnapshotSelection;
use crate::{
    cli::{SnapshotArgs, SnapshotRestoreArgs},
    error::Error,
    question::confirmed,
};

pub(super) const NAME: &str = "secrets_manager";

/// Plan, show, ask, apply, read back.
pub(super) fn restore(
    instance: &Instance,
    json: bool,
    args: &SnapshotRestoreArgs,
) -> Result<(), Error> {
    if args.to.is_some() {
        let reason = "bre snapshot restore secrets --to DIR writes all Secrets into files";
        return Err(Error::argument("option of this component", "--to", reason));
    }
    let which = SnapshotArgs {
        component: StateComponent::Secrets.name().to_owned(),
        id: args.which.id.clone(),
    };
    let sealed = SnapshotSelection::at(instance, &which, &args.configuration, &args.repository)?;
    let config = settings::load(args.configuration.config.as_deref(), instance.root())?;
    let restore = ManagerRestore::of(&config.backup, &sealed.reader()?)?;
    let steps = Steps::shown(json, "restore").cancelled_by(interrupted()?);
    let plan = restore.plan(&steps)?;
    let id = &sealed.summary.id;
    let tell = |restored: bool| {
        let shown = serde_json::json!({
            "component": NAME, "snapshot": id, "restored": restored, "steps": plan.steps, "only_live": plan.only_live,
        });
        terminal::result(json, &shown, || match (plan.is_empty(), restored) {
            (true, _) => format!("nothing to do: Secrets Manager is as snapshot {id} has it"),
            (false, false) => plan_text(&plan),
            (false, true) => format!(
                "{}{} secrets of snapshot {id} are restored and read back",
                plan_text(&plan),
                plan.changes().count()
            ),
        });
    };
    if plan.is_empty() || args.dry_run {
        drop(steps);
        tell(false);
        return Ok(());
    }
    if !args.yes {
        let is_sure = steps.hidden_while(|| {
            terminal::note(&plan_text(&plan));
            confirmed("These secrets are written into Secrets Manager.")
        });
        if !is_sure {
            return Err(Error::refused(
                "nothing was restored",
                "give --yes to restore without asking, or --dry-run to look",
            ));
        }
    }
    restore.apply(&plan, &steps)?;
    drop(steps);
    sealed.note_verified()?;
    super::cluster_state::on_record(instance, NAME, id, plan.changes().count(), "restored");
    tell(true);
    Ok(())
}

fn plan_text(plan: &ManagerPlan) -> String {
    let mut table = Table::new(&["secret", "in Secrets Manager", "labels"]);
    for step in plan.changes() {
        table.row([
            step.secret.clone(),
            there(step).to_owned(),
            step.labels.join(", "),
        ]);
    }
    let mut text = table.text();
    for step in plan.steps.iter().filter(|step| !step.lacks.is_empty()) {
        text.push_str(&format!(
            "{}: the snapshot has no value for {}; earlier snapshots may\n",
            step.secret,
            step.lacks.join(", ")
        ));
    }
    if !plan.only_live.is_empty() {
        text.push_str(&format!(
            "only there, and left alone: {}\n",
            plan.only_live.join(", ")
        ));
    }
    text
}

fn there(step: &ManagerStep) -> &'static str {
    match step.action {
        ManagerAction::Create => "missing",
        ManagerAction::Undelete => "waits for its deletion",
        ManagerAction::Change => "labels name other versions",
        ManagerAction::Same => "the same",
    }
}
