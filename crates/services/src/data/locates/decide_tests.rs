//! The state machine against random lives, and what only time can show.

use std::collections::BTreeMap;
use std::sync::Arc;

use pricing::{Convention, Fee, PerShare, Policy, QuoteInputs, SourcedValue};
use proptest::prelude::*;

use super::*;
use crate::data::locates::request::{Idempotency, StoredLocate, UseRoom};
use crate::data::quotes::QuoteFacts;
use crate::data::writer::LogPosition;
use crate::domain::time::rfc3339;
use crate::market::Calendar;

/// 2026-11-23T15:00:00Z, a Monday: the close is ten hours away.
const MONDAY: i64 = 1_795_446_000_000_000;
const HOUR: i64 = 3_600_000_000;

fn quote(id: Uuid, shares: u64, now: i64) -> QuoteEntry {
    let none = |text: &str| SourcedValue::new(text.parse().unwrap(), "test", None);
    let inputs = QuoteInputs {
        ticker: "GME".into(),
        currency: "USD".into(),
        priced_at_micros: now,
        position_value: PositionValue::whole(10 * i64::try_from(shares).unwrap()),
        loan_days: 3,
        per_share: Some(PerShare {
            shares,
            price: pricing::Price::whole(10),
        }),
        base_rate: none("0.05"),
        minimum_rate: none("0"),
        volatility_index: SourcedValue::new(pricing::Index::whole(20), "test", None),
        event_risk_factor: SourcedValue::new(0, "test", None),
        markup_percent: SourcedValue::new("5".parse().unwrap(), "broker", None),
        fee: SourcedValue::new(Fee::Flat("25".parse().unwrap()), "broker", None),
        feed_status: None,
        policy: Arc::new(Policy::standard_1()),
        convention: Arc::new(Convention::act365_1()),
    };
    let priced = pricing::quote(&inputs).unwrap();
    let facts = QuoteFacts {
        quote_id: id.to_string(),
        request_id: "r".to_owned(),
        client_id: "standard".to_owned(),
        key_id: "k".to_owned(),
        expires_at: rfc3339(now + HOUR),
        engine_version: "1".to_owned(),
        requested_ticker: None,
        known_at: None,
    };
    QuoteEntry::new(facts, inputs, &priced)
}

fn figure(available: i64) -> Figure {
    Figure {
        source: "test".to_owned(),
        available,
        or_more: false,
        valid_at: At(MONDAY),
        known_at: At(MONDAY),
    }
}

fn request(command: LocateCommand) -> LocateRequest {
    LocateRequest {
        client_id: Some("standard".to_owned()),
        actor: "k".to_owned(),
        request_id: "r".to_owned(),
        idempotency: None,
        command,
    }
}

struct Life {
    state: LocateState,
    ids: Vec<Uuid>,
    step: u128,
}

impl Life {
    fn new(available: i64) -> Life {
        let mut state = LocateState::new(&Calendar::shipped());
        (state.lot, state.now_micros) = (100, MONDAY);
        state.set_figure("GME", Ok(figure(available)));
        Life {
            state,
            ids: Vec::new(),
            step: 0,
        }
    }

    fn take(&mut self, request: &LocateRequest) -> LocateDecision {
        let decision = decide(&self.state, request);
        if let LocateDecision::Step(locate) | LocateDecision::Ended(locate, _) = &decision {
            let locate = (**locate).clone();
            assert_eq!(Locate::read(&locate.fields().unwrap()).unwrap(), locate);
            self.state.note(&StoredLocate {
                recorded: LogPosition {
                    log: 0,
                    epoch: 1,
                    position: 1,
                },
                recorded_at_micros: self.state.now_micros,
                locate,
            });
        }
        decision
    }

    fn offer(&mut self, shares: u64, kind: LocateKind, all_or_none: bool) -> Uuid {
        self.step += 1;
        let id = Uuid::from_u128(self.step);
        self.state
            .set_quote(id, quote(id, shares, self.state.now_micros));
        self.ids.push(id);
        let offer = LocateCommand::Offer {
            locate_id: id,
            quote_id: id,
            shares: None,
            kind,
            all_or_none,
            limit_rate: None,
        };
        self.take(&request(offer));
        id
    }

    fn now(&self, id: Uuid) -> (Status, i64, Option<Reason>) {
        let locate = self.state.locate(id).unwrap();
        (locate.status, locate.held(), locate.reason)
    }

