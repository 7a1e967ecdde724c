//! Drill "database-loss": under load, the database is killed and everything except the repository and its keys deleted.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use audit::Entry;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    DrillError, Fault, Proxy, Report,
    faults::{Trouble, Victim},
    judge::Evidence,
    ledger::{self, RequestOutcome, RequestRecord, now_micros},
    system::{Ready, System, kill, stop, wait_dead},
};

/// How long a recovery may take before the drill stops waiting: the guide's own limit.
const GIVE_UP: Duration = crate::objectives::RTO_GUIDE;
/// Clients continue for a while on the recovered system, so that its new epoch is loaded too.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// A fault of the store is still there for so long when the recovery begins.
const LINGERS: Duration = Duration::from_secs(2);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Limits are not what is drilled; a client here is a whole desk.
const CONFIG: &str = "[limits]\nstandard_per_minute = 100000000\npremium_per_minute = 100000000\ninternal_per_minute = 100000000\n";

/// The drill's settings, as the command line gives them.
#[derive(Debug)]
pub struct DatabaseLoss {
    /// The product's binary.
    pub bre: PathBuf,
    pub strict: bool,
    /// Kill the engine (and with it the streamer) in the same instant.
    pub and_engine: bool,
    /// Keep a warm standby, whose folder survives, and see it take the place of the database.
    pub standby: bool,
    /// What goes wrong besides.
    pub fault: Option<Fault>,
    /// What the repository's location leads through, when its server is to misbehave.
    pub proxy: Option<Arc<Proxy>>,
    pub clients: usize,
    pub seconds: u64,
    pub seed: u64,
    pub rates_file: Option<PathBuf>,
    /// Where its repository lies, as `[repository] path` says it; in its own folder when absent.
    pub repository: Option<String>,
    /// Where the throw-away system is built; the system's temporary folder when absent.
    pub work: Option<PathBuf>,
    /// A slower recovery fails the drill.
    pub rto_seconds_max: u64,
}

impl DatabaseLoss {
    /// Carries the drill out. `say` gets one line a step, for a person who waits.
    ///
    /// # Errors
    /// When the drill could not be carried out; losses are in the report, not errors.
    pub fn run(&self, say: &mut dyn FnMut(&str)) -> Result<Report, DrillError> {
        let folder = self.work_folder()?;
        say(&format!(
            "throw-away system in {} (seed {})",
            folder.path().display(),
            self.seed
        ));
        let outcome = Run::start(self, folder.path(), say).and_then(|run| run.finish(say));
        if !matches!(&outcome, Ok(report) if report.passed) {
            say(&format!("kept for a look: {}", folder.keep().display()));
        }
        outcome
    }

    fn settings(&self) -> String {
        let mut settings = CONFIG.to_owned();
        if let Some(location) = &self.repository {
            settings.push_str(&format!("[repository]\npath = \"{location}\"\n"));
        }
        if self.standby {
            settings.push_str("[spare]\nenabled = true\n");
        }
        settings
    }

    /// PostgreSQL runs as its own user, which must be able to pass through.
    fn work_folder(&self) -> Result<tempfile::TempDir, DrillError> {
        let parent = self.work.clone().unwrap_or_else(std::env::temp_dir);
        let folder = tempfile::Builder::new()
            .prefix("bre-drill-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .tempdir_in(&parent)
            .map_err(DrillError::file("cannot make a folder in", &parent))?;
        Ok(folder)
    }
}

/// The loss in time: from just before the first signal until the last process had ended.
#[derive(Clone, Copy, Debug)]
struct Kill {
    killed_at_micros: i64,
    dead_at_micros: i64,
}

/// A drill under way: the system and its clients. Whatever ends it, no process of it stays behind.
struct Run<'a> {
    drill: &'a DatabaseLoss,
    folder: &'a Path,
    system: System,
    engine: Child,
    ready: Ready,
    clients: Vec<Child>,
    random: StdRng,
    /// The restore that the standby came from.
    standby: Option<String>,
}

impl<'a> Run<'a> {
    fn start(
        drill: &'a DatabaseLoss,
        folder: &'a Path,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self, DrillError> {
        let config = folder.join("bre.toml");
        std::fs::write(&config, drill.settings())
            .map_err(DrillError::file("cannot write", &config))?;
        let system = System {
            bre: drill.bre.clone(),
            data: folder.join("data"),
            config,
            log: folder.join("engine.log"),
            strict: drill.strict,
            rates_file: drill.rates_file.clone(),
        };
        let began = Instant::now();
        let (engine, ready) = system.up(0)?;
        say(&format!(
            "up at {} after {:.1} s",
            ready.url,
            began.elapsed().as_secs_f64()
        ));
        let mut run = Self {
            drill,
            folder,
            system,
            engine,
            ready,
            clients: Vec::new(),
            random: StdRng::seed_from_u64(drill.seed),
            standby: None,
        };
        run.wait_for_standby(say)?;
        run.start_clients()?;
        Ok(run)
    }

