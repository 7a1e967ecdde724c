//! Whoever rules the database changes something, and verification names it. One table of cases for each kind of thing; each case is done to a
//! copy of one database, so that none meets another's traces. CI does twelve of them by a printed seed; `make slow-tamper` does all.
//! SEED chooses and repeats, CASES (a number, or a part of a name) says how many or which. What is done to the
//! repository, to both, and to what vouches for them, needs the whole engine: `engine/tests/it/tamper.rs` (heads and
//! copies) and `anchors.rs` (roll-backs), in `make slow-tamper` as well.

mod objects;
mod rights;
mod rows;
mod terms_and_feeds;

use std::fmt::Write as _;

use serde_json::json;
use services::{AuditReport, WriterState};

use crate::harness::{GME, Instance, until};
use crate::locates::{options, post, wanted};

/// One way to tamper.
pub struct Case {
    pub name: &'static str,
    /// As a superuser; `{db}` is the database's name.
    pub sql: &'static str,
    /// What is not the database's own, and must be as it was for the next case.
    pub undo: &'static str,
    /// Words of the finding.
    pub finds: &'static str,
}

/// A case that leaves nothing outside its database.
pub const fn case(name: &'static str, sql: &'static str, finds: &'static str) -> Case {
    Case {
        name,
        sql,
        undo: "",
        finds,
    }
}

fn all() -> Vec<&'static Case> {
    let tables = [rows::CASES, objects::CASES, rights::CASES];
    tables.into_iter().flatten().collect()
}

/// A log with something of everything, and nobody on it.
struct World {
    instance: Instance,
    copies: u32,
}

impl World {
    async fn new() -> World {
        let mut instance = Instance::with(options()).await;
        let key = instance.key_for("standard").await;
        for _ in 0..6 {
            assert_eq!(instance.locate(&key, GME).await.status, 200);
        }
        let locates = instance.url("/api/v1/locates");
        for _ in 0..2 {
            let offered = post(locates.clone(), &key, None, &wanted("GME", 100)).await;
            let id = offered.json()["locate_id"].as_str().unwrap().to_owned();
            let accepted = post(format!("{locates}/{id}/accept"), &key, None, &json!({})).await;
            assert_eq!(
                accepted.json()["locate_status"],
                "filled",
                "{}",
                accepted.body
            );
        }
        instance.stop().await;
        World {
            instance,
            copies: 0,
        }
    }

    /// A database of its own for a case.
    async fn copy(&mut self) -> String {
        self.copies += 1;
        let name = format!("copy_{}", self.copies);
        self.instance.postgres.sql(&format!(
            "CREATE DATABASE {name} TEMPLATE bre OWNER bre_owner"
        ));
        name
    }

    fn login(&self, role: &str, database: &str) -> String {
        let login = self.instance.login(role);
        login.replace("dbname=bre", &format!("dbname={database}"))
    }

    async fn sql(&self, database: &str, sql: &str) -> Result<(), String> {
        let (client, connection) =
            tokio_postgres::connect(&self.login("postgres", database), tokio_postgres::NoTls)
                .await
                .unwrap();
        let driver = tokio::spawn(connection);
        let sql = sql.replace("{db}", database);
        let done = client.batch_execute(&sql).await;
        drop(client);
        driver.await.unwrap().unwrap();
        done.map_err(|error| format!("{sql}: {error:?}"))
    }

    async fn verify(&self, role: &str, database: &str) -> AuditReport {
        let keys = [self.instance.key.verifying_key().clone()];
        let heads = self.instance.outside.heads.lock().unwrap().clone();
        let heads: Vec<_> = heads
            .iter()
            .map(|head| head.verify(&keys).unwrap())
            .collect();
        services::verify(&self.login(role, database), 0, &heads, &keys)
            .await
            .unwrap()
    }
}

/// Everything that the report holds against the database, in words.
fn said(report: &AuditReport) -> String {
    let mut text = report.log.reason.clone().unwrap_or_default();
    for finding in &report.schema.findings {
        write!(text, "\n{finding}").unwrap();
    }
    text
}

