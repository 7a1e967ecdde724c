use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jobs::{Driver, FinishedRun, OneRun, Outcome, Settings, schedule::Cause};

use super::{
    claims::DatabaseLock,
    testing::{
        THROW_AWAY, add, add_throw_away, environment, environment_with, screens, table_of_settings,
    },
    *,
};
use crate::{command_output::CommandOutput, exit::Exit, job_status::short_name, plan::state_of};

/// Runs until it is told to end, where that was asked for.
struct Counting;

impl Task for Counting {
    fn run(&self, _: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        context.begin_bytes(100);
        context.add_bytes(40);
        context.progress("counting");
        if context.options() == Some("wait") {
            while !context.pause(Duration::from_secs(1)) {}
            return Err(Error::failed("it was told to end"));
        }
        answer::give(context, || {
            let counted = serde_json::json!({ "counted": 100 });
            Ok(CommandOutput::of(&counted, "100 counted".to_owned())?.exits(Exit::Partial))
        });
        Ok(RunReport::said("100 counted"))
    }
}

static COUNTING: JobDefinition = JobDefinition {
    spec: |config| JobSpec {
        name: "test.counting".to_owned(),
        locks: vec!["counting".to_owned()],
        ..(THROW_AWAY.spec)(config)
    },
    task: || Box::new(Counting),
    ..THROW_AWAY
};

/// Asks the process that has the plan, as `bre job run` does, while that process turns.
fn asked(
    (requests, driver): (&mut RunRequests, &mut Driver),
    options: Option<&str>,
    interrupted: &AtomicBool,
    meanwhile: &mut dyn FnMut(&Driver),
) -> Result<Option<CommandOutput>, Error> {
    let instance = host::instance::Instance::at(driver.records().root()).unwrap();
    let options = options.map(str::to_owned);
    std::thread::scope(|scope| {
        let person = scope.spawn(|| {
            let job = "test.counting";
            requests::run_there(&instance, true, job, options, interrupted)
        });
        while !person.is_finished() {
            requests.start_runs(driver);
            let ended = driver.turn();
            requests.answer(driver, ended, true);
            meanwhile(driver);
            std::thread::yield_now();
        }
        person.join().unwrap()
    })
}

#[test]
fn who_has_the_plan_runs_what_a_person_asks_for_and_answers_at_its_end() {
    add(&COUNTING);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("repository")).unwrap();
    let environment = environment(folder.path());
    environment.instance.make_folders().unwrap();
    let settings = Settings {
        root: folder.path(),
        archive: None,
        claims: Vec::new(),
        host: "here",
        before_look: None,
    };
    let mut driver = Driver::start(registry(&environment).unwrap(), settings).unwrap();
    let calm = AtomicBool::new(false);
    // No process listens: the one that asks runs it.
    let job = "test.counting";
    let alone = requests::run_there(&environment.instance, true, job, None, &calm).unwrap();
    assert!(alone.is_none(), "{alone:?}");

    let mut requests = RunRequests::listen(&environment.instance).unwrap();
    let output = asked((&mut requests, &mut driver), None, &calm, &mut |_| {}).unwrap();
    let output = output.expect("it ran there");
    assert_eq!(output.print(true), Exit::Partial.into(), "as the job says");
    let record = driver.records().newest_run(job).unwrap();
    assert_eq!(
        (record.outcome, record.cause, record.summary.as_str()),
        (Outcome::Succeeded, Cause::Request, "100 counted")
    );
    assert!(record.driver.starts_with("here-"), "{record:?}");

    // While it runs no other run is started; a signal to the person's process ends the run.
    let signal = AtomicBool::new(false);
    let other = environment.instance.jobs_socket();
    let mut second = None;
    let waiting = Some("wait");
    let came = asked(
        (&mut requests, &mut driver),
        waiting,
        &signal,
        &mut |driver| {
            if !driver.is_running(job) {
                return;
            }
            let stream = second.get_or_insert_with(|| ask(&other, job));
            if let Some(answer) = heard(stream) {
                assert!(answer.contains("it runs already, as "), "{answer}");
                assert!(answer.contains("refused"), "{answer}");
                signal.store(true, Ordering::Relaxed);
            }
        },
    );
    let error = came.unwrap_err();
    assert_eq!(error.to_string(), "it was told to end");
    let record = driver.records().newest_run(job).unwrap();
    assert_eq!(record.outcome, Outcome::Cancelled);

    // What was taken back in time is not started; a process that is gone leaves its run alone.
    let mut early = ask_to_wait(&other, job);
    writeln!(early, "\"withdraw\"").unwrap();
    let began = Instant::now();
    let answer = loop {
        assert!(began.elapsed() < Duration::from_secs(60));
        if let Some(answer) = heard(&mut early) {
            break answer;
        }
        std::thread::yield_now();
    };
    assert_eq!(answer, "\"withdrawn\"\n");
    requests.start_runs(&mut driver);
    assert!(!driver.is_running(job));
    let gone = ask_to_wait(&other, job);
    while !driver.is_running(job) {
        assert!(began.elapsed() < Duration::from_secs(60));
        requests.start_runs(&mut driver);
        driver.turn();
    }
    drop(gone);
    for _ in 0..20 {
        requests.start_runs(&mut driver);
        let ended = driver.turn();
        assert!(ended.is_empty(), "{ended:?}");
    }
    assert!(driver.is_running(job));
    let ended = driver.stop(Duration::from_secs(60));
    assert_eq!(ended.len(), 1);
    requests.end(&driver, ended);
    drop(requests);
    assert!(!other.exists());
}

