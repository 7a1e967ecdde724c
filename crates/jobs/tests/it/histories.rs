//! Seeded histories of a plan: edits, pauses, restarts, kills, clocks that jump, two drivers that lose sight of each
//! other and of the records. What must hold is checked on the records alone. CI looks at 300 of them, `make
//! slow-histories` at 10,000; `SEED=77 HISTORIES=1 make slow-histories` tells one again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jobs::{
    End, Job, JobHistory, JobSpec, Outcome, PlanState, Planner, Registry, RunRecord, RunReport,
    schedule::{Cause, Now, Trigger},
};

use crate::tasks::{Task, done, spec};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_795_421_730_000_000;
/// Of the appointments of one schedule.
const LOOKED_AT: i64 = 40;
const CLAIM_EXPIRES: i64 = MINUTE;

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn span(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.below((to - from).unsigned_abs())).unwrap()
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

const FOLLOWER: usize = 2;
/// Of which the schedule may be edited.
const SCHEDULED: [usize; 2] = [0, 1];
const SCHEDULES: [&str; 8] = [
    "every 1 minutes",
    "every 15 minutes",
    "hourly :15",
    "daily 01:30",
    "daily 18:00",
    "weekly sunday 03:00",
    "daily 02:30 Europe/Berlin",
    "monthly 31 04:00",
];

/// A process that drives.
struct Process {
    planner: Planner,
    booted: i64,
    id: String,
    /// What it runs: place, record, when it ends, whether well.
    running: Vec<(usize, RunRecord, i64, bool)>,
    learnt: usize,
}

struct Host {
    process: Option<Process>,
    wall_offset: i64,
    state: PlanState,
    /// Its folder of records: what it wrote, and what it took from the archive.
    local: Vec<RunRecord>,
    unsent: Vec<RunRecord>,
    /// So many of the archive were looked at.
    met: usize,
    /// Records of runs that were open when the process ended.
    open: Vec<RunRecord>,
    sees_archive: bool,
    sees_database: bool,
}