    /// What is outstanding is what is held, day by day.
    fn balance(&self) {
        let mut held = BTreeMap::new();
        for id in &self.ids {
            if let Some(locate) = self.state.locate(*id) {
                *held.entry(locate.trade_date).or_insert(0) += locate.held();
            }
        }
        for (date, held) in held {
            assert_eq!(self.state.outstanding("GME", date), held, "{date}");
        }
    }
}

#[test]
fn the_evening_credits_what_was_not_returned_and_the_loans_end_what_was_borrowed_ahead() {
    let mut life = Life::new(1000);
    let single = life.offer(300, LocateKind::SingleUse, false);
    let ahead = life.offer(200, LocateKind::PreBorrow, false);
    for locate_id in [single, ahead] {
        life.take(&request(LocateCommand::Accept { locate_id }));
    }
    assert_eq!((life.now(single).1, life.now(ahead).1), (300, 200));
    // A minute before eight in New York nothing is due.
    life.state.now_micros = MONDAY + 10 * HOUR - 60_000_000;
    let due = life.take(&request(LocateCommand::Expire { locate_id: single }));
    assert_eq!(
        due,
        LocateDecision::Refused(Refusal::NotOpen(Status::Filled))
    );
    life.state.now_micros = MONDAY + 10 * HOUR;
    let late = life.take(&request(LocateCommand::Return {
        locate_id: single,
        shares: Some(100),
    }));
    assert!(
        matches!(late, LocateDecision::Ended(_, Refusal::Expired)),
        "{late:?}"
    );
    assert_eq!(
        life.now(single),
        (Status::Expired, 0, Some(Reason::TradeDateEnded))
    );
    life.take(&request(LocateCommand::Expire { locate_id: ahead }));
    assert_eq!(life.now(ahead).0, Status::Filled);
    life.balance();
    // Three days later is Thanksgiving: nothing settles, and the day behind it ends at 17:00.
    life.state.now_micros = MONDAY + 103 * HOUR - 1;
    life.take(&request(LocateCommand::Expire { locate_id: ahead }));
    assert_eq!(life.now(ahead).0, Status::Filled);
    life.state.now_micros = MONDAY + 103 * HOUR;
    life.take(&request(LocateCommand::Expire { locate_id: ahead }));
    assert_eq!(
        life.now(ahead),
        (Status::Expired, 0, Some(Reason::LoanEnded))
    );
    life.balance();
}

/// The client's first locate of that kind with 300 shares, and what an order does with it: what is available, reserved and used after.
struct OrderLife {
    life: Life,
    id: Uuid,
}

impl OrderLife {
    fn new(kind: LocateKind) -> OrderLife {
        let mut life = Life::new(1000);
        let id = life.offer(300, kind, true);
        life.take(&request(LocateCommand::Accept { locate_id: id }));
        OrderLife { life, id }
    }

    fn decide(
        &mut self,
        order_id: &str,
        side: Side,
        state: UseState,
        shares: i64,
    ) -> LocateDecision {
        let wanted = OrderUse {
            order_id: order_id.to_owned(),
            side,
            state,
            shares,
        };
        self.life.take(&request(LocateCommand::Use {
            locate_id: self.id,
            order: wanted,
        }))
    }

    #[track_caller]
    fn check(
        &mut self,
        order_id: &str,
        side: Side,
        state: UseState,
        shares: i64,
        expected: (i64, i64, i64),
    ) {
        let decision = self.decide(order_id, side, state, shares);
        assert!(matches!(decision, LocateDecision::Step(_)), "{decision:?}");
        let room = self.life.state.locate(self.id).unwrap().room();
        assert_eq!(
            (room.available, room.reserved, room.used),
            expected,
            "{order_id}"
        );
        self.life.balance();
    }

    #[track_caller]
    fn refuse(
        &mut self,
        order_id: &str,
        side: Side,
        state: UseState,
        shares: i64,
        expected: Refusal,
    ) {
        let decision = self.decide(order_id, side, state, shares);
        assert_eq!(decision, LocateDecision::Refused(expected), "{order_id}");
    }
}

