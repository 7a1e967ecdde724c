//! `bre api-key`.

use super::*;

#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeyCommand {
    /// Make a key for a client, or an operator's token; it is shown once.
    Create {
        /// The client whose locates it may price; of an operator's token, its holder's name.
        #[arg(long, required_unless_present = "operator")]
        client: Option<String>,
        /// standard, premium or internal; standard for clients, internal for operators when absent.
        #[arg(long)]
        tier: Option<String>,
        /// A token for administration over HTTP; it prices nothing.
        #[arg(long)]
        operator: bool,
    },
    /// A new key in place of this one, which goes on working until the overlap is over.
    Rotate {
        id: String,
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(0..=720))]
        overlap_hours: u16,
    },
    /// List keys (never the secrets).
    List,
    /// Revoke a key at once.
    Revoke { id: String },
}
