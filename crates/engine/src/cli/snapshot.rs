//! `bre snapshot`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::RepositoryArgs;

/// What `bre snapshot run` can collect on this host. Snapshots of others are listed, shown and restored all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SnapshotComponent {
    /// The instance's own settings, plan and runbooks.
    Configuration,
    /// Objects of a Kubernetes cluster's namespaces, into git.
    Kubernetes,
    /// Its ConfigMaps, into git.
    Configmaps,
    /// Helm's releases and their values, into git.
    Helm,
    /// Its Secrets, sealed.
    Secrets,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take one now; writes nothing where nothing differs from the newest.
    Run {
        #[arg(value_enum)]
        component: SnapshotComponent,
        #[command(flatten)]
        configuration: ConfigurationArgs,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// All snapshots, newest last. Needs no key.
    List {
        /// Of this component alone.
        component: Option<String>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Everything about one snapshot; with the private key, its documents too.
    Show {
        #[command(flatten)]
        which: SnapshotArgs,
        /// The content of this document, without secrets. Needs the private key.
        #[arg(long, value_name = "NAME")]
        document: Option<String>,
        #[command(flatten)]
        configuration: ConfigurationArgs,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// What differs between a snapshot and another one, or what is here now; secrets are not shown. Needs the private
    /// key.
    Diff {
        #[command(flatten)]
        which: SnapshotArgs,
        /// The later one; what is here now when absent.
        #[arg(long, value_name = "ID")]
        with: Option<String>,
        #[command(flatten)]
        configuration: ConfigurationArgs,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Write a snapshot's documents into a folder, or to where they came from, a Kubernetes cluster for instance:
    /// shows what it would do, and asks. What is sealed needs the private key.
    Restore(SnapshotRestoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotRestoreArgs {
    #[command(flatten)]
    pub(crate) which: SnapshotArgs,
    /// Into this folder, under the documents' own names.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// To where they came from; what came from a cluster goes there without it, too.
    #[arg(long, conflicts_with = "to")]
    pub(crate) in_place: bool,
    /// Of cloudformation: this stack, by a change set that is shown first.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["to", "in_place"])]
    pub(crate) stack: Option<String>,
    /// Show what would be done; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// On a cluster: take over fields that another field manager holds.
    #[arg(long)]
    pub(crate) force_conflicts: bool,
    #[command(flatten)]
    pub(crate) configuration: ConfigurationArgs,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// configuration, kubernetes, configmaps, helm, secrets or cache; for restore also application_state (all of a
    /// cluster) and secrets_manager.
    pub(crate) component: String,
    /// The id of a snapshot or of a commit, or the beginning of one; the newest when absent.
    pub(crate) id: Option<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ConfigurationArgs {
    /// Settings file; DIR/bre.toml when absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