#[test]
fn a_single_use_share_is_sold_once_and_a_reusable_one_again_after_a_cover() {
    use {Side::*, UseState::*};
    for (kind, after_cover) in [
        (LocateKind::SingleUse, (0, 0, 300)),
        (LocateKind::Reusable, (200, 0, 100)),
        (LocateKind::PreBorrow, (200, 0, 100)),
    ] {
        let mut traded = OrderLife::new(kind);
        traded.check("a", SellShort, Used, 300, (0, 0, 300));
        traded.check("b", BuyToCover, Used, 200, after_cover);
        let (available, reserved, used) = after_cover;
        if available == 0 {
            let room = UseRoom {
                available,
                reserved,
                used,
            };
            traded.refuse("c", SellShort, Used, 1, Refusal::UseTooLarge(room));
        } else {
            traded.check("c", SellShort, Used, 150, (50, 0, 250));
            let room = UseRoom {
                available: 50,
                reserved: 0,
                used: 250,
            };
            traded.refuse("d", BuyToCover, Used, 251, Refusal::UseTooLarge(room));
        }
    }
}

#[test]
fn an_order_reserves_once_ends_once_and_its_id_means_one_thing() {
    use {Side::*, UseState::*};
    let mut traded = OrderLife::new(LocateKind::SingleUse);
    traded.check("a", SellShort, Reserved, 200, (100, 200, 0));
    let full = UseRoom {
        available: 100,
        reserved: 200,
        used: 0,
    };
    traded.refuse("b", SellShort, Used, 101, Refusal::UseTooLarge(full));
    traded.refuse("b", SellShort, Released, 100, Refusal::NotReserved);
    traded.refuse("a", SellShort, Reserved, 100, Refusal::OrderReused);
    traded.refuse("a", SellShort, Released, 100, Refusal::OrderReused);
    // A part was executed: the rest of the reservation is free again.
    traded.check("a", SellShort, Used, 150, (150, 0, 150));
    for state in [Reserved, Used] {
        let shares = if state == Used { 150 } else { 200 };
        let again = traded.decide("a", SellShort, state, shares);
        assert!(matches!(again, LocateDecision::Already(_)), "{again:?}");
    }
    traded.refuse("a", SellShort, Released, 200, Refusal::OrderReused);
    traded.refuse("a", SellShort, Used, 151, Refusal::OrderReused);
    traded.refuse("a", BuyToCover, Used, 150, Refusal::OrderReused);
    traded.check("c", SellShort, Reserved, 150, (0, 150, 150));
    traded.check("c", SellShort, Released, 150, (150, 0, 150));
    // What is sold or at the market cannot be given back, and what is given back cannot be sold.
    traded.check("d", SellShort, Reserved, 50, (100, 50, 150));
    let give_back = |shares| {
        request(LocateCommand::Return {
            locate_id: Uuid::from_u128(1),
            shares,
        })
    };
    let too_many = Refusal::TooMany {
        held: 300,
        available: 100,
    };
    assert_eq!(
        traded.life.take(&give_back(Some(200))),
        LocateDecision::Refused(too_many)
    );
    assert!(matches!(
        traded.life.take(&give_back(None)),
        LocateDecision::Step(_)
    ));
    let none = UseRoom {
        available: 0,
        reserved: 50,
        used: 150,
    };
    traded.refuse("e", SellShort, Used, 1, Refusal::UseTooLarge(none));
    // The order at the market is executed all the same; in the evening nothing more is sold, and what was done is still told.
    traded.check("d", SellShort, Used, 50, (0, 0, 200));
    traded.life.state.now_micros = MONDAY + 10 * HOUR;
    let late = traded.decide("f", SellShort, Used, 1);
    assert!(
        matches!(late, LocateDecision::Ended(_, Refusal::Expired)),
        "{late:?}"
    );
    let again = traded.decide("d", SellShort, Used, 50);
    assert!(matches!(again, LocateDecision::Already(_)), "{again:?}");
}

#[test]
fn a_part_is_priced_for_itself() {
    let mut life = Life::new(300);
    let id = life.offer(1000, LocateKind::SingleUse, false);
    let whole = life.state.locate(id).unwrap().fee.clone();
    life.take(&request(LocateCommand::Accept { locate_id: id }));
    let part = &life.state.locate(id).unwrap().fee;
    let alone = quote(id, 300, MONDAY).outputs;
    assert_eq!((part.shares, part.total_fee), (300, alone.total_fee));
    assert!(part.total_fee < whole.total_fee);
}