/// The cases of this run, as the environment says.
fn chosen() -> Vec<&'static Case> {
    let all = all();
    let wish = std::env::var("CASES").unwrap_or_else(|_| "12".to_owned());
    let (count, part) = match (wish.as_str(), wish.parse::<usize>()) {
        ("all", _) => (all.len(), ""),
        (_, Ok(count)) => (count.min(all.len()), ""),
        (part, Err(_)) => (all.len(), part),
    };
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 1);
    println!("SEED={seed} CASES={wish}");
    let mut left: Vec<&Case> = all
        .into_iter()
        .filter(|case| case.name.contains(part))
        .collect();
    let mut chosen = Vec::new();
    while chosen.len() < count && !left.is_empty() {
        // SplitMix64.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let at = usize::try_from((bits ^ (bits >> 31)) % left.len() as u64).unwrap();
        chosen.push(left.swap_remove(at));
    }
    chosen
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_rules_the_database_is_found_out() {
    let mut world = World::new().await;
    let untouched = world.copy().await;
    for role in ["postgres", "bre_service"] {
        let report = world.verify(role, &untouched).await;
        assert!(report.is_sound(), "{}", said(&report));
        assert_eq!(report.verdict, "sound");
    }
    let mut unseen = Vec::new();
    let chosen = chosen();
    for case in &chosen {
        let database = world.copy().await;
        if let Err(error) = world.sql(&database, case.sql).await {
            unseen.push(format!("{}: it cannot be done: {error}", case.name));
        }
        let report = world.verify("postgres", &database).await;
        let said = said(&report);
        if report.is_sound() || !said.contains(case.finds) || report.verdict == "sound" {
            unseen.push(format!(
                "{}: {:?} is not in {said:?}",
                case.name, case.finds
            ));
        }
        // Nothing of it is another's spelling.
        assert!(!said.contains("Some(") && !said.contains("None"), "{said}");
        if !case.undo.is_empty() {
            world.sql(&database, case.undo).await.unwrap();
        }
        world
            .instance
            .postgres
            .sql(&format!("DROP DATABASE {database}"));
    }
    assert!(
        unseen.is_empty(),
        "{} of {} were not found:\n{}",
        unseen.len(),
        chosen.len(),
        unseen.join("\n")
    );
}

#[test]
fn the_suite_has_enough_cases_and_each_a_name_of_its_own() {
    let mut names: Vec<&str> = all().iter().map(|case| case.name).collect();
    assert!(names.len() >= 60, "{}", names.len());
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "two cases have one name");
}

/// Invariant 7 where it counts: what the role could do is looked at whenever the log is taken up.
#[tokio::test(flavor = "multi_thread")]
async fn a_serving_role_that_could_change_the_record_writes_none() {
    let mut instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    for (too_much, taken_away, words) in [
        (
            "GRANT DELETE ON quotes TO bre_service",
            "REVOKE DELETE ON quotes FROM bre_service",
            "it has the right DELETE on quotes, which only grows",
        ),
        (
            "ALTER TABLE audit_log OWNER TO bre_service",
            "ALTER TABLE audit_log OWNER TO bre_owner; GRANT SELECT, INSERT ON audit_log TO bre_service",
            "it owns audit_log",
        ),
        (
            "GRANT bre_owner TO bre_service",
            "REVOKE bre_owner FROM bre_service",
            "it is a member of bre_owner, which owns",
        ),
    ] {
        instance.services().pause_writer().await;
        instance.sql(too_much).await;
        instance.services().resume_writer(None).await.unwrap();
        let state = until(
            words,
            async || instance.services().writer_state(),
            |state| matches!(state, WriterState::Refusing { .. }),
        )
        .await;
        let WriterState::Refusing { reason } = state else {
            panic!("{state:?}");
        };
        assert!(
            reason.contains(words) && reason.contains("docs/operations/settings.md"),
            "{reason}"
        );
        assert_eq!(instance.locate(&key, GME).await.status, 503);
        assert_eq!(instance.get(&key, "/api/v1/rates/GME").await.status, 200);
        instance.sql(taken_away).await;
        until(
            "served again",
            async || instance.services().writer_state(),
            WriterState::is_serving,
        )
        .await;
        assert_eq!(instance.locate(&key, GME).await.status, 200);
    }
    // At a start as well.
    instance.stop().await;
    instance.sql("ALTER ROLE bre_service SUPERUSER").await;
    instance.launch().await;
    let refusal = until(
        "refused at a start",
        async || instance.services().writer_state(),
        |state| matches!(state, WriterState::Refusing { .. }),
    )
    .await;
    assert!(format!("{refusal:?}").contains("it is a superuser"));
}
