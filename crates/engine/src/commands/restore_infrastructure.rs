//! `bre restore iam`, and what `bre snapshot restore` does with a stack or a state of Terraform: what would be done is
//! shown, a person decides, it is done and read back.

use std::process::ExitCode;

use host::{instance::Instance, progress::Steps, signals::interrupted};
use recovery::infrastructure::{
    cloudformation::StackProposal,
    iam::{IamAction, IamPlan},
    terraform::StatePlan,
};
use serde_json::json;
use terminal::{self, KeyValue, word};

use crate::{cli::RestoreIamArgs, error::Error, question::confirmed};
use operations::{
    exit::Exit,
    infrastructure_restore::{IamRestore, StackRestore, StateRestore},
    jobs::settings,
};

/// How far a restore goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consent {
    pub(super) dry_run: bool,
    pub(super) yes: bool,
}

impl Consent {
    /// Shown first, then asked.
    fn given(self, shown: &str, question: &str) -> Result<(), Error> {
        if self.yes {
            return Ok(());
        }
        terminal::note(shown);
        match confirmed(question) {
            true => Ok(()),
            false => Err(not_restored()),
        }
    }
}

fn not_restored() -> Error {
    Error::refused(
        "nothing was restored",
        "give --yes to restore without asking",
    )
}

fn steps(json: bool) -> Result<Steps, Error> {
    Ok(Steps::shown(json, "restore").cancelled_by(interrupted()?))
}

pub(super) fn iam(
    instance: &Instance,
    json: bool,
    args: &RestoreIamArgs,
) -> Result<ExitCode, Error> {
    let config = settings::load(args.configuration.config.as_deref(), instance.root())?;
    let restore = IamRestore::of(
        instance,
        &config.backup,
        args.commit.as_deref(),
        &args.names,
    )?;
    let plan = restore.plan(&steps(json)?)?;
    let tell = |restored: bool| {
        let shown = json!({"commit": restore.commit, "restored": restored, "steps": plan.steps,
            "only_in_the_account": plan.only_live});
        terminal::result(json, &shown, || match (plan.is_empty(), restored) {
            (true, _) => "nothing to do: everything is as in the commit".to_owned(),
            (false, false) => iam_text(&plan),
            (false, true) => format!("{}\nrestored and read back", iam_text(&plan)),
        });
    };
    if plan.is_empty() || args.dry_run {
        tell(false);
        return Ok(ExitCode::SUCCESS);
    }
    let consent = Consent {
        dry_run: args.dry_run,
        yes: args.yes,
    };
    consent.given(&iam_text(&plan), "These calls are made, in this order.")?;
    restore.apply(&plan, &steps(json)?)?;
    tell(true);
    Ok(ExitCode::SUCCESS)
}

fn iam_text(plan: &IamPlan) -> String {
    let mut text = String::new();
    for step in plan.changes() {
        let action = match step.action {
            IamAction::Create => "create",
            IamAction::Change => "change",
            IamAction::Same => "same",
        };
        text.push_str(&format!("{action} {} ({})\n", word(&step.name), step.git));
        for difference in &step.differences {
            text.push_str(&format!("  {}\n", word(difference)));
        }
        for call in &step.calls {
            text.push_str(&format!("    {}\n", word(&call.to_string())));
        }
    }
    for name in &plan.only_live {
        text.push_str(&format!(
            "left alone: {}, which only the account has\n",
            word(name)
        ));
    }
    text
}

pub(super) fn stack(
    restore: &StackRestore,
    json: bool,
    consent: Consent,
) -> Result<ExitCode, Error> {
    let proposal = restore.propose(&steps(json)?)?;
    let Some(proposal) = proposal else {
        let shown = json!({"restored": false, "changes": []});
        terminal::result(json, &shown, || {
            "nothing to do: the stack is as in the snapshot".to_owned()
        });
        return Ok(ExitCode::SUCCESS);
    };
    let tell = |restored: bool| {
        let shown = json!({"restored": restored, "stack": proposal.stack, "is_new": proposal.is_new,
            "change_set": proposal.change_set, "changes": proposal.changes});
        terminal::result(json, &shown, || match restored {
            true => format!("{}\nrestored and read back", stack_text(&proposal)),
            false => stack_text(&proposal),
        });
    };
    if consent.dry_run {
        restore.discard(&proposal, &steps(json)?)?;
        tell(false);
        return Ok(ExitCode::SUCCESS);
    }
    let question = "CloudFormation carries out this change set.";
    if let Err(refused) = consent.given(&stack_text(&proposal), question) {
        restore.discard(&proposal, &steps(json)?)?;
        return Err(refused);
    }
    restore.execute(&proposal, &steps(json)?)?;
    tell(true);
    Ok(ExitCode::SUCCESS)
}

fn stack_text(proposal: &StackProposal) -> String {
    let kind = if proposal.is_new { "create" } else { "change" };
    let mut text = format!(
        "{kind} stack {} by change set {}\n",
        word(&proposal.stack),
        proposal.change_set
    );
    for change in &proposal.changes {
        text.push_str(&format!("  {}\n", word(change)));
    }
    text
}

pub(super) fn state(
    restore: &StateRestore,
    json: bool,
    consent: Consent,
) -> Result<ExitCode, Error> {
    let plan = restore.plan(&steps(json)?)?;
    if consent.dry_run {
        let shown = json!({"restored": false, "plan": plan, "left": null});
        terminal::result(json, &shown, || state_text(&plan));
        return Ok(ExitCode::SUCCESS);
    }
    if !plan.is_same {
        consent.given(&state_text(&plan), "Terraform puts this state in force.")?;
    }
    let left = restore.apply(&plan, &steps(json)?)?;
    let shown = json!({"restored": !plan.is_same, "plan": plan, "left": left.changes});
    terminal::result(json, &shown, || {
        let mut text = match plan.is_same {
            true => "the state in force is that of the snapshot\n".to_owned(),
            false => format!("{}restored and read back\n", state_text(&plan)),
        };
        match left.changes.is_empty() {
            true => text.push_str("terraform plan: nothing to do"),
            false => {
                text.push_str(
                    "terraform plan would still do this; look at it before terraform apply:\n",
                );
                text.extend(left.changes.iter().map(|it| format!("  {}\n", word(it))));
            }
        }
        text
    });
    Ok(match left.changes.is_empty() {
        true => ExitCode::SUCCESS,
        false => Exit::Partial.into(),
    })
}

fn state_text(plan: &StatePlan) -> String {
    let serial = |serial: Option<u64>| serial.map_or("none".to_owned(), |it| it.to_string());
    let mut facts = KeyValue::new();
    facts
        .row("state", &plan.place)
        .row("workspace", &plan.workspace)
        .row("lineage", &plan.lineage)
        .row("serial of the snapshot", plan.serial_of_backup.to_string())
        .row("serial in force", serial(plan.serial_in_force))
        .row("serial afterwards", plan.serial.to_string());
    let mut text = facts.text();
    for (words, resources) in [
        ("known again", &plan.come),
        ("not known any more", &plan.go),
    ] {
        for resource in resources {
            text.push_str(&format!("{words}: {}\n", word(resource)));
        }
    }
    text
}
