use super::*;

const HEADER: &str =
    "#BOF|2025.06.30|15:14:44\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\n";

fn now() -> Timestamp {
    "2025-07-01T12:00:00Z".parse().unwrap()
}

fn describe(parsed: &ParsedFile) -> String {
    let rows = parsed.rows.iter().map(|row| {
        let available = row
            .available
            .map_or("?".to_owned(), |count| count.to_string());
        let more = if row.available_or_more { "+" } else { "" };
        format!(
            "{} {} {} {} {available}{more}",
            row.symbol,
            row.currency,
            row.name,
            super::super::eight_decimals(row.rate)
        )
    });
    let aside = parsed
        .quarantined
        .iter()
        .map(|row| format!("{}: {}", row.line, row.reason));
    rows.chain(aside).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let found = match parse(text.as_bytes(), now(), &FeedLimits::default()) {
        Ok(parsed) => describe(&parsed),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected);
}

#[test]
fn every_trap_of_the_raw_file() {
    let rows = [
        "AAA|USD|ALPHA &amp; SONS|1|XXXXXXX1|3.3900|0.2500|>10000000|BBG1|",
        "BRK A|USD|B|1|X|3.3900|0.2500|1000||",
        "HOT|USD|H|1|X|-1012.9448|1016.5848|100|F|",
        "OFF|USD|O|1|X|3.3900|0.2501|100|F|",
        "LIE|USD|L|1|X|3.3900|0.2600|100|F|",
        "NONE|USD|N|1|X|NA|NA|600|F|",
        "CAN|CAD|C|1|X|2.0000|0.2500|NA|F|",
        "low|USD|C|1|X|3.3900|0.2500|1|F|",
        "|USD|C|1|X|3.3900|0.2500|1|F|",
        "NEG|USD|C|1|X|3.8900|-0.2500|1|F|",
        "CUT|USD|C|1|X|3.3",
        "EXTRA|USD|C|1|X|3.3900|0.2500|1|F|G|",
        "GOOD|USD|G|1|X|3.1400|0.5000|5|F|",
        "FINE|USD|G|1|X|3.1400|0.5000|5|F|",
        "MORE|USD|G|1|X|3.1400|0.5000|5|F|",
        "LAST|USD|G|1|X|3.1400|0.5000|5|F|",
        "TOO|USD|G|1|X|3.1400|0.5000|many|F|",
    ];
    check(
        &format!("{HEADER}{}\n#EOF|{}\n", rows.join("\n"), rows.len()),
        "AAA USD ALPHA & SONS 0.00250000 10000000+\nBRK A USD B 0.00250000 1000\nHOT USD H 10.16584800 100\n\
         OFF USD O 0.00250100 100\nCAN CAD C 0.00250000 ?\nlow USD C 0.00250000 1\nGOOD USD G 0.00500000 5\nFINE USD G 0.00500000 5\nMORE USD G 0.00500000 5\nLAST USD G 0.00500000 5\n\
         8: rate_not_available\n11: symbol_missing\n12: rate_negative\n13: row_cut_short\n14: row_malformed\n\
         19: availability_malformed\n7: benchmark_mismatch",
    );
}

#[test]
fn the_snapshot_form_and_a_file_without_figi() {
    check(
        "sym,cur,name,con,isin,rebaterate,feerate,available,figi\nAFFT,USD,\"AMTRUST, INC \"\"A\"\"\",206575913.0,X,-0.7686,4.4086,85000,B\n\
         BBB,USD,B,1.0,X,3.39,0.25,>10000000,\n,USD,NANO LABS,1.0,X,-3.902,7.542,1,B\n#EOF,3,,,,,,,\n",
        "AFFT USD AMTRUST, INC \"A\" 0.04408600 85000\nBBB USD B 0.00250000 10000000+\n4: symbol_missing",
    );
    check(
        "#BOF|2019.06.30|15:14:44\r\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|\r\nAAA|USD|A|1|X|3.39|0.25|7|\r\n#EOF|1\r\n",
        "AAA USD A 0.00250000 7",
    );
}

