//! Files of every kind: the first byte chooses which.
#![no_main]

use libfuzzer_sys::fuzz_target;

const KINDS: [&str; 6] = ["ibkr", "clearstreet", "vix", "events", "brokers", "aliases"];

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, file)) = bytes.split_first() else {
        return;
    };
    let kind = KINDS[usize::from(*choice) % KINDS.len()];
    // Half a year after the samples' dates.
    let now = jiff::Timestamp::constant(1_767_225_600, 0);
    if let Ok(Some(report)) = services::check_feed(kind, file, now) {
        assert_eq!(report.rows, report.loaded + report.quarantined);
        assert!(report.loaded > 0);
    }
});