struct World {
    dice: Dice,
    now: i64,
    hosts: Vec<Host>,
    archive: Vec<RunRecord>,
    /// Two claims: who holds it, and until when.
    claims: [Option<(usize, i64)>; 2],
    schedules: Vec<String>,
    jumps: bool,
    started: u64,
    /// By run id: when its record came into the archive.
    arrived: BTreeMap<String, i64>,
    began: BTreeMap<String, i64>,
    /// By job: the moments from which on only later appointments may start anything.
    fences: Vec<Vec<(Option<usize>, i64)>>,
    /// By job: from when on which schedule counts.
    in_force: Vec<Vec<(i64, String)>>,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let host = || Host {
            process: None,
            wall_offset: 0,
            state: PlanState::default(),
            local: Vec::new(),
            unsent: Vec::new(),
            met: 0,
            open: Vec::new(),
            sees_archive: true,
            sees_database: true,
        };
        let mut dice = Dice(seed);
        let mut schedules = Vec::new();
        for _ in SCHEDULED {
            schedules.push(SCHEDULES[usize::try_from(dice.below(8)).unwrap()].to_owned());
        }
        schedules.push("after a.first".to_owned());
        Self {
            jumps: dice.one_in(3),
            hosts: vec![host(), host()],
            now: START,
            archive: Vec::new(),
            claims: [None, None],
            started: 0,
            arrived: BTreeMap::new(),
            began: BTreeMap::new(),
            fences: vec![Vec::new(); 3],
            in_force: vec![Vec::new(); 3],
            log: Vec::new(),
            schedules,
            dice,
        }
    }

    fn registry(&self) -> Registry {
        let names = ["a.first", "a.second", "a.third"];
        let locks = ["one", "one", "two"];
        let jobs = (0..3).map(|job| -> Arc<dyn Job> {
            let locks = vec![locks[job].to_owned()];
            let spec = spec(names[job], &self.schedules[job]);
            Task::of(JobSpec { locks, ..spec }, done)
        });
        Registry::new(jobs.collect()).unwrap()
    }

    fn clock(&self, host: usize) -> Now {
        let booted = self.hosts[host]
            .process
            .as_ref()
            .map_or(self.now, |process| process.booted);
        Now {
            wall_micros: self.now + self.hosts[host].wall_offset,
            steady: Duration::from_micros((self.now - booted).unsigned_abs()),
        }
    }

    fn boot(&mut self, host: usize) {
        if self.hosts[host].process.is_some() {
            return;
        }
        // What began before this began earlier.
        self.now += SECOND;
        // What was open is recorded as interrupted, as Records::open does.
        for record in std::mem::take(&mut self.hosts[host].open) {
            self.write(host, record);
        }
        self.meet(host);
        let (now, registry) = (self.clock(host), self.registry());
        self.started += 1;
        let id = format!("host{host}-{}", self.started);
        for job in 0..3 {
            let in_force = self.in_force[job].last().map(|(_, text)| text);
            let known = self.hosts[host].state.jobs.get(&registry.specs()[job].name);
            let known = known.and_then(|known| known.schedule.clone());
            if in_force != Some(&self.schedules[job]) {
                self.in_force[job].push((self.now, self.schedules[job].clone()));
            }
            let name = &registry.specs()[job].name;
            let is_new = match &known {
                Some(known) => *known != self.schedules[job],
                None => !self.hosts[host]
                    .local
                    .iter()
                    .any(|record| record.job == *name),
            };
            if is_new {
                self.fences[job].push((Some(host), self.now));
            }
        }
        let own = &mut self.hosts[host];
        let known = |job: &str| {
            let mut records: Vec<&RunRecord> = own.local.iter().collect();
            records.retain(|record| record.job == job);
            records.sort_by(|a, b| a.run_id.cmp(&b.run_id));
            JobHistory::of(records.into_iter(), now.wall_micros)
        };
        let planner = Planner::new(registry, &mut own.state, known, &[], now, id.clone());
        own.process = Some(Process {
            planner,
            booted: self.now,
            id,
            running: Vec::new(),
            learnt: own.local.len(),
        });
        self.keep_passed(host);
        self.log(format!("host {host} starts"));
    }

    fn kill(&mut self, host: usize) {
        if let Some(process) = self.hosts[host].process.take() {
            let open = process.running.into_iter().map(|(_, record, ..)| record);
            self.hosts[host].open.extend(open);
            self.log(format!("host {host} is killed"));
        }
    }

    fn write(&mut self, host: usize, record: RunRecord) {
        self.hosts[host].local.push(record.clone());
        self.hosts[host].unsent.push(record);
    }

    fn keep_passed(&mut self, host: usize) {
        let now = self.clock(host);
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        for record in process.planner.passed(&[], now) {
            self.write(host, record);
        }
    }

    /// Records go to the archive and come from it.
    fn meet(&mut self, host: usize) {
        if !self.hosts[host].sees_archive {
            return;
        }
        for record in std::mem::take(&mut self.hosts[host].unsent) {
            self.arrived.insert(record.run_id.clone(), self.now);
            self.archive.push(record);
        }
        let own = &mut self.hosts[host];
        for record in &self.archive[own.met..] {
            if !record.driver.starts_with(&format!("host{host}-")) {
                own.local.push(record.clone());
            }
        }
        own.met = self.archive.len();
    }

    /// Which claims are held, and which of them without a gap; none where one is known to be elsewhere.
    fn standing(&mut self, host: usize) -> (Option<Vec<String>>, Vec<String>) {
        let sees = [
            self.hosts[host].sees_database,
            self.hosts[host].sees_archive,
        ];
        let (mut held, mut kept, mut elsewhere) = (Vec::new(), Vec::new(), false);
        for (place, name) in ["database", "repository"].into_iter().enumerate() {
            if !sees[place] {
                continue;
            }
            match self.claims[place] {
                Some((holder, until)) if holder != host && until > self.now => elsewhere = true,
                before => {
                    if before.is_some_and(|(holder, until)| holder == host && until > self.now) {
                        kept.push(name.to_owned());
                    }
                    self.claims[place] = Some((host, self.now + CLAIM_EXPIRES));
                    held.push(name.to_owned());
                }
            }
        }
        ((!elsewhere).then_some(held), kept)
    }

    fn turn(&mut self, host: usize) {
        if self.hosts[host].process.is_none() {
            return;
        }
        let (standing, kept) = self.standing(host);
        let now = self.clock(host);
        let own = &mut self.hosts[host];
        let process = own.process.as_mut().unwrap();
        process.planner.follow(&mut own.state, now);
        for (_, record, ..) in &mut process.running {
            record.claims.retain(|claim| kept.contains(claim));
        }
        let mut ended = Vec::new();
        for (place, mut record, until, well) in std::mem::take(&mut process.running) {
            if until > self.now {
                process.running.push((place, record, until, well));
                continue;
            }
            let end = match well {
                true => End::Done(RunReport::default()),
                false => End::Failed("the dice said so".to_owned()),
            };
            process.planner.end(place, &mut record, end, now);
            ended.push(record);
        }
        for record in ended {
            self.write(host, record);
        }
        // As the driver: what others did is looked at before anything is started.
        self.meet(host);
        let own = &mut self.hosts[host];
        let process = own.process.as_mut().unwrap();
        for record in &own.local[process.learnt..] {
            process.planner.learn(record, now);
        }
        process.learnt = own.local.len();
        let held = standing.clone().unwrap_or_default();
        if standing.is_some() {
            while let Some(due) = process.planner.due(now, |_| true) {
                let record = process.planner.begin(&due, &held, now);
                self.began.insert(record.run_id.clone(), self.now);
                self.log.push(format!(
                    "{} {} {:?} for {}",
                    process.id, record.job, due.cause, record.planned_at_micros
                ));
                let until = self.now + self.dice.span(SECOND, 20 * MINUTE);
                process
                    .running
                    .push((due.job, record, until, !self.dice.one_in(6)));
            }
        }
        self.keep_passed(host);
    }

    /// Looks come often, and seldom.
    fn pass(&mut self, micros: i64, looks: i64) {
        for _ in 0..looks {
            self.now += micros / looks;
            let first = usize::try_from(self.dice.below(2)).unwrap();
            self.turn(first);
            self.turn(1 - first);
        }
    }

    fn log(&mut self, line: String) {
        self.log.push(line);
    }

    fn step(&mut self) {
        let host = usize::try_from(self.dice.below(2)).unwrap();
        let job = usize::try_from(self.dice.below(3)).unwrap();
        match self.dice.below(14) {
            0 => self.kill(host),
            1 | 2 => self.boot(host),
            3 => self.hosts[host].sees_archive = !self.dice.one_in(3),
            4 => self.hosts[host].sees_database = !self.dice.one_in(3),
            5 => self.pause_or_resume(job),
            6 if job != FOLLOWER => self.edit(job),
            7 if self.jumps => {
                let jump = match self.dice.below(3) {
                    0 => self.dice.span(-40 * DAY, 40 * DAY),
                    1 => self.dice.span(-2 * HOUR, 2 * HOUR),
                    _ => -self.hosts[host].wall_offset,
                };
                self.hosts[host].wall_offset += jump;
                self.log(format!("the clock of host {host} jumps by {jump}"));
            }
            8 if self.dice.one_in(8) => self.pass(90 * DAY, 2),
            9 => {
                let far = self.dice.span(HOUR, 3 * DAY);
                self.pass(far, 3);
            }
            _ => {
                let near = self.dice.span(MINUTE, 2 * HOUR);
                self.pass(near, 4);
            }
        }
    }

    fn pause_or_resume(&mut self, job: usize) {
        // What began before this began earlier.
        self.now += SECOND;
        let name = ["a.first", "a.second", "a.third"][job];
        let (wall, paused) = (self.now, self.hosts[0].state.paused(name).is_some());
        for host in 0..2 {
            let now = wall + self.hosts[host].wall_offset;
            let state = &mut self.hosts[host].state;
            match paused {
                true => state.resume(name, now),
                false => state.pause(
                    name,
                    jobs::Pause {
                        since_micros: now,
                        by: "test".to_owned(),
                        reason: String::new(),
                    },
                ),
            }
            self.turn(host);
        }
        if paused {
            self.fences[job].push((None, self.now));
        }
        self.log(format!("{name} paused: {}", !paused));
    }

    /// Settings are read at a start.
    fn edit(&mut self, job: usize) {
        self.schedules[job] = SCHEDULES[usize::try_from(self.dice.below(8)).unwrap()].to_owned();
        self.log(format!(
            "job {job} gets the schedule {}",
            self.schedules[job]
        ));
        for host in 0..2 {
            if self.hosts[host].process.is_some() {
                self.kill(host);
                self.boot(host);
            }
        }
    }

    /// All is well again; one driver continues, long enough for everything to be caught up.
    fn heal(&mut self) {
        for host in 0..2 {
            self.hosts[host].sees_archive = true;
            self.hosts[host].sees_database = true;
            self.hosts[host].wall_offset = 0;
        }
        for job in 0..3 {
            let name = ["a.first", "a.second", "a.third"][job];
            if self.hosts[0].state.paused(name).is_some() {
                self.pause_or_resume(job);
            }
        }
        // The other one gives its records, and goes.
        self.boot(1);
        self.pass(2 * HOUR, 8);
        self.kill(1);
        self.boot(1);
        self.turn(1);
        self.kill(1);
        self.boot(0);
        self.pass(DAY, 12);
        for _ in 0..60 {
            if self.hosts[0].process.as_ref().unwrap().running.is_empty()
                && self.outstanding().is_empty()
            {
                break;
            }
            self.pass(2 * HOUR, 4);
        }
    }

    fn triggers(&self, job: usize) -> Vec<(i64, i64, Trigger)> {
        let changes = &self.in_force[job];
        let mut told = Vec::new();
        for (place, (from, text)) in changes.iter().enumerate() {
            let to = changes
                .get(place + 1)
                .map_or(self.now - HOUR, |(to, _)| *to);
            told.push((*from, to, text.parse().unwrap()));
        }
        told
    }

    /// Appointments that no record accounts for; of minutely ones not all are looked at.
    fn outstanding(&self) -> Vec<(usize, i64)> {
        let mut found = Vec::new();
        for job in SCHEDULED {
            let name = ["a.first", "a.second"][job];
            let records = self
                .all()
                .filter(|record| record.job == name && record.outcome.settles());
            let covers: Vec<(i64, i64)> = records
                .filter_map(|record| record.covers)
                .map(|it| (it.first_micros, it.last_micros))
                .collect();
            for (from, to, trigger) in self.triggers(job) {
                let mut at = from;
                for _ in 0..LOOKED_AT {
                    let Some(next) = trigger.next_appointment(at).filter(|next| *next <= to) else {
                        break;
                    };
                    if !covers
                        .iter()
                        .any(|(first, last)| (*first..=*last).contains(&next))
                    {
                        found.push((job, next));
                    }
                    // Not each of a hundred thousand.
                    at = next.max(at + (to - from) / LOOKED_AT - 1);
                }
            }
        }
        found
    }

    fn all(&self) -> impl Iterator<Item = &RunRecord> {
        self.archive
            .iter()
            .chain(self.hosts.iter().flat_map(|host| &host.unsent))
    }

    fn check(&self) -> Result<(), String> {
        let mut by_appointment: BTreeMap<(&str, i64), Vec<&RunRecord>> = BTreeMap::new();
        for record in self.all() {
            let of_appointment = matches!(record.cause, Cause::Appointment | Cause::Retry)
                && record.covers.is_some();
            if of_appointment && record.outcome == Outcome::Succeeded {
                by_appointment
                    .entry((&record.job, record.planned_at_micros))
                    .or_default()
                    .push(record);
            }
        }
        for ((job, at), mut records) in by_appointment {
            records.sort_by_key(|record| self.began[&record.run_id]);
            for pair in records.windows(2) {
                let (first, second) = (pair[0], pair[1]);
                let began = self.began[&second.run_id];
                let unseen = self
                    .arrived
                    .get(&first.run_id)
                    .is_none_or(|arrived| *arrived > began);
                let both_lost = first.claims.is_empty() || second.claims.is_empty();
                let clock = second
                    .reason
                    .as_ref()
                    .is_some_and(|reason| reason.contains("clock"));
                if !(clock
                    || (first.driver != second.driver && unseen)
                    || (both_lost && first.driver != second.driver))
                {
                    return Err(format!(
                        "{job} ran twice for {at}: {first:?} and {second:?}"
                    ));
                }
            }
        }
        if self.jumps {
            return Ok(());
        }
        for record in self
            .all()
            .filter(|record| matches!(record.cause, Cause::Appointment | Cause::Retry))
        {
            let Some(began) = self.began.get(&record.run_id) else {
                continue;
            };
            let job = usize::from(record.job == "a.second");
            let own = |host: &Option<usize>| {
                host.is_none_or(|host| record.driver.starts_with(&format!("host{host}-")))
            };
            let fences = self.fences[job]
                .iter()
                .filter(|(host, at)| own(host) && at <= began);
            let fence = fences.map(|(_, at)| at).max();
            if record.job != "a.third"
                && fence.is_some_and(|fence| record.planned_at_micros <= *fence)
            {
                return Err(format!(
                    "{record:?} was started for an appointment before {fence:?}"
                ));
            }
        }
        let outstanding = self.outstanding();
        match outstanding.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "{} appointments have no record, as {first:?}",
                outstanding.len()
            )),
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

