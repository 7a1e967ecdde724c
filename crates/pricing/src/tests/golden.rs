use super::number;
use crate::*;

/// policy | base | index | factor | rate
const RATES: &str = "
    standard-1       | 0.05       | 25    | 2  | 0.06300000
    standard-1       | 0.05       | 0     | 0  | 0.05000000
    standard-1       | 0.19       | 0     | 0  | 0.19000000
    sequential-1     | 0.05       | 15    | 8  | 0.05980000
    absolute-event-1 | 0.15       | 45    | 8  | 0.25750000
    above-20-1       | 0.05       | 19.99 | 0  | 0.05000000
    above-20-1       | 0.05       | 25    | 2  | 0.05300000
    banded-1         | 1          | 19    | 0  | 1.19000000
    banded-1         | 1          | 25    | 0  | 1.26250000
    banded-1         | 1          | 30    | 0  | 1.30000000
    banded-1         | 1          | 35    | 0  | 1.37500000
    banded-1         | 1          | 29.999999 | 0 | 1.32499999
    standard-1       | 10.162345  | 20    | 10 | 12.70293125
    standard-1       | 0.0025     | 0     | 0  | 0.00250000
    standard-1       | 0          | 80    | 10 | 0.00010000
    standard-1       | 0.00000001 | 0     | 0  | 0.00010000
    standard-1       | 0.00100005 | 10    | 0  | 0.00110006
    standard-1       | 0.00100015 | 10    | 0  | 0.00110016
    standard-1       | 0.00100025 | 10    | 0  | 0.00110028
";

#[test]
fn rates() {
    for (line, cell) in table(RATES) {
        let policy = Policy::find_shipped(cell[0]).unwrap();
        let inputs = RateInputs {
            base_rate: number(cell[1]),
            minimum_rate: Rate::ZERO,
            volatility_index: number(cell[2]),
            event_risk_factor: cell[3].parse().unwrap(),
        };
        assert_eq!(
            rate(&inputs, &policy).unwrap().rate.to_string(),
            cell[4],
            "{line}"
        );
    }
}

/// convention | currency | position | shares | price | rate | days | markup % | fee | cost | markup | fee | total
const FEES: &str = "
    act365-1    | USD | 100000  |        |      | 0.19 | 30 | 0   | flat 0   | 1561.6438 | 0.0000  | 0.0000   | 1561.6438
    act365-1    | USD | 50000   |        |      | 0.19 | 60 | 0   | flat 0   | 1561.6438 | 0.0000  | 0.0000   | 1561.6438
    act365-1    | USD | 100000  |        |      | 0.05 | 30 | 5   | flat 25  | 410.9589  | 20.5479 | 25.0000  | 456.5068
    act365-1    | USD | 100000  |        |      | 0.05 | 30 | 3.5 | part 0.5 | 410.9589  | 14.3836 | 500.0000 | 925.3425
    act360-1    | USD | 10000   |        |      | 0.01 | 7  | 0   | flat 0   | 1.9444    | 0.0000  | 0.0000   | 1.9444
    us-street-1 | USD | 25000   | 100000 | 0.25 | 0.50 | 1  | 0   | flat 0   | 138.8889  | 0.0000  | 0.0000   | 138.8889
    us-street-1 | USD | 110000  | 10000  | 11   | 0.05 | 1  | 0   | flat 0   | 16.6667   | 0.0000  | 0.0000   | 16.6667
    us-street-1 | USD | 110000  | 10000  | 50   | 0.05 | 1  | 0   | flat 0   | 70.8333   | 0.0000  | 0.0000   | 70.8333
    eu-street-1 | EUR | 1000    | 100    | 10.01 | 0.36 | 10 | 0  | flat 0   | 10.5200   | 0.0000  | 0.0000   | 10.5200
    eu-street-1 | GBP | 1000    | 100    | 10.01 | 0.365 | 10 | 0 | flat 0   | 10.5200   | 0.0000  | 0.0000   | 10.5200
    act365-1    | USD | 0.01    |        |      | 0.0001 | 1 | 0  | flat 0   | 0.0000    | 0.0000  | 0.0000   | 0.0000
    act365-1    | USD | 1000000000 |     |      | 10.16 | 365 | 5 | part 1   | 10160000000.0000 | 508000000.0000 | 10000000.0000 | 10678000000.0000
    act365-1    | USD | 0.73    |        |      | 0.05 | 5 | 100 | flat 0   | 0.0005    | 0.0005  | 0.0000   | 0.0010
    act365-1    | USD | 0.73    |        |      | 0.05 | 5 | 10  | part 0.005 | 0.0005  | 0.0001  | 0.0000   | 0.0006
    act365-1    | USD | 0.01    |        |      | 0.0001 | 1 | 0  | part 0.5 | 0.0000    | 0.0000  | 0.0001   | 0.0001