/// By hand, so that it can be left in the middle.
fn ask(socket: &std::path::Path, job: &str) -> UnixStream {
    send(
        socket,
        &serde_json::json!({ "run": { "job": job, "by": "ada" } }),
    )
}

fn ask_to_wait(socket: &std::path::Path, job: &str) -> UnixStream {
    let request = serde_json::json!({ "job": job, "by": "ada", "options": "wait" });
    send(socket, &serde_json::json!({ "run": request }))
}

fn send(socket: &std::path::Path, request: &serde_json::Value) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    writeln!(stream, "{request}").unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// A short line comes whole.
fn heard(stream: &mut UnixStream) -> Option<String> {
    let mut bytes = [0; 1000];
    let count = stream.read(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// Turns until something holds.
fn until(driver: &mut Driver, holds: impl Fn(&Driver, &[FinishedRun]) -> bool) -> Vec<FinishedRun> {
    let (mut ended, began) = (Vec::new(), Instant::now());
    while !holds(driver, &ended) {
        let status = driver.status();
        assert!(began.elapsed() < Duration::from_secs(60), "{status:?}");
        ended.extend(driver.turn());
        std::thread::yield_now();
    }
    ended
}

#[test]
fn the_stream_is_a_job_that_cannot_be_paused_in_strict_mode() {
    let of = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bre.toml"), text).unwrap();
        settings::load(None, folder.path()).unwrap().backup
    };
    let normal = pause_policy(&of(""), "wal");
    assert!(
        matches!(&normal, PausePolicy::Alarming(why) if why.contains("one disk")),
        "{normal:?}"
    );
    let strict = pause_policy(&of("[database]\nstrict = true\n"), WAL_STREAM);
    assert!(
        matches!(&strict, PausePolicy::Refused(why) if why.contains("strict = false")),
        "{strict:?}"
    );
    assert_eq!(pause_policy(&of(""), "full"), PausePolicy::Allowed);
    // By hand no process streams beside the engine.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("repository")).unwrap();
    let one = OneRun {
        root: folder.path(),
        archive: None,
        host: "by-hand",
    };
    let context = RunContext::asked("ada".to_owned(), Arc::default());
    let registry = registry(&environment(folder.path())).unwrap();
    let error = one.run(&registry, "wal", &context).unwrap_err().to_string();
    assert!(
        error.contains("wal.stream is not started: the engine streams"),
        "{error}"
    );
}

#[test]
fn further_repositories_are_copied_to_by_a_job_that_runs_all_the_time() {
    const NAME: &str = "repository.copy";
    let folder = tempfile::tempdir().unwrap();
    for name in ["repository", "far"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let far = folder.path().join("far");
    let settings = format!("[repositories.far]\npath = {far:?}\n");
    std::fs::write(folder.path().join("bre.toml"), settings).unwrap();
    let config = settings::load(None, folder.path()).unwrap().backup;
    let environment = environment_with(folder.path(), &config);
    environment.instance.make_folders().unwrap();
    host::keys::Keys::open_or_create(&environment.instance.keys(), None).unwrap();
    let settings = Settings {
        root: folder.path(),
        archive: None,
        claims: Vec::new(),
        host: "here",
        before_look: None,
    };
    let mut driver = Driver::start(registry(&environment).unwrap(), settings).unwrap();
    let state = |driver: &Driver| {
        let status = driver.status().into_iter();
        let mut of_name = status.filter(|job| job.spec.name == NAME);
        state_of(&of_name.next().unwrap())
    };
    let says = |driver: &Driver, word: &str| {
        let progress = state(driver).progress.unwrap_or_default();
        progress.contains(word)
    };
    until(&mut driver, |driver, _| says(driver, "far: copied"));
    let standings = crate::copies::standings(&environment.instance);
    assert!(standings["far"].copied_at_micros > 0, "{standings:?}");
    assert!(far.read_dir().unwrap().next().is_some());
    let by_hand = || {
        let one = OneRun {
            root: folder.path(),
            archive: None,
            host: "by-hand",
        };
        let context = RunContext::asked("ada".to_owned(), Arc::default());
        one.run(&registry(&environment).unwrap(), NAME, &context)
    };
    let error = by_hand().unwrap_err().to_string();
    assert!(error.contains("it runs already"), "{error}");
    // Paused, it ends, and its record says how far it was. A person may run it once.
    let file = jobs::StateFile::at(&folder.path().join("jobs.json"));
    let paused = jobs::Pause {
        since_micros: 1,
        by: "ada".to_owned(),
        reason: String::new(),
    };
    file.change(|state| state.pause(NAME, paused)).unwrap();
    let ended = until(&mut driver, |_, ended| !ended.is_empty());
    let record = &ended[0].record;
    assert_eq!(
        (record.job.as_str(), record.outcome),
        (NAME, Outcome::Succeeded)
    );
    assert!(record.summary.starts_with("far: copied"), "{record:?}");
    let once = by_hand().unwrap();
    assert_eq!(
        (once.outcome, once.summary.as_str()),
        (Outcome::Succeeded, "far: copied")
    );
    // One that is away is said, and holds up nothing.
    std::fs::remove_dir_all(&far).unwrap();
    std::fs::write(&far, "a file").unwrap();
    let once = by_hand().unwrap();
    assert_eq!(once.outcome, Outcome::Failed);
    let reason = once.reason.unwrap_or_default();
    assert!(reason.starts_with("the copy far: not copied: "), "{reason}");
    file.change(|state| state.resume(NAME, 2)).unwrap();
    until(&mut driver, |driver, _| says(driver, "far: not copied"));
    assert!(state(&driver).running);
    driver.stop(Duration::from_secs(60));
}

#[test]
fn the_page_of_jobs_says_what_there_is() {
    const BEGIN: &str = "<!-- jobs -->\n";
    const END: &str = "<!-- end of jobs -->\n";
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations/jobs.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table_of_settings());
    if std::env::var_os("RENEW_JOBS").is_some() {
        std::fs::write(page, &wanted).unwrap();
    }
    assert!(
        text == wanted,
        "docs/operations/jobs.md: RENEW_JOBS=1 cargo test -p operations the_page_of_jobs writes it"
    );
}

#[test]
fn the_jobs_of_the_settings_make_a_plan_and_keep_their_short_names() {
    let specs = specs(&config::Backup::default());
    let short: Vec<&str> = specs.iter().map(short_name).collect();
    assert_eq!(
        short,
        [
            "full",
            "incremental",
            "wal",
            "proof",
            "expire",
            "schema",
            "audit_archive",
            "audit_log.postgres",
            "audit_log.application",
            "audit_log.system",
            "audit_log.compliance",
            "configuration.snapshot",
            "cache.rdb",
            "cache.aof",
            "kubernetes.config",
            "kubernetes.secrets",
            "kubernetes.configmaps",
            "kubernetes.helm",
            "terraform.state",
            "cloudformation.stacks",
            "iam.policies",
            "network.configuration",
            "rds.snapshots",
            "elasticache.snapshots",
            "keys.rotate",
            "repository.copy"
        ]
    );
    Registry::check(specs).unwrap();
    let expire = spec(&config::Backup::default(), "expire").unwrap();
    assert_eq!(
        (expire.name.as_str(), expire.trigger.to_string().as_str()),
        ("database.expire", "after full")
    );
    assert!(spec(&config::Backup::default(), "no.such").is_none());
}

/// Takes a claim, or says why not; as a driver is told.
struct ClaimList(Mutex<Vec<jobs::Claim>>);

impl jobs::Claims for ClaimList {
    fn name(&self) -> &'static str {
        "test"
    }

    fn hold(&mut self) -> jobs::Claim {
        let said = self.0.get_mut().unwrap();
        match said.len() {
            1 => said[0].clone(),
            _ => said.remove(0),
        }
    }
}

