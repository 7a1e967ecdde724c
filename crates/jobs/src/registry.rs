//! All jobs of a plan, and what holds between them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    error::{Error, Result},
    job::{Job, JobSpec, RunContext, RunReport},
    schedule::{After, Trigger, is_name},
};

/// Checked: no two of one name, none follows an unknown job, no circle.
#[derive(Clone, Default)]
pub struct Registry {
    jobs: Vec<Arc<dyn Job>>,
    specs: Vec<JobSpec>,
    after: Vec<Vec<usize>>,
    covered_by: Vec<Vec<usize>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.specs.iter().map(|spec| &spec.name))
            .finish()
    }
}

impl Registry {
    /// # Errors
    /// What is wrong with the plan, naming the jobs.
    pub fn new(jobs: Vec<Arc<dyn Job>>) -> Result<Self> {
        let specs: Vec<JobSpec> = jobs.iter().map(|job| job.spec()).collect();
        let mut registry = Self {
            jobs,
            after: Vec::new(),
            covered_by: Vec::new(),
            specs,
        };
        registry.check_names()?;
        registry.after = registry
            .specs
            .iter()
            .map(|spec| registry.after_of(spec))
            .collect::<Result<_>>()?;
        registry.covered_by = registry
            .specs
            .iter()
            .map(|spec| registry.covered_by_of(spec))
            .collect::<Result<_>>()?;
        registry.check_circles()?;
        Ok(registry)
    }

    /// Whether a plan of these would be one: for settings that are looked at and not run.
    ///
    /// # Errors
    /// As [`Registry::new`].
    pub fn check(specs: Vec<JobSpec>) -> Result<()> {
        let jobs = specs
            .into_iter()
            .map(|spec| -> Arc<dyn Job> { Arc::new(Unrun(spec)) });
        Self::new(jobs.collect()).map(drop)
    }

    fn check_names(&self) -> Result<()> {
        let mut seen = BTreeMap::new();
        for (place, spec) in self.specs.iter().enumerate() {
            if !is_name(&spec.name) || !spec.name.contains('.') {
                return Err(Error::Name(spec.name.clone()));
            }
            for name in spec.aliases.iter().chain([&spec.name]) {
                if seen.insert(name.clone(), place).is_some() {
                    return Err(Error::TwoOfOneName(name.clone()));
                }
            }
        }
        Ok(())
    }

    fn after_of(&self, spec: &JobSpec) -> Result<Vec<usize>> {
        let unknown = |after: &str| Error::UnknownAfter {
            job: spec.name.clone(),
            after: after.to_owned(),
            known: self.names(),
        };
        match &spec.trigger {
            Trigger::After(After::Jobs(names)) => {
                let place = |name: &String| self.place(name).ok_or_else(|| unknown(name));
                names.iter().map(place).collect()
            }
            Trigger::After(After::Every(group)) => {
                let of_group = |other: &JobSpec| other.group.as_ref() == Some(group);
                let places = (0..self.specs.len()).filter(|place| of_group(&self.specs[*place]));
                let places: Vec<usize> = places.collect();
                match places.is_empty() {
                    true => Err(unknown(&format!("every {group}"))),
                    false => Ok(places),
                }
            }
            _ => Ok(Vec::new()),
        }
    }

    fn covered_by_of(&self, spec: &JobSpec) -> Result<Vec<usize>> {
        let place = |name: &String| self.place(name).ok_or_else(|| self.unknown(name));
        spec.covered_by.iter().map(place).collect()
    }

    fn check_circles(&self) -> Result<()> {
        for start in 0..self.specs.len() {
            let mut path = vec![start];
            if self.leads_back(start, &mut path) {
                let names = path.iter().map(|place| self.specs[*place].name.clone());
                return Err(Error::Circle(names.collect()));
            }
        }
        Ok(())
    }

    fn leads_back(&self, start: usize, path: &mut Vec<usize>) -> bool {
        let Some(last) = path.last().copied() else {
            return false;
        };
        for next in &self.after[last] {
            if *next == start {
                path.push(start);
                return true;
            }
            if path.contains(next) {
                continue;
            }
            path.push(*next);
            if self.leads_back(start, path) {
                return true;
            }
            path.pop();
        }
        false
    }

    /// Of a job by its name, or by another that it goes by.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        let goes_by =
            |spec: &JobSpec| spec.name == name || spec.aliases.iter().any(|alias| alias == name);
        self.specs.iter().position(goes_by)
    }

    /// # Errors
    /// When no job is called so; names those that there are.
    pub fn find(&self, name: &str) -> Result<&JobSpec> {
        let place = self.place(name).ok_or_else(|| self.unknown(name))?;
        Ok(&self.specs[place])
    }

    fn unknown(&self, name: &str) -> Error {
        Error::UnknownJob {
            name: name.to_owned(),
            known: self.names(),
        }
    }

    #[must_use]
    pub fn specs(&self) -> &[JobSpec] {
        &self.specs
    }

    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.specs.iter().map(|spec| spec.name.clone()).collect()
    }

    pub(crate) fn job(&self, place: usize) -> &Arc<dyn Job> {
        &self.jobs[place]
    }

    pub(crate) fn after(&self, place: usize) -> &[usize] {
        &self.after[place]
    }

    pub(crate) fn covered_by(&self, place: usize) -> &[usize] {
        &self.covered_by[place]
    }
}

struct Unrun(JobSpec);

impl Job for Unrun {
    fn spec(&self) -> JobSpec {
        self.0.clone()
    }

    fn run(&self, _: &RunContext) -> Result<RunReport, String> {
        Err("it is only looked at".to_owned())
    }
}
