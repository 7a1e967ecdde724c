//! Our side of `make bench-backup`: one operation on an external cluster as one process, so that its time, processor
//! time and memory are measured from outside like any peer's. Also the floor: a bare read-compress-seal-write loop with
//! nothing around it.

mod floor;
mod standby;

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use aws::s3::{S3Location, S3Store};
use backup::{
    database::{DatabaseBackup, SourceChoice, backup},
    stream::{Streamer, StreamerConfig},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use postgres_physical::{
    server::{Binaries, OsUser},
    wire::ConnectOptions,
};
use recovery::database::{
    FetchCommand, Plan, Recover, RestoreOptions, Target, plan, recover, restore, restore_over,
    survey, wal_fetch,
};
use repository::{
    Repository,
    backup::{BackupKind, BackupState},
    keys::{ChunkIdKey, RecipientPrivate, RecipientPublic},
    store::PosixStore,
};

/// The product's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const WAL_TIMEOUT: Duration = Duration::from_secs(60);
const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
enum Command {
    /// A new repository with new keys.
    Init(Place),
    /// A full backup.
    Full {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        cluster: Cluster,
        #[arg(long, default_value = "local")]
        source: Source,
    },
    /// What changed since the one before.
    Incremental {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        cluster: Cluster,
        #[arg(long, default_value = "local")]
        source: Source,
    },
    /// Streams WAL until its standard input ends; says `attached`.
    Stream {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        cluster: Cluster,
        #[arg(long, default_value = "bre")]
        slot: String,
        /// The server's commits wait for it.
        #[arg(long)]
        strict: bool,
    },
    /// Writes the newest backup's files.
    Restore {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        to: PathBuf,
        /// The folder holds a broken copy: write only what differs.
        #[arg(long)]
        over: bool,
    },
    /// Restores and replays to the end of the repository's WAL.
    Recover {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        to: PathBuf,
    },
    /// Keeps a warm spare, says `following`, promotes it when it is told to, and says how long that took and where it
    /// lies.
    Spare {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        to: PathBuf,
        #[arg(long)]
        sockets: PathBuf,
    },
    /// What PostgreSQL's `restore_command` calls during `recover`.
    #[command(subcommand)]
    Wal(Wal),
    /// Reads a folder, compresses, seals and writes it, and nothing else.
    Floor {
        #[arg(long)]
        from: PathBuf,
        #[arg(long)]
        to: PathBuf,
        #[arg(long, default_value_t = 2)]
        threads: usize,
        #[arg(long, default_value_t = 1)]
        level: i32,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    Local,
    Protocol,
}

#[derive(Debug, Subcommand)]
enum Wal {
    Fetch {
        #[arg(long)]
        socket: PathBuf,
        name: String,
        path: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// A folder, or s3://…
    #[arg(long)]
    repository: String,
    #[arg(long)]
    keys: PathBuf,
}

#[derive(Debug, Args)]
struct Cluster {
    #[arg(long)]
    sockets: PathBuf,
    #[arg(long)]
    port: u16,
}

impl Place {
    fn repository(&self) -> Result<Repository> {
        Ok(Repository::open(self.store()?)?)
    }

    fn store(&self) -> Result<Arc<dyn repository::store::Store>> {
        if !self.repository.starts_with("s3://") {
            return Ok(Arc::new(PosixStore::new(&self.repository)));
        }
        let location: S3Location = self.repository.parse()?;
        Ok(Arc::new(S3Store::open(&location, None)?))
    }

    fn private(&self) -> Result<RecipientPrivate> {
        Ok(RecipientPrivate::load(&self.keys.join("recipient.key"))?)
    }

    fn public(&self) -> Result<RecipientPublic> {
        Ok(RecipientPublic::load(&self.keys.join("recipient.pub"))?)
    }

    fn chunk_key(&self) -> Result<ChunkIdKey> {
        Ok(ChunkIdKey::load(&self.keys.join("chunk_id.key"))?)
    }

    fn init(&self) -> Result<()> {
        std::fs::create_dir_all(&self.keys)?;
        let private = RecipientPrivate::generate()?;
        private.store(&self.keys.join("recipient.key"))?;
        private.public().store(&self.keys.join("recipient.pub"))?;
        ChunkIdKey::generate()?.store(&self.keys.join("chunk_id.key"))?;
        Repository::init(self.store()?)?;
        Ok(())
    }

    fn plan(&self, target: Target) -> Result<(Repository, RecipientPrivate, Plan)> {
        let (repository, private) = (self.repository()?, self.private()?);
        let plan = plan(&repository, &private, target)?;
        Ok((repository, private, plan))
    }
}

impl Cluster {
    fn connect(&self) -> ConnectOptions {
        let name = std::env::var("USER").unwrap_or_else(|_| "postgres".to_owned());
        ConnectOptions::unix(&self.sockets, self.port, &name, "postgres")
    }
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("protect: {error}");
            ExitCode::from(200)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Init(place) => place.init()?,
        Command::Full {
            place,
            cluster,
            source,
        } => take(BackupKind::Full, &place, &cluster, source)?,
        Command::Incremental {
            place,
            cluster,
            source,
        } => take(BackupKind::Incremental, &place, &cluster, source)?,
        Command::Stream {
            place,
            cluster,
            slot,
            strict,
        } => stream(&place, &cluster, &slot, strict)?,
        Command::Restore { place, to, over } => {
            let (repository, private, plan) = place.plan(Target::latest())?;
            let options = RestoreOptions::new(OsUser::for_server()?);
            if over {
                let survey = survey(&repository, &private, &plan, &to, &options, &())?;
                restore_over(&survey, &options, &())?;
            } else {
                restore(&repository, &private, &plan, &to, &options, &())?;
            }
        }
        Command::Recover { place, to } => bring_back(&place, &to)?,
        Command::Spare { place, to, sockets } => standby::run(&place, &to, &sockets)?,
        Command::Wal(Wal::Fetch { socket, name, path }) => {
            let code = wal_fetch(&socket, &name, &path).exit_code();
            return Ok(ExitCode::from(u8::try_from(code)?));
        }
        Command::Floor {
            from,
            to,
            threads,
            level,
        } => floor::run(&from, &to, threads, level)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn take(kind: BackupKind, place: &Place, cluster: &Cluster, source: Source) -> Result<()> {
    let (connect, repository) = (cluster.connect(), place.repository()?);
    let (public, chunk_key) = (place.public()?, place.chunk_key()?);
    let cache = place.keys.join("cache");
    let request = DatabaseBackup {
        label: "bench",
        kind,
        source: match source {
            Source::Local => SourceChoice::Local,
            Source::Protocol => SourceChoice::Protocol,
        },
        cache: Some(&cache),
        wal_timeout: WAL_TIMEOUT,
        ..DatabaseBackup::new(&connect, &repository, &public, &chunk_key)
    };
    let outcome = backup(&request, &())?;
    if outcome.state != BackupState::Complete {
        return Err(format!("backup {} is {:?}", outcome.id, outcome.state).into());
    }
    say(&outcome.id);
    Ok(())
}

fn stream(place: &Place, cluster: &Cluster, slot: &str, strict: bool) -> Result<()> {
    let connect = cluster.connect().with_application_name("bre");
    let mut config = StreamerConfig::new(connect, slot, place.store()?, place.public()?);
    if !strict {
        config = config.without_haste();
    }
    let streamer = Streamer::start(config);
    let attached = streamer
        .watch()
        .wait_until(ATTACH_TIMEOUT, |state| state.attached);
    if attached.is_none() {
        return Err(format!("not attached: {:?}", streamer.state()).into());
    }
    say("attached");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    streamer.stop();
    Ok(())
}

fn bring_back(place: &Place, to: &Path) -> Result<()> {
    let began = Instant::now();
    let (repository, private, plan) = place.plan(Target::latest())?;
    let user = OsUser::for_server()?;
    let planned = began.elapsed();
    let options = RestoreOptions::new(user.clone());
    restore(&repository, &private, &plan, to, &options, &())?;
    let restored = began.elapsed();
    let request = Recover {
        repository: &repository,
        private: &private,
        plan: &plan,
        dir: to,
        binaries: &Binaries::find(None)?,
        user: &user,
        fetch: &FetchCommand::Program(std::env::current_exe()?),
        log: &to.with_extension("log"),
    };
    recover(&request, &())?;
    let recovered = began.elapsed();
    say(&format!(
        "plan {} restore {} replay {}",
        planned.as_secs_f64(),
        restored.saturating_sub(planned).as_secs_f64(),
        recovered.saturating_sub(restored).as_secs_f64()
    ));
    Ok(())
}

#[allow(clippy::print_stdout, reason = "read by the benchmark")]
fn say(text: &str) {
    println!("{text}");
}
