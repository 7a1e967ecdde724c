//! `bre verify audit` against a superuser who means ill: done in SQL, found by the command.

use serde_json::{Value, json};

use crate::{instance::Instance, process::TIMEOUT, process::within};

const TABLES: [&str; 2] = ["audit_log", "quotes"];

impl Instance {
    /// As a superuser can, past the triggers, which are then as they were: only the rows tell of it.
    pub(crate) fn sql_past_triggers(&self, sql: &str) {
        let all = |what: &str| {
            TABLES
                .map(|table| format!("ALTER TABLE {table} {what} TRIGGER append_only; "))
                .concat()
        };
        self.sql(&format!(
            "{}{sql}; {}",
            all("DISABLE"),
            all("ENABLE ALWAYS")
        ));
    }

    /// Keeps a copy of how it was.
    fn keep_the_record(&self) {
        self.sql("CREATE SCHEMA copy");
        for table in TABLES {
            self.sql(&format!("CREATE TABLE copy.{table} AS TABLE {table}"));
        }
    }

    fn put_the_record_back(&self) {
        for table in TABLES {
            self.sql_past_triggers(&format!(
                "TRUNCATE {table}; INSERT INTO {table} SELECT * FROM copy.{table}"
            ));
        }
    }

    /// Verification fails at this position of epoch 1 and says why; then the record is put back, and all is well again.
    fn found(&self, change: &str, position: u64, reason: &str) {
        assert_ne!(self.change(change), 0, "it changes nothing: {change}");
        let output = self.bre(&["verify", "audit"]);
        let report = output.parsed();
        // By number as by word.
        let told = (output.code, report["verdict"].as_str().unwrap_or_default());
        let words = [(Some(8), "cut"), (Some(9), "rewritten")];
        assert!(words.contains(&told), "{change}: {output:?}");
        assert_eq!(
            report["first_bad"],
            json!({"epoch": 1, "position": position}),
            "{change}: {report}"
        );
        let said = report["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{change}: {said}");
        assert_eq!(report["verified"], position - 1, "{change}: {report}");
        self.put_the_record_back();
        self.audit_is_sound();
    }

    /// Runs it; how many rows of the record are gone or not as they were.
    fn change(&self, sql: &str) -> usize {
        self.sql_past_triggers(sql);
        let differ =
            |table| format!("SELECT 1 FROM (TABLE copy.{table} EXCEPT TABLE {table}) AS gone");
        TABLES
            .map(|table| self.sql(&differ(table)).len())
            .iter()
            .sum()
    }

    /// The entry about the first backup follows on its own time; tests of the record wait for it.
    fn wait_first_backup_recorded(&self) {
        let recorded = within(TIMEOUT, || {
            (!self
                .sql("SELECT 1 FROM audit_log WHERE kind = 7")
                .is_empty())
            .then_some(())
        });
        assert!(recorded.is_some(), "the first backup is not on record");
    }
}

fn position_of(quote: &Value) -> u64 {
    quote["audit"]["position"].as_u64().unwrap()
}

#[test]
fn every_change_to_the_record_is_found_and_named() {
    let instance = Instance::start();
    instance.wait_first_backup_recorded();
    let first = position_of(&instance.quote("GME"));
    let middle = position_of(&instance.quote("AAPL"));
    let last = position_of(&instance.quote("GME"));
    assert_eq!((middle, last), (first + 1, first + 2));
    let report = instance.audit_is_sound();
    assert_eq!(
        (&report["entries"], &report["quotes"]),
        (&json!(last), &json!(3))
    );

    // Cut right after the answer left, before any head of it can be in the repository.
    let cut = position_of(&instance.quote("GME"));
    instance.keep_the_record();
    let at = |position: u64| format!("WHERE position = {position}");
    instance.found(
        &format!("DELETE FROM audit_log {0}; DELETE FROM quotes {0}", at(cut)),
        cut,
        "tail was cut",
    );
    instance.found(
        &format!(
            "UPDATE quotes SET total_fee = total_fee + 0.0001 {}",
            at(middle)
        ),
        middle,
        "total_fee",
    );
    instance.found(
        &format!("UPDATE quotes SET client_id = 'premium' {}", at(first)),
        first,
        "client_id",
    );
    instance.found(
        &format!("UPDATE audit_log SET ticker = 'AMC' {}", at(middle)),
        middle,
        "audit_log.ticker",
    );
    instance.found(
        &format!(
            "UPDATE audit_log SET canonical = set_byte(canonical, 60, 9) {}",
            at(middle)
        ),
        middle,
        "hash",
    );
    instance.found(
        &format!("DELETE FROM quotes {}", at(middle)),
        middle,
        "its row in quotes is missing",
    );
    instance.found(
        &format!(
            "DELETE FROM audit_log {0}; DELETE FROM quotes {0}",
            at(middle)
        ),
        middle,
        "",
    );
    instance.found("TRUNCATE audit_log, quotes", 1, "");
}

#[test]
fn a_cut_tail_is_found_after_a_restart_too_and_no_locate_is_added_to_it() {
    let mut instance = Instance::start();
    instance.wait_first_backup_recorded();
    instance.quote("GME");
    let cut = position_of(&instance.quote("GME"));
    for table in TABLES {
        instance.sql_past_triggers(&format!("DELETE FROM {table} WHERE position = {cut}"));
    }
    instance.stop();
    instance.up();
    let report = instance.bre(&["verify", "audit"]).exits(8).parsed();
    assert_eq!(report["first_bad"], json!({"epoch": 1, "position": cut}));
    let located = instance.locate();
    assert_eq!(located.status, 503, "{}", located.text);
    assert!(located.text.contains("log_damaged"), "{}", located.text);
    let ours = "SELECT max(position) FROM audit_log";
    assert_eq!(instance.value(ours), (cut - 1).to_string());
    let rates = within(TIMEOUT, || {
        (instance.get("/api/v1/rates/GME").status == 200).then_some(())
    });
    assert!(rates.is_some(), "rates are served all the same");
}

#[test]
fn the_serving_role_can_add_to_the_record_and_never_change_it() {
    let instance = Instance::start();
    instance.quote("GME");
    for table in TABLES {
        let rows = instance.sql_as("bre_service", &format!("SELECT 1 FROM {table}"));
        assert!(!rows.unwrap().rows.is_empty());
        for change in [
            format!("UPDATE {table} SET position = position + 1"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
            format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
            format!("DROP TABLE {table}"),
        ] {
            let error = instance.sql_as("bre_service", &change).unwrap_err();
            // By the grants alone: the triggers, which say "append-only", are a second lock.
            let said = error.to_string();
            let denied = said.contains("permission denied") || said.contains("must be owner");
            assert!(denied, "{change}: {said}");
        }
    }
    instance.audit_is_sound();
}
