//! Losses in a row: what is lost again while it is being brought back, right after a step that the engine names. However it falls, it
//! comes back, nothing acknowledged is lost, and nothing of it is left at the end.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use postgres_physical::server::{Leftover, sql::Client};

use crate::{
    instance::Instance,
    process::{TIMEOUT, processes_on, within},
};

/// The steps of a restore; the first three are not passed where the folder is whole.
const STEPS: [&str; 13] = [
    "planned",
    "files_restored",
    "in_place",
    "let_go",
    "spare_asked",
    "server_started",
    "stream_started",
    "stream_attached",
    "strict_settled",
    "writer_resumed",
    "writer_serving",
    "announced",
    "protected",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Database,
    Folder,
    Stream,
    Repository,
    Redis,
}

const LOSSES: [Loss; 5] = [
    Loss::Database,
    Loss::Folder,
    Loss::Stream,
    Loss::Repository,
    Loss::Redis,
];

/// How long a repository is away that is not away for good.
const AWAY: Duration = Duration::from_millis(300);

impl Loss {
    /// The folder goes while its server lives: such a server makes WAL segments anew and streams their zeros.
    fn strike(self, data: &Path) {
        let postgres = data.join("postgres");
        match self {
            Self::Database => {
                if let Some(left) = Leftover::detect(&postgres) {
                    let _ = left.kill();
                }
            }
            Self::Folder => {
                drop(std::fs::remove_dir_all(&postgres));
            }
            Self::Stream => {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
                let host = data.join("run/pg");
                let options = postgres_physical::wire::ConnectOptions::unix(
                    &host, 5432, "postgres", "postgres",
                );
                // There may be no server just now.
                let _ = Client::connect(&options).and_then(|mut client| client.query(end));
            }
            Self::Repository => {
                let (here, away) = (data.join("repository"), data.join("repository.away"));
                if std::fs::rename(&here, &away).is_ok() {
                    std::thread::spawn(move || {
                        std::thread::sleep(AWAY);
                        let _ = std::fs::remove_dir_all(&here);
                        std::fs::rename(&away, &here).unwrap();
                    });
                }
            }
            Self::Redis => {
                let redis = |(pid, line): (u32, String)| {
                    line.contains("redis-server").then_some(pid.cast_signed())
                };
                for pid in processes_on(data).into_iter().filter_map(redis) {
                    let pid = rustix::process::Pid::from_raw(pid).unwrap();
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                let _ = std::fs::remove_dir_all(data.join("redis"));
            }
        }
    }
}

/// What is to be lost next, and right after which step.
#[derive(Default)]
struct Plan {
    losses: VecDeque<(&'static str, Loss)>,
    /// The last step of a recovery was passed, and nothing was lost at it that begins another.
    settled: bool,
}

type SharedPlan = Arc<Mutex<Plan>>;

/// Hears of each step, and strikes where that is planned before the engine goes on.
fn observe(socket: &Path, data: PathBuf) -> SharedPlan {
    let listener = UnixListener::bind(socket).unwrap();
    let planned = SharedPlan::default();
    let next = Arc::clone(&planned);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let due = {
                let mut plan = next.lock().unwrap();
                let is_due = |(step, _): &&(&str, Loss)| *step == line.trim();
                let due = plan.losses.front().filter(is_due).map(|(_, loss)| *loss);
                if due.is_some() {
                    plan.losses.pop_front();
                }
                let begins_anew = matches!(due, Some(Loss::Database | Loss::Folder));
                plan.settled = line.trim() == "protected" && !begins_anew;
                due
            };
            if let Some(loss) = due {
                loss.strike(&data);
            }
            let _ = stream.write_all(b"\n");
        }
    });
    planned
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

