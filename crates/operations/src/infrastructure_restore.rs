//! What brings the infrastructure back: which documents, to where, and as whom, by the settings.

use control_plane::{
    aws::{
        Aws,
        iam::{IamKind, IamName},
    },
    git::{self, Files},
    terraform::{StateOrigin, Terraform, TerraformChanges},
};
use host::{instance::Instance, progress::Steps};
use recovery::infrastructure::{
    cloudformation::{self, StackProposal},
    documents_of_snapshot,
    iam::{self, IamPlan},
    terraform::{self, StatePlan, StateTarget},
};
use repository::snapshot::SnapshotReader;
use zeroize::Zeroizing;

use crate::{
    config::{self, TerraformConfig},
    error::Error,
    infrastructure::{client_for, repository},
};

/// Roles, policies, groups and users of a commit.
#[derive(Debug)]
pub struct IamRestore {
    aws: Aws,
    backup: Files,
    newest: Files,
    names: Vec<IamName>,
    pub commit: String,
}

impl IamRestore {
    /// `names`: as `role/api`; all where none is given.
    pub fn of(
        instance: &Instance,
        config: &config::Backup,
        commit: Option<&str>,
        names: &[String],
    ) -> Result<Self, Error> {
        let aws = client_for(config)?;
        let (folder, _) = repository(instance, config);
        let names = names
            .iter()
            .map(|name| name_of(name))
            .collect::<Result<_, _>>()?;
        let named = commit.unwrap_or("HEAD");
        let wanted = format!("{named}^{{commit}}");
        let found = git::text(
            &folder,
            &[
                "rev-parse",
                "--quiet",
                "--verify",
                "--end-of-options",
                &wanted,
            ],
        );
        let commit = found.map_err(|_| {
            let place = folder.display();
            Error::argument(
                "commit",
                named,
                format!("{place} has none of this name; git log there lists them"),
            )
        })?;
        let files = |commit: &str| {
            let files = git::files(
                &folder,
                commit,
                &[backup::infrastructure::iam::FOLDER],
                ".json",
            );
            files.map_err(|error| Error::failed(error.to_string()))
        };
        let commit = commit.trim().to_owned();
        Ok(Self {
            backup: files(&commit)?,
            newest: files("HEAD")?,
            aws,
            names,
            commit,
        })
    }

    pub fn plan(&self, steps: &Steps) -> Result<IamPlan, Error> {
        let newest = Some(&self.newest);
        Ok(iam::plan(
            &self.backup,
            newest,
            &self.names,
            &self.aws,
            steps,
        )?)
    }

    /// And reads back.
    pub fn apply(&self, plan: &IamPlan, steps: &Steps) -> Result<(), Error> {
        iam::apply(&self.backup, plan, &self.names, &self.aws, steps)?;
        Ok(())
    }
}

fn name_of(text: &str) -> Result<IamName, Error> {
    let parts = text.split_once('/');
    let known = parts.and_then(|(kind, name)| {
        let (kind, name) = (IamKind::of_word(kind)?, name.to_owned());
        Some(IamName { kind, name })
    });
    known.ok_or_else(|| {
        Error::argument(
            "name",
            text,
            "as role/api, policy/audit, group/desk or user/bob",
        )
    })
}

/// A stack of a snapshot.
#[derive(Debug)]
pub struct StackRestore {
    aws: Aws,
    documents: Files,
    stack: String,
}

impl StackRestore {
    pub fn of(
        config: &config::Backup,
        reader: &SnapshotReader,
        stack: &str,
    ) -> Result<Self, Error> {
        Ok(Self {
            aws: client_for(config)?,
            documents: documents_of_snapshot(reader)?,
            stack: stack.to_owned(),
        })
    }

    /// None: nothing differs.
    pub fn propose(&self, steps: &Steps) -> Result<Option<StackProposal>, Error> {
        Ok(cloudformation::propose(
            &self.documents,
            &self.stack,
            &self.aws,
            steps,
        )?)
    }

    pub fn execute(&self, proposal: &StackProposal, steps: &Steps) -> Result<(), Error> {
        Ok(cloudformation::execute(
            &self.documents,
            proposal,
            &self.aws,
            steps,
        )?)
    }

    pub fn discard(&self, proposal: &StackProposal, steps: &Steps) -> Result<(), Error> {
        Ok(cloudformation::discard(proposal, &self.aws, steps)?)
    }
}

/// A state of Terraform, of a snapshot.
#[derive(Debug)]
pub struct StateRestore {
    aws: Aws,
    content: Zeroizing<Vec<u8>>,
    terraform: Terraform,
    place: StateOrigin,
    settings: TerraformConfig,
}

impl StateRestore {
    /// None: this component is no state of Terraform that the settings name.
    pub fn of(
        config: &config::Backup,
        component: &str,
        reader: &SnapshotReader,
    ) -> Result<Option<Self>, Error> {
        let states = &config.infrastructure.terraform;
        let found = component.strip_prefix("terraform_");
        let found = found.and_then(|name| Some((name, states.get(name)?)));
        let Some((name, settings)) = found else {
            return Ok(None);
        };
        let refused = |reason| Error::refused("nothing was restored", reason);
        let document = reader.document(backup::infrastructure::terraform::STATE);
        let document = document.ok_or_else(|| refused("the snapshot holds no state".to_owned()))?;
        Ok(Some(Self {
            aws: match settings.needs_aws() {
                true => client_for(config)?,
                false => Aws::default(),
            },
            content: reader.read(document)?,
            terraform: settings.client(name).map_err(refused)?,
            place: settings.origin().map_err(refused)?,
            settings: settings.clone(),
        }))
    }

    fn target(&self) -> StateTarget<'_> {
        StateTarget {
            terraform: &self.terraform,
            workspace: self.settings.workspace(),
            place: &self.place,
            lock_table: self.settings.lock_table.as_deref(),
            aws: &self.aws,
        }
    }

    pub fn plan(&self, steps: &Steps) -> Result<StatePlan, Error> {
        Ok(terraform::plan(&self.content, &self.target(), steps)?)
    }

    /// What `terraform plan` says afterwards.
    pub fn apply(&self, plan: &StatePlan, steps: &Steps) -> Result<TerraformChanges, Error> {
        Ok(terraform::apply(
            &self.content,
            plan,
            &self.target(),
            steps,
        )?)
    }
}
