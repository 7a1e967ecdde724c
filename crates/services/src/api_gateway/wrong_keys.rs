//! Wrong keys and secrets, counted by who sent them. After a burst the answers to one source come late; a right key is never looked for
//! here, so it is never late. What is remembered is bounded, however many sources there are.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};

use crate::config::TrustedProxies;

/// Half of them in each generation.
pub(crate) const SOURCES_MAX: usize = 100_000;
/// So many are answered at once, and one more each second.
const BURST: i64 = 20;
const EACH_MICROS: i64 = 1_000_000;
/// Each one beyond them waits so much longer than the one before, up to the longest.
const STEP: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
/// A source that stops is forgiven after so long.
const FORGIVEN_MICROS: i64 = 60 * EACH_MICROS;
/// One line of the log in so long, however many come.
const TOLD_EVERY_MICROS: i64 = 10 * EACH_MICROS;
/// Health speaks of it until so long after the last one that was slowed.
const ALARM_MICROS: i64 = 300 * EACH_MICROS;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who sends; an IPv6 site has a /64 to choose addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Source {
    V4(Ipv4Addr),
    /// The upper half.
    V6(u64),
    /// Not over TCP.
    Here,
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Source::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::V4(address) => address.fmt(f),
            Source::V6(upper) => write!(f, "{}/64", Ipv6Addr::from(u128::from(*upper) << 64)),
            Source::Here => f.write_str("this machine"),
        }
    }
}

