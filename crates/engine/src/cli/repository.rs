//! `bre repository`, and where a repository and its keys are.

use super::*;
use operations::repository_handle::RepositorySelection;

#[derive(Debug, Subcommand)]
pub(crate) enum RepositoryCommand {
    /// Who can read the repository: its key's age, a new key, old keys retired.
    #[command(subcommand)]
    Key(RepositoryKeyCommand),
    /// Legal holds: a backup, all that it refers to and the WAL that it needs stay, whatever the rules say, until the
    /// hold is cleared.
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Copy backups and WAL into another repository: sealed objects as they are, read back, manifests last. Goes on
    /// where it was stopped.
    Copy(CopyArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Put a backup on hold, with a reason on record; a store that has holds of its own is told.
    Set {
        /// The backup's id.
        backup: String,
        /// Why; it stands on record.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// End a hold: from then on the backup expires as its age and the rules say.
    Clear {
        /// The backup's id.
        backup: String,
        /// Why; it stands on record.
        #[arg(long)]
        reason: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Every hold, since when, and why.
    List(RepositoryArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// The instance's own when absent.
    #[arg(long, value_name = "WHERE")]
    pub(crate) from: Option<String>,
    /// A folder, s3://BUCKET/PREFIX, or the name of one that [repositories.NAME] describes; made where there is none yet.
    #[arg(long, value_name = "WHERE")]
    pub(crate) to: String,
    /// One backup; all that the other's rules keep when absent.
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Option<String>,
    /// The folder with the repository's keys; needed for backups without a pack list only.
    #[arg(long = "keys-dir", value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
}

/// Where the repository and its keys are; below --data when absent.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RepositoryArgs {
    /// The repository: a folder, s3://BUCKET/PREFIX, or the name of one that [repositories.NAME] describes.
    #[arg(long, value_name = "WHERE")]
    pub(crate) repository: Option<String>,
    /// The folder with the repository's keys.
    #[arg(long = "keys-dir", value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
    /// Those of a cluster that [clusters.NAME] names.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

impl From<&RepositoryArgs> for RepositorySelection {
    fn from(args: &RepositoryArgs) -> Self {
        Self {
            repository: args.repository.clone(),
            keys: args.keys.clone(),
            cluster: args.cluster.clone(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RepositoryKeyCommand {
    /// The key that backups are sealed to, its age, and who else can read.
    Show(RepositoryArgs),
    /// Put a new key beside the old one, as [repository_key] says: rewrites no data, finishes what was interrupted.
    /// Needs the old private key.
    Rotate {
        /// Settings file; DIR/bre.toml when it is there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Seal everything that is here to the key that is kept offline (DIR/keys/offline.pub) as well; new things are
    /// anyway.
    SealOffline(RepositoryArgs),
    /// Delete the wraps of replaced keys, once everything opens with the current one.
    RetireOld {
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
}
