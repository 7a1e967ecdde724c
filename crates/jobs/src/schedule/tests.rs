use proptest::prelude::*;

use super::*;

const START: i64 = 1_795_421_730_000_000;

type Cadence = Trigger;

/// The engine's six jobs, as their scheduler knew them before it knew none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Full,
    Expire,
    Incremental,
    Proof,
    Schema,
    AuditArchive,
}

impl Job {
    const ALL: [Job; 6] = [
        Job::Full,
        Job::Expire,
        Job::Incremental,
        Job::Proof,
        Job::Schema,
        Job::AuditArchive,
    ];

    fn lane(self) -> &'static str {
        match self {
            Job::Full | Job::Expire | Job::Incremental => "cluster",
            Job::Proof => "scratch",
            Job::Schema => "git",
            Job::AuditArchive => "archive",
        }
    }

    fn shares_a_lane(self, other: Job) -> bool {
        self.lane() == other.lane()
    }

    fn planned(self, past: Past) -> ScheduledJob {
        let places = |jobs: &[Job]| jobs.iter().map(|job| *job as usize).collect();
        ScheduledJob {
            trigger: cadence(self),
            after: match self {
                Job::Expire => places(&[Job::Full]),
                Job::Proof => places(&[Job::Full, Job::Incremental]),
                _ => Vec::new(),
            },
            covered_by: match self {
                Job::Incremental => places(&[Job::Full]),
                _ => Vec::new(),
            },
            locks: vec![self.lane().to_owned()],
            priority: 6 - self as u8,
            past,
        }
    }
}

/// The engine's side of it: two clocks, and jobs that take their time.
struct World {
    scheduler: Scheduler,
    wall: i64,
    steady: Duration,
    running: Vec<(Job, Duration)>,
    starts: Vec<(Job, i64, Duration)>,
    takes: Duration,
    fails: bool,
}

fn cadence(job: Job) -> Cadence {
    match job {
        Job::Full => Cadence::daily(90),
        Job::Expire => "after full".parse().unwrap(),
        Job::Incremental => Cadence::Hourly { minute: 15 },
        Job::Proof => "after every backup".parse().unwrap(),
        Job::Schema => Cadence::EveryMinutes { minutes: 15 },
        Job::AuditArchive => Cadence::daily(150),
    }
}

impl World {
    fn new(past: Past) -> Self {
        Self {
            scheduler: Scheduler::new(
                Now {
                    wall_micros: START,
                    steady: Duration::from_secs(7),
                },
                Job::ALL.map(|job| job.planned(past)).to_vec(),
            ),
            wall: START,
            steady: Duration::from_secs(7),
            running: Vec::new(),
            starts: Vec::new(),
            takes: Duration::from_secs(40),
            fails: false,
        }
    }

    /// Both clocks at the start; the last backups were taken just now.
    fn running() -> Self {
        Self::new(Past {
            last_start_micros: Some(START),
            ..Past::default()
        })
    }

    fn now(&self) -> Now {
        Now {
            wall_micros: self.wall,
            steady: self.steady,
        }
    }

