use jobs::{Retention, schedule::Trigger};

use super::*;
use crate::{config::Backup, jobs::spec};

/// The five tables, as the plan without any settings keeps them: docs/guide.md has them.
fn tables() -> String {
    let config = Backup::default();
    let mut text = String::new();
    for section in Section::ALL {
        text.push_str(&format!(
            "\n{}:\n\n| component | method | frequency | retention | storage | job | asked for |\n{}\n",
            section.heading(),
            "|---|---|---|---|---|---|---|"
        ));
        for row in section.rows() {
            let asked = [
                row.method,
                &row.frequency.to_string(),
                &row.retention.to_string(),
                row.storage,
            ];
            let asked: Vec<&str> = asked.into_iter().filter(|word| !word.is_empty()).collect();
            let kept = match spec(&config, row.job) {
                Some(job) => [
                    job.kind,
                    job.trigger.to_string(),
                    job.retention.to_string(),
                    job.storage.name().to_owned(),
                    format!("`{}`", row.job),
                ],
                None => ["**not yet**", "", "", "", ""].map(str::to_owned),
            };
            text.push_str(&format!(
                "| {} | {} | {} |\n",
                row.component,
                kept.join(" | "),
                asked.join(", ")
            ));
        }
    }
    text
}

#[test]
fn the_guides_tables_are_what_the_plan_keeps() {
    // Where the test runs, not where it was built: clones share built files.
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo names the folder");
    let path = std::path::Path::new(&here).join("../testkit/tests/tidy/strategy.md");
    if std::env::var_os("RENEW_GUIDE").is_some() {
        std::fs::write(&path, tables()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        there,
        tables(),
        "write it: RENEW_GUIDE=1 cargo test -p operations the_guides_tables, then -p testkit the_guide_page"
    );
}

#[test]
fn the_plan_without_settings_keeps_what_the_guide_asks_for() {
    let config = Backup::default();
    let counts = Section::ALL.map(|section| section.rows().count());
    assert_eq!(counts, [4, 4, 2, 3, 4]);
    for row in &STRATEGY {
        let Some(job) = spec(&config, row.job) else {
            continue;
        };
        let check = row.check(Some(&job), Some(&job), None, &JobCondition::Working);
        assert_eq!(check.verdict, Verdict::Runs, "{check:?}");
        assert_eq!((check.why, check.mend), (None, None));
        assert!(
            job.retention.at_least().is_some(),
            "{}: how long it is kept is only said in words",
            row.job
        );
    }
}

/// (verdict, why, mend)
fn check(
    job: &str,
    change: impl Fn(&mut jobs::JobSpec),
    seen: &JobCondition,
) -> (Verdict, String, String) {
    let guide = spec(&Backup::default(), job).unwrap();
    let mut own = guide.clone();
    change(&mut own);
    let check = row_of(job)
        .unwrap()
        .check(Some(&own), Some(&guide), None, seen);
    (
        check.verdict,
        check.why.unwrap_or_default(),
        check.mend.unwrap_or_default(),
    )
}

#[test]
fn what_is_wrong_with_a_row_is_said_with_the_line_that_mends_it() {
    let as_is = |_: &mut jobs::JobSpec| {};
    let expected = |verdict, why: &str, mend: &str| (verdict, why.to_owned(), mend.to_owned());
    assert_eq!(
        check(
            "database.full",
            |job| job.trigger = "weekly sunday 03:00".parse().unwrap(),
            &JobCondition::Working
        ),
        expected(
            Verdict::Wrong,
            "it runs weekly sunday 03:00; the guide asks for: Daily",
            "[jobs.\"database.full\"] schedule = \"daily 01:30\""
        )
    );
    assert_eq!(
        check(
            "cache.rdb",
            |job| job.retention = Retention::hours(23),
            &JobCondition::Working
        ),
        expected(
            Verdict::Wrong,
            "kept for 23 hours; the guide asks for: 24 hours",
            "[jobs.\"cache.rdb\"] keep_days = 1"
        )
    );
    assert_eq!(
        check(
            "audit_log.archive",
            |job| job.retention = Retention::years(6),
            &JobCondition::Working
        )
        .0,
        Verdict::Wrong
    );
    let (verdict, why, mend) = check(
        "database.schema",
        |job| job.trigger = Trigger::Off,
        &JobCondition::Working,
    );
    assert_eq!((verdict, why.as_str()), (Verdict::Wrong, "it is off"));
    assert!(
        mend.contains("schedule = \"every 15 minutes\"") && mend.contains("not_here = "),
        "{mend}"
    );
    let seen = [
        (JobCondition::NotAsked, Verdict::Configured, ""),
        (JobCondition::NotRunning, Verdict::NotRunning, "bre up"),
        (
            JobCondition::Paused("by ada".to_owned()),
            Verdict::Wrong,
            "bre job resume wal.stream",
        ),
        (
            JobCondition::Unavailable("no git".to_owned()),
            Verdict::Missing,
            "not_here",
        ),
        (
            JobCondition::Failed("no space".to_owned()),
            Verdict::Wrong,
            "bre job show wal.stream",
        ),
        (JobCondition::Working, Verdict::Runs, ""),
    ];
    for (seen, verdict, mend) in seen {
        let came = check("wal.stream", as_is, &seen);
        assert_eq!(came.0, verdict, "{seen:?}");
        assert!(came.2.contains(mend), "{came:?}");
    }
    let absent = row_of("wal.stream")
        .unwrap()
        .check(None, None, None, &JobCondition::Working);
    assert_eq!(absent.verdict, Verdict::Missing);
}

#[test]
fn a_row_that_is_not_here_has_no_job_and_is_not_wrong() {
    let row = row_of("iam.policies").unwrap();
    let reason = Delegation::NotHere("no cloud".to_owned());
    let check = row.check(None, None, Some(&reason), &JobCondition::NotRunning);
    assert_eq!(
        (check.verdict, check.why.as_deref(), check.mend),
        (Verdict::NotHere, Some("no cloud"), None)
    );
    let by = |provider| Delegation::ProvidedBy(provider);
    assert_eq!(may_delegate("iam.policies", &reason, true), Ok(()));
    assert_eq!(
        may_delegate("cloudformation.stacks", &by(Provider::AwsBackup), true),
        Ok(())
    );
    let refused = [
        (
            "iam.policies",
            by(Provider::AwsBackup),
            true,
            "nothing else does",
        ),
        ("cache.rdb", by(Provider::Rds), true, "elasticache"),
        (
            "database.expire",
            reason.clone(),
            true,
            "database.full, database.incremental",
        ),
        ("database.full", reason, false, "a named cluster"),
    ];
    for (job, delegation, of_instance, says) in refused {
        let error = may_delegate(job, &delegation, of_instance).unwrap_err();
        assert!(error.contains(says), "{job}: {error}");
    }
}