#[test]
fn two_engines_that_share_the_repository_alone_take_turns() {
    add_throw_away();
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    let first = environment(folder.path());
    let engine = |name: &str| {
        let root = folder.path().join(name);
        let instance = host::instance::Instance::at(&root).unwrap();
        instance.make_folders().unwrap();
        let caller = Caller::Person { json: true };
        let plan = config::Backup::default();
        let environment = Arc::new(JobEnvironment::new(
            &instance,
            &plan,
            caller,
            screens,
            first.moment(),
        ));
        let look = Duration::from_millis(50);
        let claim = OfRepository::start_with(&environment, DatabaseLock::default(), look);
        let settings = Settings {
            root: &root,
            archive: Some(Arc::new(RunArchive(first.moment().repository))),
            claims: vec![Box::new(claim)],
            host: name,
            before_look: None,
        };
        Driver::start(registry(&environment).unwrap(), settings).unwrap()
    };
    let job = "test.throw_away";
    let claims = || {
        let names = std::fs::read_dir(repository.join("claims"))
            .into_iter()
            .flatten();
        let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| !name.starts_with('.'))
            .collect::<Vec<_>>()
    };
    let mut one = engine("one");
    one.request(job).unwrap();
    let ended = until(&mut one, |_, ended| !ended.is_empty());
    assert_eq!(ended[0].record.claims, ["repository"]);
    assert_eq!(claims().len(), 1);
    // The other one waits, and says for whom.
    let mut two = engine("two");
    until(&mut two, |two, _| {
        let elsewhere = two.elsewhere().unwrap_or_default();
        elsewhere.contains("the claim in the repository is held by")
    });
    two.request(job).unwrap();
    for _ in 0..40 {
        assert!(two.turn().is_empty() && !two.is_running(job));
    }
    // A person is not kept from anything: a job that runs twice harms nothing.
    two.run_now(job, "ada".to_owned(), None).unwrap();
    until(&mut two, |_, ended| !ended.is_empty());
    // The first one stops; the other looks at what it did, and continues.
    drop(one);
    two.request(job).unwrap();
    let ended = until(&mut two, |_, ended| !ended.is_empty());
    assert_eq!(ended[0].record.claims, ["repository"]);
    assert_eq!(claims().len(), 1);
    drop(two);
    testkit::eventually("no claim is left", || claims().is_empty().then_some(()));
}

#[test]
fn while_another_engine_has_the_plan_nothing_is_started_here() {
    add_throw_away();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("repository")).unwrap();
    let elsewhere = jobs::Claim::Elsewhere("another host".to_owned());
    let said = vec![elsewhere; 40]
        .into_iter()
        .chain([jobs::Claim::Taken, jobs::Claim::Held]);
    let settings = Settings {
        root: folder.path(),
        archive: None,
        claims: vec![Box::new(ClaimList(Mutex::new(said.collect())))],
        host: "here",
        before_look: None,
    };
    let registry = registry(&environment(folder.path())).unwrap();
    let mut driver = Driver::start(registry, settings).unwrap();
    driver.request("test.throw_away").unwrap();
    for _ in 0..40 {
        assert!(driver.turn().is_empty());
        assert_eq!(driver.elsewhere(), Some("another host"));
        assert!(!driver.is_running("test.throw_away"));
    }
    let began = Instant::now();
    while driver.turn().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    assert_eq!(driver.elsewhere(), None);
}
