//! What is known of an audit log outside its database, before the database is asked.

use audit::{Hash, Head, SignedHead};

/// At the start of a writer.
#[derive(Debug, Clone, Default)]
pub struct KnownLog {
    /// Newest signed heads from places other than the repository's own `heads/`: they count like heads.
    pub anchors: Vec<SignedHead>,
    /// The epoch that was last opened on this host, and by what.
    pub claimed: Option<Claim>,
    /// Entries that something unsigned says there were.
    pub evidence: Vec<Evidence>,
    /// Why a log that is empty was not always so, where nothing says how far it went.
    pub existed: Option<String>,
    /// A person has said, twice, that all of the log is lost and that another shall take its place.
    pub continue_log: bool,
    /// What was found damaged and no person has looked at yet.
    pub damage: Option<String>,
    /// The end of the log as the process left it that found the damage.
    pub left_at: Option<SignedHead>,
}

/// Durable before an opening is committed, so that its number is never used again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claim {
    pub epoch: u32,
    /// The restore, or what else there was to open it for.
    pub by: String,
}

/// The audit archive, a restore test: the log had so many entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// In words, for whoever has to look for it.
    pub what: String,
    /// 0 where it is not told.
    pub epoch: u32,
    pub size: u64,
    pub hash: Option<Hash>,
}

impl Evidence {
    /// Whether a log that ends there is shorter than it was.
    #[must_use]
    pub fn is_beyond(&self, epoch: u32, position: u64) -> bool {
        // Of an earlier epoch, or of none that is told, a recovery since may have left entries behind.
        match self.epoch {
            0 => epoch <= 1 && self.size > position,
            of => of >= epoch && (of, self.size) > (epoch, position),
        }
    }

    /// As an opening names it.
    pub(crate) fn as_head(&self, log: u16) -> Option<Head> {
        Some(Head {
            log,
            epoch: (self.epoch > 0).then_some(self.epoch)?,
            size: self.size,
            last_hash: self.hash?,
            root: Hash::ZERO,
            peaks: Vec::new(),
            at_micros: 0,
            lsn: 0,
        })
    }
}

impl KnownLog {
    /// What says that there were entries, in words.
    pub(crate) fn says(&self, heads: &[Head]) -> Option<String> {
        if let Some(head) = heads.iter().max_by_key(|head| (head.epoch, head.size)) {
            return Some(format!(
                "a signed head says that it had {} entries in epoch {}",
                head.size, head.epoch
            ));
        }
        let most = self.evidence.iter().max_by_key(|it| (it.epoch, it.size))?;
        Some(format!(
            "{} says that it had {} entries",
            most.what, most.size
        ))
    }
}
