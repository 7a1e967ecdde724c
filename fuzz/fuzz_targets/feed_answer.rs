//! Answers of feeds over HTTP: each is read as all of them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let now = jiff::Timestamp::constant(1_767_225_600, 0);
    for kind in ["seclend", "seclend_one", "volatility", "event_risk"] {
        if let Ok(Some(report)) = services::check_feed(kind, bytes, now) {
            assert_eq!(report.rows, report.loaded + report.quarantined);
            assert!(report.loaded > 0);
        }
    }
});
