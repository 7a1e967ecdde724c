//! Rows of the record: changed, removed, added, exchanged. The triggers are put back as they were, so that nothing but the rows tells of it.

use super::{Case, case};

macro_rules! behind {
    ($change:literal) => {
        concat!(
            "SET session_replication_role = replica; \
             ALTER TABLE audit_log DISABLE TRIGGER append_only; ALTER TABLE quotes DISABLE TRIGGER append_only; \
             ALTER TABLE locates DISABLE TRIGGER append_only; ALTER TABLE availability_ledger DISABLE TRIGGER append_only; ",
            $change,
            "; ALTER TABLE audit_log ENABLE ALWAYS TRIGGER append_only; ALTER TABLE quotes ENABLE ALWAYS TRIGGER append_only; \
             ALTER TABLE locates ENABLE ALWAYS TRIGGER append_only; ALTER TABLE availability_ledger ENABLE ALWAYS TRIGGER append_only"
        )
    };
}

pub const CASES: &[Case] = &[
    case(
        "an entry's bytes",
        behind!("UPDATE audit_log SET canonical = set_byte(canonical, 60, 9) WHERE position = 10"),
        "hash",
    ),
    case(
        "an entry's bytes and its hash",
        behind!(
            "UPDATE audit_log SET canonical = convert_to('BREA', 'UTF8') || substr(canonical, 5), hash = sha256('x') WHERE position = 10"
        ),
        "its bytes are not an entry",
    ),
    case(
        "an entry's time",
        behind!(
            "UPDATE audit_log SET recorded_at = recorded_at - interval '1 day' WHERE position = 10"
        ),
        "audit_log.recorded_at is",
    ),
    case(
        "an entry's client",
        behind!("UPDATE audit_log SET client_id = 'premium' WHERE position = 10"),
        "audit_log.client_id is \"premium\"",
    ),
    case(
        "an entry's kind",
        behind!("UPDATE audit_log SET kind = 9 WHERE position = 10"),
        "audit_log.kind is \"9\"",
    ),
    case(
        "an entry removed",
        behind!("DELETE FROM audit_log WHERE position = 10"),
        "missing",
    ),
    case(
        "an entry and its quote removed",
        behind!(
            "DELETE FROM audit_log WHERE position = 10; DELETE FROM quotes WHERE position = 10"
        ),
        "missing",
    ),
    case(
        "the first entry removed",
        behind!("DELETE FROM audit_log WHERE position = 1"),
        "missing",
    ),
    case(
        "two entries exchanged",
        behind!(
            "UPDATE audit_log AS a SET canonical = b.canonical, hash = b.hash FROM audit_log AS b WHERE (a.position, b.position) IN ((10, 11), (11, 10))"
        ),
        "position",
    ),
    case(
        "an entry twice",
        behind!(
            "INSERT INTO audit_log SELECT log, 2, position, kind, recorded_at, client_id, ticker, request_id, quote_id, canonical, hash FROM audit_log WHERE position = 10"
        ),
        "second entry",
    ),
    case(
        "an entry of a log that was never opened",
        behind!(
            "INSERT INTO audit_log SELECT 7, epoch, 3, kind, recorded_at, client_id, ticker, request_id, quote_id, canonical, hash FROM audit_log WHERE position = 10"
        ),
        "log 7, which was never opened",
    ),
    case(
        "the tail cut in all four tables",
        behind!(
            "DELETE FROM audit_log WHERE position > 9; DELETE FROM quotes WHERE position > 9; DELETE FROM locates WHERE position > 9; DELETE FROM availability_ledger WHERE position > 9"
        ),
        "the tail was cut",
    ),
    case(
        "all four tables truncated",
        behind!("TRUNCATE audit_log, quotes, locates, availability_ledger CASCADE"),
        "cut",
    ),
    case("the log truncated", behind!("TRUNCATE audit_log"), "cut"),
    case(
        "a fee",
        behind!("UPDATE quotes SET total_fee = 0.8219 WHERE position = 10"),
        "quotes.total_fee is \"0.8219\"",
    ),
    case(
        "a rate in its last digit",
        behind!("UPDATE quotes SET borrow_rate = borrow_rate + 0.00000001 WHERE position = 10"),
        "quotes.borrow_rate is",
    ),
    case(
        "whose quote it is",
        behind!("UPDATE quotes SET client_id = 'premium' WHERE position = 10"),
        "quotes.client_id is \"premium\"",
    ),
    case(
        "a quote removed",
        behind!("DELETE FROM quotes WHERE position = 10"),
        "its row in quotes is missing",
    ),
    case(
        "a quote added",
        behind!(
            "CREATE TEMP TABLE one AS SELECT * FROM quotes LIMIT 1; UPDATE one SET quote_id = gen_random_uuid(), position = 99; INSERT INTO quotes SELECT * FROM one; DROP TABLE one"
        ),
        "the log has no such quote",
    ),
    case(
        "quotes under each other's place",
        behind!("UPDATE quotes SET position = 24 - position WHERE position IN (11, 13)"),
        "quotes.",
    ),
    case(
        "quotes truncated",
        behind!("TRUNCATE quotes"),
        "its row in quotes is missing",
    ),
    case(
        "more granted than was",
        behind!(
            "UPDATE locates SET shares = shares + 100, granted = granted + 100 WHERE granted > 0"
        ),
        "locates.shares is",
    ),
    case(
        "a step of a locate removed",
        behind!("DELETE FROM locates WHERE sequence = 2"),
        "its row in locates is missing",
    ),
    case(
        "a step of a locate added",
        behind!(
            "INSERT INTO locates SELECT log, epoch, 999, recorded_at, locate_id, sequence + 1, status, reason, quote_id, client_id, actor, request_id, ticker, currency, kind, shares, \
             granted, returned, borrow_rate, total_fee, trade_date, offer_expires_at, expires_at FROM locates WHERE sequence = 2 LIMIT 1"
        ),
        "the log has no such entry",
    ),
    case(
        "the day a locate is for",
        behind!("UPDATE locates SET trade_date = trade_date + 1"),
        "locates.trade_date is",
    ),
    case(
        "until when a locate is good",
        behind!(
            "UPDATE locates SET expires_at = expires_at + interval '1 year' WHERE sequence = 2"
        ),
        "locates.expires_at is",
    ),
    case(
        "what the ledger has outstanding",
        behind!("UPDATE availability_ledger SET outstanding = 0"),
        "availability_ledger.outstanding is \"0\"",
    ),
    case(
        "what the ledger says was available",
        behind!("UPDATE availability_ledger SET available = available * 10"),
        "availability_ledger.available is",
    ),
    case(
        "a step of the ledger removed",
        behind!("DELETE FROM availability_ledger WHERE sequence = 1"),
        "its row in availability_ledger is missing",
    ),
    case(
        "the ledger truncated",
        behind!("TRUNCATE availability_ledger"),
        "its row in availability_ledger is missing",
    ),
];