#[test]
fn nothing_is_granted_by_a_rate_that_its_source_contradicts() {
    let unconfirmed = (Status::Rejected, 0, Some(Reason::RateUnconfirmed));
    // Offered before, and contradicted when it is accepted.
    let mut life = Life::new(1000);
    let id = life.offer(300, LocateKind::SingleUse, false);
    life.state.set_unconfirmed("GME", "another");
    life.state.set_unconfirmed("AMC", "test");
    assert_eq!(life.now(id).0, Status::Offered);
    life.state.set_unconfirmed("GME", "test");
    life.take(&request(LocateCommand::Accept { locate_id: id }));
    assert_eq!(life.now(id), unconfirmed);
    let id = life.offer(300, LocateKind::SingleUse, false);
    assert_eq!(life.now(id), unconfirmed);
    // Priced when it was contradicted already, whatever became of it since.
    let mut life = Life::new(1000);
    let id = Uuid::from_u128(7);
    let mut quote = quote(id, 300, MONDAY);
    quote.inputs.base_rate.unconfirmed = Some(Box::new(pricing::UnconfirmedValue {
        value: Some("0.5".parse().unwrap()),
        at_micros: MONDAY,
        reason: "rate_jumped".into(),
    }));
    life.state.set_quote(id, quote);
    let offer = LocateCommand::Offer {
        locate_id: id,
        quote_id: id,
        shares: None,
        kind: LocateKind::SingleUse,
        all_or_none: false,
        limit_rate: None,
    };
    life.take(&request(offer));
    assert_eq!(life.now(id), unconfirmed);
}

#[test]
fn a_key_that_is_sent_again_is_answered_again_and_another_request_is_refused() {
    let mut life = Life::new(1000);
    let id = life.offer(300, LocateKind::SingleUse, true);
    let sent = |digest: &str| LocateRequest {
        idempotency: Some(Idempotency {
            key: "a".to_owned(),
            digest: digest.to_owned(),
        }),
        ..request(LocateCommand::Accept { locate_id: id })
    };
    assert!(matches!(life.take(&sent("1")), LocateDecision::Step(_)));
    assert!(matches!(life.take(&sent("1")), LocateDecision::Already(_)));
    assert_eq!(
        life.take(&sent("2")),
        LocateDecision::Refused(Refusal::KeyReused)
    );
    life.balance();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_happens_nothing_is_granted_beyond_the_figure(
        acts in proptest::collection::vec((0..10_u8, 0..64_usize, 1..40_i64), 1..120)
    ) {
        let mut life = Life::new(5_000);
        for (act, which, amount) in acts {
            let locate_id = life.ids.get(which % life.ids.len().max(1)).copied().unwrap_or_default();
            let (shares, kind) = (amount.unsigned_abs() * 100, LocateKind::ALL[which % 3]);
            let decision = match act {
                0 => { life.offer(shares, kind, which % 2 == 0); None }
                1 | 2 => Some(life.take(&request(LocateCommand::Accept { locate_id }))),
                3 => Some(life.take(&request(LocateCommand::Return { locate_id, shares: Some(amount * 50) }))),
                4 => Some(life.take(&request(LocateCommand::Expire { locate_id }))),
                5 => { life.state.set_figure("GME", Ok(figure(amount * 200))); None }
                7..=9 => {
                    let side = if act == 9 { Side::BuyToCover } else { Side::SellShort };
                    let state = [UseState::Used, UseState::Reserved, UseState::Released][which % 3];
                    // Few ids, so that orders come again.
                    let wanted = OrderUse { order_id: (amount % 9).to_string(), side, state, shares: amount * 37 };
                    let before = life.state.locate(locate_id).cloned();
                    let decision = life.take(&request(LocateCommand::Use { locate_id, order: wanted }));
                    if let (Some(before), Some(after)) = (before, life.state.locate(locate_id)) {
                        prop_assert!(before.kind != LocateKind::SingleUse || after.used >= before.used);
                    }
                    Some(decision)
                }
                _ => { life.state.now_micros += amount * HOUR / 8; None }
            };
            if let Some(LocateDecision::Step(locate)) = decision
                && let Some(step) = &locate.step
            {
                prop_assert!(step.change < 0 || step.outstanding <= step.available);
                prop_assert!(locate.granted <= locate.shares && locate.granted % 100 == 0);
            }
            for id in &life.ids {
                if let Some(locate) = life.state.locate(*id) {
                    let (reserved, used) = (locate.reserved, locate.used);
                    prop_assert!(reserved >= 0 && used >= 0 && reserved + used <= locate.granted - locate.returned);
                }
            }
            life.balance();
        }
    }
}