    fn wait_for_standby(&mut self, say: &mut dyn FnMut(&str)) -> Result<(), DrillError> {
        if !self.drill.standby {
            return Ok(());
        }
        let began = Instant::now();
        let failed = |why: String| DrillError::Command {
            command: "spare status".into(),
            reason: why,
        };
        loop {
            // No process keeps it in the first moments.
            let status = self.system.standby().unwrap_or_default();
            if status.healthy {
                let seconds = began.elapsed().as_secs_f64();
                say(&format!("the standby follows after {seconds:.1} s"));
                self.standby = status.restore_id;
                return Ok(());
            }
            if began.elapsed() > GIVE_UP {
                return Err(failed(format!("it does not follow: {status:?}")));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn start_clients(&mut self) -> Result<(), DrillError> {
        let ledgers = self.ledgers();
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&ledgers)
            .map_err(DrillError::file("cannot make", &ledgers))?;
        for number in 0..self.drill.clients {
            let client = Command::new(&self.drill.bre)
                .arg("drill-client")
                .args(["--url", &self.ready.url, "--client", &self.ready.client_id])
                .arg("--api-key-file")
                .arg(&self.ready.api_key_file)
                .arg("--ledger")
                .arg(ledgers.join(format!("{number}.jsonl")))
                .args(["--seed", &self.random.random::<u64>().to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(DrillError::file("cannot start", &self.drill.bre))?;
            self.clients.push(client);
        }
        Ok(())
    }

    fn ledgers(&self) -> PathBuf {
        self.folder.join("ledgers")
    }

    fn records(&self) -> Result<Vec<RequestRecord>, DrillError> {
        let mut records = Vec::new();
        for number in 0..self.drill.clients {
            records.extend(ledger::read(
                &self.ledgers().join(format!("{number}.jsonl")),
            )?);
        }
        Ok(records)
    }

    fn finish(mut self, say: &mut dyn FnMut(&str)) -> Result<Report, DrillError> {
        let began = Instant::now();
        let total = Duration::from_secs(self.drill.seconds);
        // Between 30 % and 60 % of the time: enough behind it to lose, enough before it to load the recovered system.
        let until_kill = total.mul_f64(self.random.random_range(0.3..0.6));
        let trouble = self.begin_trouble(until_kill / 2, say)?;
        std::thread::sleep(until_kill.saturating_sub(began.elapsed()));
        let trouble = self.end_kills(trouble)?;
        let epoch_before = self.epoch_before()?;
        let kill = self.destroy(trouble, say)?;
        self.wait_for_new_epoch(epoch_before)?;
        say("served its first new durable quote");
        std::thread::sleep(AFTERWARDS.max(total.saturating_sub(began.elapsed())));
        self.stop_clients();
        say("proving: audit log, every acknowledgement, replay");
        let report = self.evidence(kill, epoch_before)?.judge();
        stop(&mut self.engine, STOP_LIMIT)?;
        Ok(report)
    }

    /// Halfway to the loss, and only once there is something to lose.
    fn begin_trouble(
        &mut self,
        after: Duration,
        say: &mut dyn FnMut(&str),
    ) -> Result<Option<Trouble>, DrillError> {
        let Some(fault) = self.drill.fault else {
            return Ok(None);
        };
        std::thread::sleep(after);
        self.epoch_before()?;
        let victim = Victim {
            engine_pid: i32::try_from(self.engine.id()).unwrap_or(i32::MAX),
            repository: self.system.data.join("repository"),
            proxy: self.drill.proxy.clone(),
            seed: self.random.random(),
        };
        let trouble = Trouble::begin(fault, victim)?;
        say(&format!("from now on: {fault}"));
        Ok(Some(trouble))
    }

    /// Kills end before the loss, so that there is a database to lose; faults of the store continue.
    fn end_kills(&mut self, trouble: Option<Trouble>) -> Result<Option<Trouble>, DrillError> {
        if self.drill.fault != Some(Fault::Kills) {
            return Ok(trouble);
        }
        drop(trouble);
        let ended_at = now_micros();
        self.wait_for(|record| {
            record.sent_at_micros > ended_at
                && matches!(record.outcome, RequestOutcome::Acknowledged { .. })
        })?;
        Ok(None)
    }

    fn epoch_before(&self) -> Result<u32, DrillError> {
        let epochs = self
            .records()?
            .into_iter()
            .filter_map(|record| match record.outcome {
                RequestOutcome::Acknowledged { epoch, .. } => Some(epoch),
                _ => None,
            });
        epochs.max().ok_or_else(|| DrillError::NoLoad {
            log: self.system.log.clone(),
        })
    }

    /// The loss itself. Returns its moment: just before the first signal, so that a recovery is never flattered.
    fn destroy(
        &mut self,
        trouble: Option<Trouble>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Kill, DrillError> {
        let victims = self.system.database_pids()?;
        let killed_at_micros = now_micros();
        if self.drill.and_engine {
            let _ = self.engine.kill();
        }
        for pid in &victims {
            kill(*pid)?;
        }
        wait_dead(&victims);
        let dead_at_micros = now_micros();
        self.system.destroy(self.drill.standby)?;
        let trouble = trouble.map(|trouble| trouble.end_in(LINGERS));
        say(match self.drill.standby {
            false => "killed PostgreSQL and deleted everything but the repository and its keys",
            true => {
                "killed PostgreSQL and deleted everything but the repository, its keys and the standby"
            }
        });
        if self.drill.and_engine {
            let _ = self.engine.wait();
            say("the engine was killed too; starting it again, as an init system would");
            let port = self
                .ready
                .url
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse().ok())
                .unwrap_or(0);
            let (engine, _) = self.system.up(port)?;
            self.engine = engine;
        }
        if let Some(trouble) = trouble {
            let _ = trouble.join();
        }
        Ok(Kill {
            killed_at_micros,
            dead_at_micros,
        })
    }

    fn wait_for_new_epoch(&mut self, epoch_before: u32) -> Result<(), DrillError> {
        self.wait_for(|record| matches!(record.outcome, RequestOutcome::Acknowledged { epoch, .. } if epoch > epoch_before))
    }

    /// Until some client was told so.
    fn wait_for(&mut self, is_wanted: impl Fn(&RequestRecord) -> bool) -> Result<(), DrillError> {
        let deadline = Instant::now() + GIVE_UP;
        loop {
            if self.records()?.iter().any(&is_wanted) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.engine.try_wait() {
                return Err(DrillError::Start {
                    reason: format!("the engine ended: {status}"),
                    log: self.system.log.clone(),
                });
            }
            if Instant::now() > deadline {
                return Err(DrillError::NotBack {
                    seconds: GIVE_UP.as_secs(),
                    log: self.system.log.clone(),
                });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Closing its standard input asks a client to finish the request it is at.
    fn stop_clients(&mut self) {
        for client in &mut self.clients {
            drop(client.stdin.take());
        }
        for client in &mut self.clients {
            let _ = client.wait();
        }
        self.clients.clear();
    }

    fn evidence(&self, kill: Kill, epoch_before: u32) -> Result<Evidence, DrillError> {
        Ok(Evidence {
            seed: self.drill.seed,
            clients: self.drill.clients,
            strict: self.drill.strict,
            and_engine: self.drill.and_engine,
            standby: self.standby.clone(),
            fault: self.drill.fault,
            rto_max: Duration::from_secs(self.drill.rto_seconds_max),
            killed_at_micros: kill.killed_at_micros,
            dead_at_micros: kill.dead_at_micros,
            epoch_before,
            records: self.records()?,
            audit: self.ask_json(&["verify", "audit", "--json"])?,
            replay: self.ask_json(&["replay", "--json"])?,
            entries: self.exported()?,
        })
    }

    fn ask_json<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T, DrillError> {
        let (_, printed) = self.system.ask(words)?;
        serde_json::from_str(&printed).map_err(|error| DrillError::Command {
            command: words.join(" "),
            reason: format!("its answer is not the JSON that was expected ({error}): {printed}"),
        })
    }

    /// The audit log as the product exports it, decoded here from its canonical bytes.
    fn exported(&self) -> Result<Vec<Entry>, DrillError> {
        #[derive(Deserialize)]
        struct Line {
            canonical: String,
        }
        let failed = |reason: String| DrillError::Command {
            command: "audit export".into(),
            reason,
        };
        let (_, printed) = self.system.ask(&["audit", "export"])?;
        printed
            .lines()
            .map(|line| {
                let line: Line =
                    serde_json::from_str(line).map_err(|error| failed(error.to_string()))?;
                let bytes = audit::hex::decode(&line.canonical)
                    .map_err(|error| failed(error.to_string()))?;
                Entry::parse(&bytes).map_err(|error| failed(error.to_string()))
            })
            .collect()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.stop_clients();
        let ended = matches!(self.engine.try_wait(), Ok(Some(_)));
        if !ended {
            let _ = stop(&mut self.engine, STOP_LIMIT);
        }
        if self.drill.standby {
            // Its process outlives an engine that was killed.
            let _ = self.system.ask(&["standby", "stop"]);
        }
    }
}