fn of_environment(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

#[test]
fn what_is_lost_again_while_it_is_brought_back_comes_back_whatever_it_is_and_whenever() {
    let seed = of_environment("SEED", 1);
    // One round: a loss, and two more during the recovery. `make slow-losses` makes it every step with every loss.
    let rounds = of_environment("ROUNDS", 3);
    println!("seed {seed}, {rounds} rounds");
    let mut instance = Instance::prepared(&["--strict"]);
    let socket = instance.folder.join("steps.sock");
    let variable = ("BRE_STEP_OBSERVER".to_owned(), socket.display().to_string());
    instance.folder.environment.push(variable);
    let planned = observe(&socket, instance.data());
    instance.up();

    let (mut dice, mut acknowledged) = (Dice(seed), Vec::new());
    let locate = |instance: &Instance, what: &str| {
        let served = within(TIMEOUT, || {
            let answer = instance.locate();
            (answer.status == 200).then(|| answer.body["quote_id"].as_str().unwrap().to_owned())
        });
        served.unwrap_or_else(|| panic!("seed {seed}: no locate is served after {what}"))
    };
    acknowledged.push(locate(&instance, "the start"));
    for round in 0..rounds {
        // All pairs in turn where there are rounds enough; the rest is drawn.
        let pair = if rounds < 65 {
            dice.below(65)
        } else {
            usize::try_from(round).unwrap() % 65
        };
        let (step, second) = (STEPS[pair % 13], LOSSES[pair / 13]);
        let third = (STEPS[dice.below(13)], LOSSES[dice.below(5)]);
        let first = if pair % 13 < 3 || dice.below(2) == 0 {
            Loss::Folder
        } else {
            Loss::Database
        };
        let what = format!("{first:?}, then at {step} {second:?}, then {third:?}");
        println!("{round}: {what}");
        {
            let mut plan = planned.lock().unwrap();
            plan.losses.extend([(step, second), third]);
            plan.settled = false;
        }
        first.strike(&instance.data());
        let settled = within(TIMEOUT, || planned.lock().unwrap().settled.then_some(()));
        assert!(settled.is_some(), "seed {seed}: {what}: never at its end");
        let left = std::mem::take(&mut planned.lock().unwrap().losses);
        assert!(
            left.len() < 2,
            "seed {seed}: {what}: the step was never passed"
        );
        let back = within(TIMEOUT, || {
            instance.data().join("repository").exists().then_some(())
        });
        assert!(back.is_some());
        acknowledged.push(locate(&instance, &what));
    }
    let recorded = within(TIMEOUT, || {
        let rows = Client::connect(&instance.options())
            .and_then(|mut client| client.query("SELECT quote_id FROM quotes"));
        rows.ok().map(|rows| crate::instance::texts(rows).concat())
    });
    let recorded = recorded.unwrap();
    for quote in &acknowledged {
        assert!(recorded.contains(quote), "seed {seed}: {quote} is lost");
    }

    // What commands, PostgreSQL's and Redis's clients find the engine by.
    std::fs::remove_dir_all(instance.data().join("run")).unwrap();
    // It is found at once; its database is back a moment later.
    let found = instance.bre(&["api-key", "list"]);
    assert!(!found.err.contains("no engine runs"), "{found:?}");
    let served = within(TIMEOUT, || {
        (instance.bre(&["api-key", "list"]).code == Some(0)).then_some(())
    });
    assert!(served.is_some());
    let made = within(TIMEOUT, || {
        let cache = &instance.get("/api/v1/health").body["components"]["cache"]["status"];
        let files = [
            "pg/.s.PGSQL.5432",
            "redis/redis.sock",
            "control.sock",
            "instance.json",
            "plan.json",
        ];
        let all = files
            .iter()
            .all(|file| instance.data().join("run").join(file).exists());
        (all && cache == "up").then_some(())
    });
    assert!(
        made.is_some(),
        "{:?}",
        std::fs::read_dir(instance.data().join("run"))
    );
    locate(&instance, "the folder `run` was deleted");
    instance.audit_is_sound();
    instance.stop_cleanly();
}