impl TrustedProxies {
    /// Who sent a request: the peer, or whom a proxy that is trusted names last. What others claim in that header is not believed.
    pub(crate) fn source(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Source {
        let Some(peer) = peer else {
            return Source::Here;
        };
        if !self.has(peer) {
            return peer.into();
        }
        let values: Vec<&str> = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let hops = values.iter().rev().flat_map(|value| value.rsplit(','));
        for hop in hops {
            match address_of(hop.trim()) {
                // One proxy of ours behind the other.
                Some(address) if self.has(address) => {}
                Some(address) => return address.into(),
                None => break,
            }
        }
        peer.into()
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]:4711`.
fn address_of(hop: &str) -> Option<IpAddr> {
    let socket = || hop.parse::<std::net::SocketAddr>().ok().map(|it| it.ip());
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(socket)
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    /// When all that it sent would have been answered at the allowed pace.
    due_micros: i64,
    count: u64,
}

#[derive(Debug, Default)]
struct State {
    current: HashMap<Source, Tally>,
    previous: HashMap<Source, Tally>,
    /// Since the last line of the log.
    untold: u64,
    told_at_micros: Option<i64>,
    slowed: Option<SlowedSource>,
}

/// The newest source that was slowed.
#[derive(Debug, Clone, Copy)]
struct SlowedSource {
    source: Source,
    count: u64,
    at_micros: i64,
}

/// What is known of those who guess.
#[derive(Debug, Default)]
pub(crate) struct WrongKeys {
    trusted: TrustedProxies,
    state: Mutex<State>,
}

impl WrongKeys {
    pub(crate) fn new(trusted: TrustedProxies) -> WrongKeys {
        WrongKeys {
            trusted,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of one, and answers how long its answer is to wait.
    pub(crate) fn note(
        &self,
        door: &'static str,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
        now: i64,
    ) -> Duration {
        ::metrics::counter!("bre_wrong_keys_total", "door" => door).increment(1);
        let source = self.trusted.source(peer, headers);
        let (delay, told) = self.state().note(source, now);
        if let Some((untold, count)) = told {
            tracing::warn!(
                %source, door, from_this_source = count, since_the_last_line = untold, slowed = !delay.is_zero(),
                "wrong API keys or secrets"
            );
        }
        delay
    }

    /// For health, as long as somebody guesses.
    pub(crate) fn alarm(&self, now: i64) -> Option<String> {
        let slowed = self.state().slowed?;
        (slowed.at_micros > now - ALARM_MICROS).then(|| {
            format!(
                "{} wrong keys came from {}; answers to it are slowed. Somebody guesses, or a client holds an old key",
                slowed.count, slowed.source
            )
        })
    }
}

impl State {
    /// The delay; and, when a line of the log is due, how many came since the last one, and from this source.
    fn note(&mut self, source: Source, now: i64) -> (Duration, Option<(u64, u64)>) {
        if self.current.len() >= SOURCES_MAX / 2 && !self.current.contains_key(&source) {
            self.previous = std::mem::take(&mut self.current);
        }
        let known = self.previous.remove(&source);
        let tally = self.current.entry(source).or_insert(known.unwrap_or(Tally {
            due_micros: now,
            count: 0,
        }));
        if tally.due_micros <= now - FORGIVEN_MICROS {
            tally.count = 0;
        }
        tally.count += 1;
        let longest = now + BURST * EACH_MICROS + FORGIVEN_MICROS;
        tally.due_micros = (tally.due_micros.max(now) + EACH_MICROS).min(longest);
        let over = (tally.due_micros - now) / EACH_MICROS - BURST;
        let delay = STEP.saturating_mul(u32::try_from(over.max(0)).unwrap_or(u32::MAX));
        let (delay, count) = (delay.min(LONGEST), tally.count);
        if !delay.is_zero() {
            self.slowed = Some(SlowedSource {
                source,
                count,
                at_micros: now,
            });
        }
        self.untold += 1;
        let is_due = |told: i64| now.saturating_sub(told) >= TOLD_EVERY_MICROS || now < told;
        let told = self.told_at_micros.is_none_or(is_due).then(|| {
            self.told_at_micros = Some(now);
            (std::mem::take(&mut self.untold), count)
        });
        (delay, told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> Source {
        Source::V4(Ipv4Addr::from(number))
    }

    #[test]
    fn a_burst_is_answered_at_once_and_what_comes_after_it_ever_later() {
        let mut state = State::default();
        let delays: Vec<Duration> = (0..60).map(|_| state.note(source(1), 0).0).collect();
        assert!(delays[..20].iter().all(Duration::is_zero));
        assert_eq!(delays[20..22], [STEP, 2 * STEP]);
        assert_eq!(delays[59], LONGEST);
        // Another source is not punished for it, and this one is forgiven.
        assert!(state.note(source(2), 0).0.is_zero());
        assert!(!state.note(source(1), 20 * EACH_MICROS).0.is_zero());
        assert!(state.note(source(1), 200 * EACH_MICROS).0.is_zero());
        // A few a minute are no guessing.
        let mut state = State::default();
        assert!((0..1000).all(|n| state.note(source(1), n * 2 * EACH_MICROS).0.is_zero()));
    }

    #[test]
    fn twenty_thousand_are_a_few_lines_and_a_hundred_thousand_sources_are_all_that_is_kept() {
        let mut state = State::default();
        let lines: Vec<_> = (0..20_000)
            .filter_map(|n| state.note(source(1), n * 1000).1)
            .collect();
        assert_eq!(lines[0], (1, 1));
        assert_eq!(lines.len(), 2, "one in ten seconds: {lines:?}");
        for number in 0..300_000 {
            state.note(source(number), 0);
        }
        let kept = state.current.len() + state.previous.len();
        assert!(kept <= SOURCES_MAX, "{kept}");
        // Who came lately is still known.
        let count = |state: &State, number| {
            let all = [&state.current, &state.previous];
            all.iter()
                .find_map(|it| it.get(&source(number)))
                .map(|it| it.count)
        };
        state.note(source(299_999), 0);
        assert_eq!(count(&state, 299_999), Some(2));
    }

    #[test]
    fn health_tells_of_it_while_it_goes_on() {
        let wrong = WrongKeys::default();
        let peer = Some(IpAddr::from([192, 0, 2, 1]));
        let note = |now| wrong.note("test", peer, &HeaderMap::new(), now);
        assert!(note(0).is_zero() && wrong.alarm(0).is_none());
        for _ in 0..30 {
            note(0);
        }
        let alarm = wrong.alarm(1).unwrap();
        assert!(
            alarm.contains("31 wrong keys came from 192.0.2.1"),
            "{alarm}"
        );
        assert!(wrong.alarm(ALARM_MICROS).is_none());
    }

    #[test]
    fn a_source_is_the_peer_or_whom_a_trusted_proxy_names_last() {
        let trusted: TrustedProxies = ["10.0.0.0/8", "2001:db8:ff::1"]
            .map(str::to_owned)
            .to_vec()
            .try_into()
            .unwrap();
        let check = |peer: &str, forwarded: &[&'static str], expected: &str| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let found = trusted.source(Some(peer.parse().unwrap()), &headers);
            assert_eq!(found.to_string(), expected, "{peer} {forwarded:?}");
        };
        check("192.0.2.1", &[], "192.0.2.1");
        // Anybody can write that header.
        check("192.0.2.1", &["198.51.100.7"], "192.0.2.1");
        check("10.1.2.3", &["198.51.100.7"], "198.51.100.7");
        check("10.1.2.3", &["1.1.1.1, 198.51.100.7"], "198.51.100.7");
        check(
            "10.1.2.3",
            &["1.1.1.1", "198.51.100.7:4711"],
            "198.51.100.7",
        );
        check("10.1.2.3", &["198.51.100.7, 10.9.9.9"], "198.51.100.7");
        check("10.1.2.3", &["198.51.100.7, junk"], "10.1.2.3");
        check("10.1.2.3", &[], "10.1.2.3");
        check("::ffff:10.1.2.3", &["198.51.100.7"], "198.51.100.7");
        check(
            "2001:db8:ff::1",
            &["[2001:db8:1:2:3::4]:99"],
            "2001:db8:1:2::/64",
        );
        check("2001:db8:1:2:ffff::9", &[], "2001:db8:1:2::/64");
        assert_eq!(trusted.source(None, &HeaderMap::new()), Source::Here);
    }

    #[test]
    fn a_proxy_is_named_by_its_address_or_its_network() {
        let named = |text: &str| TrustedProxies::try_from(vec![text.to_owned()]);
        for good in [
            "10.0.0.1",
            "10.0.0.0/8",
            "::1",
            "2001:db8::/32",
            "0.0.0.0/0",
        ] {
            named(good).unwrap();
        }
        for bad in [
            "",
            "proxy",
            "10.0.0.0/33",
            "::1/129",
            "10.0.0.0/x",
            "10.0.0.0/8/8",
        ] {
            let error = named(bad).unwrap_err();
            assert!(error.contains("10.0.0.0/8"), "{bad}: {error}");
        }
    }
}
