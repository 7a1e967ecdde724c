//! What is known of a job from before this process: from the repository where it shows, else from the last run's file.

use backup::schedule::{Job, Past};
use repository::backup::{BackupKind, BackupState, BackupSummary};

use crate::jobs::Standing;

pub(super) fn past(job: Job, backups: &[BackupSummary], standing: &Standing) -> Past {
    let of_kind = |kind: BackupKind| {
        let of_it = backups.iter().filter(|backup| backup.kind == kind);
        of_it.map(|backup| backup.started_at_micros).max()
    };
    let recorded = standing.last_start(job);
    match job {
        Job::Full => Past {
            last_start_micros: of_kind(BackupKind::Full),
            pending: false,
        },
        Job::Incremental => Past {
            last_start_micros: of_kind(BackupKind::Incremental),
            pending: false,
        },
        Job::Expire => Past {
            last_start_micros: recorded,
            pending: recorded < of_kind(BackupKind::Full),
        },
        // Migrations run when the engine starts: it looks then, and at its appointments.
        Job::Schema => Past::default(),
        Job::AuditArchive => Past {
            last_start_micros: recorded,
            pending: false,
        },
        Job::Proof => {
            let proved = |backup: &BackupSummary| {
                backup
                    .restored_and_proved_at_micros
                    .max(backup.proof_failed_at_micros)
            };
            let newest = backups
                .iter()
                .rfind(|backup| backup.state == BackupState::Complete);
            Past {
                last_start_micros: recorded.max(backups.iter().filter_map(proved).max()),
                pending: newest.is_some_and(|newest| proved(newest).is_none()),
            }
        }
    }
}
