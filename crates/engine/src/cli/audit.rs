//! `bre audit`: the provable record, its proofs, its archive.

use super::*;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Seal what is new in the log to the archive's own key and put it into the repository, where nothing expires it.
    Archive(AuditArgs),
    /// The signed heads that the repository keeps.
    #[command(subcommand)]
    Head(HeadCommand),
    /// Every entry's canonical bytes, one JSON line each.
    Export(AuditArgs),
    /// Proof that a quote or a step of a locate is in the log, for somebody who has neither log nor repository: bre audit check-proof.
    Prove(AuditProveArgs),
    /// Check a proof with public keys alone; prints what was recorded. Exit code 0 only when it holds.
    CheckProof {
        /// What bre audit prove wrote; - for standard input.
        file: PathBuf,
        /// The log's public key (audit_signing.pub), as got from whom the log belongs to; several may be trusted. DIR/keys/audit_signing.pub when absent.
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
        /// What was published of the log's keys (log-<n>/keys of its public folder): proofs by keys that those given vouch for hold too.
        #[arg(long, value_name = "FILE")]
        statements: Option<PathBuf>,
    },
    /// As an outsider: whether a published log continues what it was at the last look. Exit code 0 only when it does.
    Follow(AuditFollowArgs),
    /// The keys that sign the log: which there are, a new one that the old one vouches for, one that ends.
    #[command(subcommand)]
    SigningKey(SigningKeyCommand),
    /// Let the log be written again after damage was found (health: audit_log); what is missing and why goes on record, signed. Restore instead wherever you can.
    Reopen(AuditReopenArgs),
    /// The audit archive's own key: who can read the archive; a new key beside the old one, and the old one let go.
    #[command(subcommand)]
    Key(AuditKeyCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum HeadCommand {
    /// Every head: epoch, size, when it was signed.
    List(RepositoryArgs),
}

/// Which way to the entries; the running server's own answers when none is named.
#[derive(Debug, Args)]
pub(crate) struct AuditRoad {
    /// From the repository alone: the newest backup and all WAL, in a scratch folder.
    #[arg(long, conflicts_with_all = ["database", "from_backup", "archive"])]
    pub(crate) from_wal: bool,
    /// The same to the end of a backup; of the newest complete one when none is named.
    #[arg(long, value_name = "ID", num_args = 0..=1, conflicts_with_all = ["database", "archive"])]
    pub(crate) from_backup: Option<Option<String>>,
    /// From what `bre audit archive` put into the repository, or into another folder, with the archive's key alone; or from a file that `bre audit export` wrote.
    #[arg(long, value_name = "FOLDER|FILE", num_args = 0..=1, conflicts_with = "database")]
    pub(crate) archive: Option<Option<String>>,
    /// Where the scratch folder is made; DIR/proof when absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditReopenArgs {
    /// What happened and why it is accepted; stands in the log for ever.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct AuditProveArgs {
    /// Of a quote or a locate.
    #[arg(required_unless_present = "position", conflicts_with = "position")]
    pub(crate) id: Option<String>,
    /// Which step of a locate's life; its newest when absent.
    #[arg(long, value_name = "N", requires = "id")]
    pub(crate) step: Option<u32>,
    /// Of this entry, whatever it is.
    #[arg(long, value_name = "N")]
    pub(crate) position: Option<u64>,
    /// Write it there instead of printing it; nothing is overwritten.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) audit: AuditArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AuditFollowArgs {
    /// Where one origin of the log is shown: https://ENGINE/log/log-1/1, or that folder below its public folder.
    pub(crate) at: String,
    /// The log's public key (audit_signing.pub), as got from whom the log belongs to; several may be trusted.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) key: Vec<PathBuf>,
    /// The checkpoint of the last look: compared, and replaced when all is well. Made at the first look.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Verifier keys of witnesses whose signatures are looked for.
    #[arg(long, value_name = "KEY")]
    pub(crate) witness: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SigningKeyCommand {
    /// The key that signs now, all that verifications trust, and every statement about them.
    Show(RepositoryArgs),
    /// Make a new key, let the old one vouch for it, and sign with it from now on; finishes what was interrupted. The engine must run.
    Rotate {
        /// The old key ends as well: what it signs from here on is refused. For a key that may have been stolen.
        #[arg(long)]
        revoke_old: bool,
        /// From which position on the old key counts no more; the first that it has not signed when absent.
        #[arg(long, value_name = "N", requires = "revoke_old")]
        from: Option<u64>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// End a key that was replaced: heads and openings at or above that position, signed by it, are refused. The engine must run.
    Revoke {
        /// Its id, as `show` prints it.
        id: String,
        #[arg(long, value_name = "N")]
        from: u64,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
}

/// Signs, at another site, that a log only grew.
#[derive(Debug, Subcommand)]
pub(crate) enum WitnessCommand {
    /// Serve tlog-witness; ends on SIGTERM.
    Run {
        /// Its own folder: its key, and what it signed last.
        #[arg(long, value_name = "DIR")]
        folder: PathBuf,
        /// The name that it signs by, such as witness.example/one.
        #[arg(long)]
        name: String,
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8010")]
        listen: std::net::SocketAddr,
        /// The verifier key of a log to watch (a line of log-<n>/keys of its public folder); several for several logs, or keys of one.
        #[arg(long, value_name = "KEY", required = true)]
        log: Vec<String>,
    },
    /// Its verifier key, for [[audit.witnesses]] of the engine.
    Key {
        #[arg(long, value_name = "DIR")]
        folder: PathBuf,
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditKeyCommand {
    /// The key that the archive is sealed to, and who else can read it.
    Show(RepositoryArgs),
    /// Put a new key beside the old one, as [audit_key] says: rewrites no data, finishes what was interrupted. Needs the old private key.
    Rotate {
        /// Settings file; DIR/bre.toml when it is there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Delete the wraps of replaced keys, once everything opens with the current one.
    RetireOld {
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Read this database instead of the running instance's.
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}