#[test]
fn a_file_that_fails_as_a_whole() {
    let row = "AAA|USD|A|1|X|3.3900|0.2500|1|F|\n";
    check("", "the file is empty; send the feed's own file unchanged");
    check(
        &format!("{HEADER}#EOF|0\n"),
        "the file is empty; send the feed's own file unchanged",
    );
    check(
        &format!("{HEADER}{row}"),
        "the file has no #EOF line at its end: it was cut short; fetch it again",
    );
    check(
        &format!("{HEADER}{row}#EOF|2\n"),
        "the file announces 2 rows and holds 1; fetch it again",
    );
    check(
        &format!("{HEADER}{row}#EOF|1\n{row}"),
        "line 5 follows the end marker; fetch the file again",
    );
    check(
        &format!("{}{row}#EOF|1\n", HEADER.replace("2025", "2031")),
        "the file's time 2031-06-30T15:14:44Z lies in the future; check the feed's clock",
    );
    check(
        "#BOF|today|now\n",
        "line 1: expected #BOF|YYYY.MM.DD|HH:MM:SS, found \"#BOF|today|now\"; send the feed's own file unchanged",
    );
    check(
        &format!("{HEADER}{row}B|USD|A|1|X|NA|NA|1|F|\nC|USD|A|1|X|NA|NA|1|F|\n#EOF|3\n"),
        "2 of 3 rows failed their checks (rate_not_available: 2), more than half: the file as a whole is not believed",
    );
}

#[test]
fn a_currency_whose_rows_disagree_has_no_benchmark() {
    check(
        &format!(
            "{HEADER}AAA|USD|A|1|X|3.3900|0.2500|1|F|\nBBB|USD|A|1|X|3.3900|0.2500|1|F|\nCCC|EUR|A|1|X|1.0|0.5|1|F|\nDDD|EUR|A|1|X|1.0|0.9|1|F|\n#EOF|4\n"
        ),
        "AAA USD A 0.00250000 1\nBBB USD A 0.00250000 1\n5: benchmark_unclear\n6: benchmark_unclear",
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_every_row_is_accounted_for(bytes in "(?s)(#BOF\\|2025.06.30\\|15:14:44\n#SYM\\|CUR\\|NAME\\|CON\\|ISIN\\|REBATERATE\\|FEERATE\\|AVAILABLE\\|FIGI\\|\n)?([A-Z|0-9.,\"\u{e9}-]{0,60}\n){0,8}#EOF\\|[0-8]\n?") {
        let rows = bytes.lines().filter(|line| !line.starts_with('#') && !is_blank(line)).count();
        if let Ok(parsed) = parse(bytes.as_bytes(), now(), &FeedLimits::default()) {
            proptest::prop_assert_eq!(parsed.rows.len() + parsed.quarantined.len(), rows);
        }
    }
}

#[test]
fn columns_that_the_feed_moved_added_or_renamed_are_found_by_name() {
    let expected = "AAA USD A 0.00250000 7";
    check(
        "Not for redistribution.\n#BOF|2025.06.30|15:14:44\n#SYM|NEW|CUR|FEERATE|REBATERATE|AVAILABLE|NAME|\nAAA|x|USD|0.25|3.39|7|A|\n#EOF|1\n",
        expected,
    );
    check(
        "sep=;\nSymbol;Currency;Name;Fee;Rebate;Available\nAAA;USD;A;0.25;3.39;7\n;;;;;\n#EOF;1;;;;\n",
        expected,
    );
    check(
        "sym,cur,name,rebaterate,available\nAAA,USD,A,3.39,7\n#EOF,1\n",
        "line 1: the columns FEERATE are missing; found: \"sym,cur,name,rebaterate,available\". Columns are found by name, in any order, others beside them",
    );
}