#[test]
fn no_appointment_is_kept_twice_and_none_is_forgotten() {
    let (first, histories) = (number("SEED", 1), number("HISTORIES", 300));
    let (mut runs, mut faults) = (0, Vec::new());
    for seed in first..first + histories {
        let mut world = World::new(seed);
        world.boot(0);
        for _ in 0..12 + world.dice.below(20) {
            world.step();
        }
        world.heal();
        runs += world.archive.len();
        if let Err(reason) = world.check() {
            if histories == 1 {
                println!("{}", world.log.join("\n"));
                world.all().for_each(|record| println!("{record:?}"));
            }
            faults.push(format!("SEED={seed} HISTORIES=1: {reason}"));
        }
    }
    let shown = faults
        .iter()
        .take(5)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        faults.is_empty(),
        "{} histories failed:\n{shown}",
        faults.len()
    );
    assert!(u64::try_from(runs).unwrap() > histories, "{runs} runs");
}

#[test]
fn ninety_days_off_start_a_minutely_job_once() {
    let mut world = World::new(7);
    world.jumps = false;
    world.schedules[0] = "every 1 minutes".to_owned();
    world.boot(0);
    world.pass(HOUR, 120);
    world.kill(0);
    world.now += 90 * DAY;
    let before = world.archive.len();
    world.boot(0);
    world.pass(3 * MINUTE, 9);
    // The one that was open when it was killed is recorded as interrupted, and done again with the rest.
    let starts = world
        .log
        .iter()
        .rev()
        .take_while(|line| !line.contains("starts"));
    let starts: Vec<&String> = starts.filter(|line| line.contains("a.first")).collect();
    assert!(starts.len() <= 2, "{starts:?}");
    world.pass(HOUR, 120);
    let caught_up: Vec<&RunRecord> = world.archive[before..]
        .iter()
        .filter(|record| {
            record
                .covers
                .is_some_and(|covers| covers.appointments > 100_000)
        })
        .filter(|record| record.outcome == Outcome::Succeeded)
        .collect();
    assert_eq!(caught_up.len(), 1, "{caught_up:?}");
}
