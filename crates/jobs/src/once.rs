//! One run of one job, in the process that a person started for it.

use std::{path::Path, sync::Arc};

use crate::{
    driver::refuse_beside,
    error::{Error, Result},
    job::{Availability, RunContext},
    record::{End, Origin, RunRecord},
    records::{Archive, Records},
    registry::Registry,
    schedule::Cause,
};

/// Where its record goes.
#[derive(Clone, Copy)]
pub struct OneRun<'a> {
    /// As a driver's.
    pub root: &'a Path,
    pub archive: Option<&'a dyn Archive>,
    pub host: &'a str,
}

impl std::fmt::Debug for OneRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneRun")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl OneRun<'_> {
    /// Now, in this thread, also while the job is paused. A driver of the same folder starts nothing beside it that it
    /// would not start beside a run of its own, and takes the record into account.
    ///
    /// # Errors
    /// When there is no such job, it cannot run here, one that shares a lock with it runs (it itself, where it has
    /// one), or the record cannot be made durable.
    pub fn run(&self, registry: &Registry, name: &str, context: &RunContext) -> Result<RunRecord> {
        let spec = registry.find(name)?;
        let place = registry.place(name).unwrap_or_default();
        let job = Arc::clone(registry.job(place));
        let refused = |reason: String| Error::Refused {
            job: spec.name.clone(),
            reason,
        };
        match job.availability() {
            Availability::Ready => {}
            Availability::Unavailable(reason) | Availability::Waiting(reason) => {
                return Err(refused(reason));
            }
        }
        refuse_beside(registry, spec, self.root)?;
        let asked = now_micros();
        let origin = Origin {
            job: &spec.name,
            component: &spec.component,
            driver: &format!("{}-{:08x}", self.host, rand::random::<u32>()),
            schedule: spec.trigger.to_string(),
            claims: Vec::new(),
        };
        let mut record = RunRecord::begun(origin, Cause::Request, asked, asked);
        let open = Records::open_run(self.root, &record)?;
        let end = match job.run(context) {
            Ok(report) => End::of(report, context),
            Err(reason) if context.is_cancelled() => End::Cancelled(reason),
            Err(reason) => End::Failed(reason),
        };
        record.end(end, now_micros());
        Records::close_run(self.root, open, &record)?;
        if let Some(archive) = self.archive
            && let Err(error) = archive.put(&record.name(), &record.to_bytes())
        {
            tracing::warn!(
                error,
                "the record is not in the repository yet; the engine puts it there"
            );
        }
        Ok(record)
    }
}

fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
