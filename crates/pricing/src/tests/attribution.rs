use super::*;

#[track_caller]
fn check(change: impl Fn(&mut QuoteInputs), expected: &[(Cause, &str)]) {
    let from = inputs();
    let mut to = inputs();
    change(&mut to);
    let found = attribute(&from, &to).unwrap();
    let causes: Vec<(Cause, String)> = found
        .causes
        .iter()
        .map(|(cause, by)| (*cause, by.to_string()))
        .collect();
    let expected: Vec<(Cause, String)> = expected
        .iter()
        .map(|(cause, by)| (*cause, (*by).to_owned()))
        .collect();
    assert_eq!(causes, expected);
    let sum: i64 = found.causes.iter().map(|(_, by)| by.units()).sum();
    assert_eq!(sum, found.to.units() - found.from.units());
}

/// From 456.5068: 410.9589 borrow cost, 20.5479 markup, 25 flat.
#[test]
fn each_cause_is_told_by_what_it_changes() {
    check(|_| {}, &[]);
    check(|to| to.priced_at_micros += 60_000_000, &[]);
    check(|to| to.loan_days = 60, &[(Cause::Position, "431.5069")]);
    check(
        |to| to.base_rate.value = number("0.10"),
        &[(Cause::BaseRate, "431.5069")],
    );
    // 0.05 × 1.25 and 0.05 × 1.01: a quarter and a hundredth of 431.5068.
    check(
        |to| to.volatility_index.value = number("25"),
        &[(Cause::Volatility, "107.8767")],
    );
    check(
        |to| to.event_risk_factor.value = 2,
        &[(Cause::Event, "4.3151")],
    );
    check(
        |to| to.fee.value = Fee::Flat(number("24")),
        &[(Cause::ClientSettings, "-1.0000")],
    );
    check(
        |to| {
            to.convention = Arc::new(
                Convention::shipped()
                    .into_iter()
                    .find(|c| c.id() == "act360-1")
                    .unwrap(),
            )
        },
        &[(Cause::Convention, "5.9932")],
    );
}

#[test]
fn several_causes_add_up_to_the_difference() {
    let shipped = |id: &str| {
        Arc::new(
            Policy::shipped()
                .into_iter()
                .find(|p| p.id() == id)
                .unwrap(),
        )
    };
    let from = inputs();
    for (rate, index, risk, markup, policy) in [
        ("0.07", "33.1", 3, "3.5", "sequential-1"),
        ("0.0001", "20", 10, "0", "absolute-event-1"),
        ("9.99999999", "80.5", 1, "12.345678", "above-20-1"),
        ("0.03", "29.999999", 0, "5", "banded-1"),
    ] {
        let mut to = inputs();
        to.base_rate.value = number(rate);
        to.volatility_index.value = number(index);
        to.event_risk_factor.value = risk;
        to.markup_percent.value = number(markup);
        to.policy = shipped(policy);
        let found = attribute(&from, &to).unwrap();
        assert_eq!(found.to, quote(&to).unwrap().fee.total_fee);
        let sum: i64 = found.causes.iter().map(|(_, by)| by.units()).sum();
        assert_eq!(sum, found.to.units() - found.from.units(), "{found:?}");
        let order: Vec<Cause> = found.causes.iter().map(|(cause, _)| *cause).collect();
        assert!(order.is_sorted());
    }
}
