//! How long a verification takes with many rates, and what memory: printed, not judged (`make slow-many-rates`).

use std::time::Instant;

use crate::harness::Instance;

/// Kilobytes of this process, by the name that the kernel gives them.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse().unwrap()
}

async fn verified(instance: &Instance, what: &str) {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let began = Instant::now();
    let report = instance.verify().await;
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(
        (report.log.reason, report.tables.verdict),
        (None, "as_recorded")
    );
    println!(
        "{what}: {seconds:.2} s for {} entries and {} rows of tables; {} KiB more at its peak",
        report.log.entries,
        report.tables.compared,
        memory("VmHWM").saturating_sub(before)
    );
}

#[ignore = "takes minutes: make slow-many-rates"]
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_with_many_rates_is_measured() {
    let number =
        |name: &str, usual: usize| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (rows, batch) = (number("ROWS", 1_000_000), number("BATCH", 20_000));
    let mut instance = Instance::start().await;
    verified(&instance, "the sample").await;
    let began = Instant::now();
    let loads = rows.div_ceil(batch);
    for load in 0..loads {
        let minutes = i64::try_from(loads - load).unwrap();
        let then = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
        let mut book = format!(
            "#BOF|{}\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\n",
            then.strftime("%Y.%m.%d|%H:%M:%S")
        );
        for row in 0..batch {
            let fee = 2_500 + row % 1_000;
            book.push_str(&format!(
                "T{row}|USD|A COMPANY LIMITED {row}|{row}|US{row:010}|3.{:04}|0.{fee:04}|{}|BBG{row:09}|\n",
                10_000 - fee,
                row * 100
            ));
        }
        book.push_str(&format!("#EOF|{batch}\n"));
        let path = "/internal/import?kind=ibkr&accept_jumps=true&by=tester";
        let (status, body) = instance.control("POST", path, book.as_bytes()).await;
        assert_eq!(status, 200, "{body}");
    }
    println!(
        "loaded: {loads} deliveries of {batch} rates in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    instance.stop().await;
    for turn in 0..3 {
        verified(&instance, &format!("with {rows} rates, turn {turn}")).await;
    }
}