";

#[test]
fn fees() {
    for (line, cell) in table(FEES) {
        let convention = Convention::find_shipped(cell[0]).unwrap();
        let per_share = (!cell[3].is_empty()).then(|| PerShare {
            shares: cell[3].parse().unwrap(),
            price: number(cell[4]),
        });
        let (how, amount) = cell[8].split_once(' ').unwrap();
        let steps = locate_fee(
            &FeeInputs {
                currency: cell[1],
                position_value: number(cell[2]),
                per_share,
                rate: number(cell[5]),
                loan_days: cell[6].parse().unwrap(),
                markup_percent: number(cell[7]),
                fee: match how {
                    "flat" => Fee::Flat(number(amount)),
                    _ => Fee::Percentage(number(amount)),
                },
            },
            &convention,
        )
        .unwrap();
        let found = [
            steps.borrow_cost,
            steps.markup,
            steps.transaction_fee,
            steps.total_fee,
        ];
        assert_eq!(found.map(|money| money.to_string()), cell[9..13], "{line}");
    }
}

#[test]
fn the_cent_is_for_invoices() {
    for (money, cents) in [
        ("138.8889", "138.89"),
        ("16.6667", "16.67"),
        ("1.9444", "1.94"),
        ("0.0050", "0.01"),
        ("0.0049", "0.00"),
        ("-0.0050", "-0.01"),
    ] {
        assert_eq!(number::<4>(money).to_cents().to_string(), cents);
    }
    assert_eq!(
        Money::from_units(i64::MAX).to_cents().to_string(),
        "922337203685477.58"
    );
}

#[test]
fn the_stocks_own_minimum_is_a_floor_too() {
    let inputs = RateInputs {
        base_rate: number("0.01"),
        minimum_rate: number("0.0125"),
        volatility_index: number("20"),
        event_risk_factor: 0,
    };
    let steps = rate(&inputs, &Policy::standard_1()).unwrap();
    assert_eq!(
        (steps.rate.to_string().as_str(), steps.floored),
        ("0.01250000", true)
    );
    let higher = RateInputs {
        minimum_rate: number("0.012"),
        ..inputs
    };
    let steps = rate(&higher, &Policy::standard_1()).unwrap();
    assert_eq!(
        (steps.rate.to_string().as_str(), steps.floored),
        ("0.01200000", false)
    );
}

#[test]
fn status_and_tier() {
    let status = |rate: &str| borrow_status(number(rate)).as_str();
    assert_eq!(
        ["0.005", "0.00500001", "0.03", "0.03000001", "10.16"].map(status),
        ["EASY", "MEDIUM", "MEDIUM", "HARD", "HARD"]
    );
    let tier = |index: &str| volatility_tier(number(index)).as_str();
    assert_eq!(
        ["19.999999", "20", "29.99", "30", "39.99", "40"].map(tier),
        ["LOW", "NORMAL", "NORMAL", "HIGH", "HIGH", "EXTREME"]
    );
}

#[test]
fn every_shipped_policy_and_convention_is_found_by_its_name() {
    let policies = [
        "standard-1",
        "sequential-1",
        "absolute-event-1",
        "above-20-1",
        "banded-1",
    ];
    let conventions = ["act365-1", "us-street-1", "eu-street-1", "act360-1"];
    assert_eq!(
        Policy::shipped().iter().map(Policy::id).collect::<Vec<_>>(),
        policies
    );
    assert_eq!(
        Convention::shipped()
            .iter()
            .map(Convention::id)
            .collect::<Vec<_>>(),
        conventions
    );
    assert_eq!(Policy::find_shipped("standard-2"), None);
    assert!(
        Policy::shipped()
            .iter()
            .all(|policy| policy.check().is_ok())
    );
    assert!(
        Convention::shipped()
            .iter()
            .all(|convention| convention.check().is_ok())
    );
}

fn table(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| (line, line.split('|').map(str::trim).collect()))
}
