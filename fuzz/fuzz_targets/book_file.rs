//! Books: Parquet through the door that a client's file comes through, CSV otherwise. No stack, no time, no memory beyond the bounds
//! (run it with -rss_limit_mb=1024 -timeout=70), and no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(lines) = services::check_book(bytes) {
        assert!((1..=5_000_000).contains(&lines));
    }
});
