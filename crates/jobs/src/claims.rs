//! Which of two drivers of one plan is the one that starts jobs.

/// Nothing is safe because of a claim: a job that runs twice wastes work and harms nothing. Claims keep that rare.
pub trait Claims: Send {
    /// What goes into records: `instance`, `database`, `repository`.
    fn name(&self) -> &'static str;

    /// Takes it, or keeps it. Asked every second: it may not wait for anything that is away.
    fn hold(&mut self) -> Claim;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Since it was last asked, without a gap.
    Held,
    /// Just now: somebody else may have had it since it was last asked.
    Taken,
    /// By whom.
    Elsewhere(String),
    /// It cannot be told, and why.
    Unknown(String),
}

/// What all claims to a plan say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimStatus {
    pub held: Vec<String>,
    /// Those of them that were not lost since it was last asked.
    pub kept: Vec<String>,
    pub elsewhere: Option<String>,
}

impl ClaimStatus {
    pub fn of(claims: &mut [Box<dyn Claims>]) -> Self {
        let mut standing = Self::default();
        for claim in claims {
            match claim.hold() {
                Claim::Held => {
                    standing.held.push(claim.name().to_owned());
                    standing.kept.push(claim.name().to_owned());
                }
                Claim::Taken => standing.held.push(claim.name().to_owned()),
                Claim::Elsewhere(who) => {
                    standing.elsewhere.get_or_insert(who);
                }
                Claim::Unknown(reason) => tracing::debug!(
                    claim = claim.name(),
                    reason,
                    "a claim to the plan cannot be told"
                ),
            }
        }
        standing
    }

    /// One that is known to be elsewhere is enough to wait; when none can be told the work is worth more than the
    /// risk of doing it twice.
    #[must_use]
    pub fn may_start(&self) -> bool {
        self.elsewhere.is_none()
    }
}