    fn look(&mut self) {
        let ended: Vec<Job> = self
            .running
            .iter()
            .filter(|(_, at)| *at <= self.steady)
            .map(|(job, _)| *job)
            .collect();
        self.running.retain(|(_, at)| *at > self.steady);
        for job in ended {
            self.scheduler.ended(job as usize, self.now(), !self.fails);
        }
        while let Some(due) = self.scheduler.due(self.now(), |_| true) {
            let job = Job::ALL[due.job];
            for (other, _) in &self.running {
                assert!(!job.shares_a_lane(*other), "{job:?} while {other:?} runs");
            }
            self.scheduler.started(&due, self.now());
            self.starts.push((job, self.wall, self.steady));
            self.running.push((job, self.steady + self.takes));
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds.div_ceil(20) {
            self.wall += 20_000_000;
            self.steady += Duration::from_secs(20);
            self.look();
        }
    }

    fn count(&self, job: Job) -> usize {
        self.starts
            .iter()
            .filter(|(started, ..)| *started == job)
            .count()
    }
}

#[test]
fn a_day_has_one_full_an_incremental_for_every_other_hour_and_a_proof_for_each() {
    let mut world = World::running();
    world.pass(3 * 86_400 + 600);
    assert_eq!(world.count(Job::Full), 3);
    // The full one of 01:30 does not stand for the appointment of 01:15.
    assert_eq!(world.count(Job::Incremental), 72);
    assert_eq!(world.count(Job::Proof), 75);
    assert_eq!(world.count(Job::Expire), 3);
    let full = world
        .starts
        .iter()
        .find(|(job, ..)| *job == Job::Full)
        .unwrap();
    assert!(
        (0..20_000_000).contains(&((full.1 - 90 * MINUTE).rem_euclid(DAY))),
        "{full:?}"
    );
}

#[test]
fn what_was_missed_is_caught_up_once() {
    let ten_days_ago = Past {
        last_start_micros: Some(START - 10 * DAY),
        pending: true,
        ..Past::default()
    };
    let mut world = World::new(ten_days_ago);
    world.pass(600);
    assert_eq!(world.count(Job::Full), 1, "{:?}", world.starts);
    assert_eq!(
        world.count(Job::Incremental),
        0,
        "the full one covers it: {:?}",
        world.starts
    );
    assert!(world.count(Job::Proof) <= 2, "{:?}", world.starts);
}

#[test]
fn a_clock_that_jumps_makes_no_storm_and_no_silence() {
    for jump in [
        -400 * DAY,
        -DAY,
        -HOUR,
        -1_500_000,
        1_500_000,
        HOUR,
        DAY,
        3 * DAY,
        400 * DAY,
    ] {
        let mut world = World::running();
        world.pass(86_400);
        let before = world.count(Job::Full);
        world.wall += jump;
        world.look();
        world.pass(600);
        assert!(
            world.count(Job::Full) <= before + 1,
            "{jump}: {:?}",
            world.starts
        );
        world.pass(2 * 86_400);
        let later = world.count(Job::Full) - before;
        assert!(
            (1..=3).contains(&later),
            "{jump}: {later} full ones in two days"
        );
    }
}

#[test]
fn a_failing_job_is_tried_again_with_growing_pauses() {
    let mut world = World::running();
    world.fails = true;
    world.pass(86_400);
    let full = world.count(Job::Full);
    assert!((10..=60).contains(&full), "{full} attempts in a day");
    assert_eq!(
        world.count(Job::Proof) + world.count(Job::Expire),
        0,
        "nothing to follow"
    );
    world.fails = false;
    world.pass(7200);
    assert!(world.count(Job::Proof) > 0);
}

#[test]
fn what_somebody_did_by_hand_is_not_done_again() {
    let mut world = World::running();
    world.pass(86_400 - 600);
    let before = world.count(Job::Full);
    // The next appointment has not come when an operator takes one; then it comes, and is kept all the same.
    let ahead = world.wall + 600_000_000;
    world.pass(1200);
    world.scheduler.seen(Job::Full as usize, ahead);
    world.scheduler.seen(Job::Incremental as usize, ahead);
    world.pass(86_400);
    assert_eq!(world.count(Job::Full), before + 1);
}

#[test]
fn schedules_are_written_and_read() {
    for text in [
        "off",
        "daily 01:30",
        "hourly :15",
        "every 15 minutes",
        "after every backup",
        "after full",
    ] {
        assert_eq!(text.parse::<Cadence>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "sometimes",
        "daily 24:00",
        "daily 1",
        "hourly 15",
        "hourly :60",
        "every 0 minutes",
        "every 61 minutes",
        "daily +1:00",
        "after",
    ] {
        let error = text.parse::<Cadence>().unwrap_err().to_string();
        assert!(error.contains("daily HH:MM"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However the wall clock jumps, a job that succeeds starts no more often than every half period, and (after the
    /// jumps are over) at least once a period.
    #[test]
    fn no_storm_whatever_the_clock_does(
        steps in prop::collection::vec(
            (1_u64..14_400, prop_oneof![3 => Just(0_i64), 1 => -40 * DAY..40 * DAY, 1 => -2 * HOUR..2 * HOUR]),
            1..60,
        ),
        takes in 1_u64..5400,
    ) {
        let mut world = World::running();
        world.takes = Duration::from_secs(takes);
        for (seconds, jump) in steps {
            world.wall += jump;
            world.look();
            world.pass(seconds);
        }
        for (job, half) in [(Job::Full, 43_200), (Job::Incremental, 1800)] {
            let of_job = world.starts.iter().filter(|(started, ..)| *started == job);
            let starts: Vec<Duration> = of_job.map(|(.., at)| *at).collect();
            for pair in starts.windows(2) {
                prop_assert!(pair[1] - pair[0] >= Duration::from_secs(half), "{job:?} {pair:?}");
            }
        }
        let backups = world.count(Job::Full) + world.count(Job::Incremental);
        prop_assert!(world.count(Job::Proof) <= backups, "{:?}", world.starts);
        let before = (world.count(Job::Full), world.count(Job::Incremental));
        world.pass(2 * 86_400);
        prop_assert!(world.count(Job::Full) > before.0);
        prop_assert!(world.count(Job::Incremental) + world.count(Job::Full) > before.0 + before.1 + 12);
    }
}
