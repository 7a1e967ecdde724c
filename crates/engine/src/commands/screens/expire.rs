use super::*;
use crate::commands::screens::{at, readable};

#[test]
fn every_decision_with_its_reason() {
    let decision = |subject, which: &str, action, reason: &str, objects, bytes| Decision {
        subject,
        which: which.to_owned(),
        action,
        reason: reason.to_owned(),
        objects,
        bytes,
    };
    let mut plan = Plan::default();
    plan.decisions.extend([
        decision(
            Subject::Backup,
            "20260201T013000Z-c6d7e8f9",
            Action::Expire,
            "older than 30 days",
            12,
            123_456_789,
        ),
        decision(
            Subject::Backup,
            "20260401T013000Z-0a1b2c3d",
            Action::Keep,
            "younger than 30 days",
            14,
            234_567_890,
        ),
        decision(
            Subject::Packs,
            "",
            Action::Sweep,
            "nothing refers to them",
            3,
            3_456_789,
        ),
    ]);
    plan.warnings
        .push("the clock of the store is 4 s behind".to_owned());
    plan.window_from_micros = Some(at("01:34"));
    insta::assert_snapshot!("backup_expire_dry_run", readable(explained(&plan)));
}
