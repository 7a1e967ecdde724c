//! What a verification of the audit log knows besides the database: heads, anchors and thinnings, and which heads are missing.

use audit::{Anchoring, Head, SignedHead, Verdict, VerifyingKey, missing_heads};
use repository::Repository;
use serde::Serialize;

use crate::{
    anchors::{self, AnchorFile},
    config::Config,
    error::Error,
    heads,
    host::{instance::Instance, log::log_name},
    opened::Opened,
};

#[derive(Debug)]
pub(super) struct Outside {
    /// Verified: of the repository, and every anchor.
    pub(super) heads: Vec<Head>,
    /// Heads of the repository alone, and anchors.
    counted: usize,
    missing: Vec<(u32, u64)>,
    /// Objects that are no head that a trusted key signed: place and why.
    invalid: Vec<((u32, u64), String)>,
    pub(super) anchors: Vec<Anchor>,
}

/// One, as the report shows it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Anchor {
    /// `keys`, or the name of a further repository.
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Why it is not known what is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl Anchor {
    fn of(place: &str, head: &Head) -> Self {
        Self {
            place: place.to_owned(),
            epoch: Some(head.epoch),
            size: Some(head.size),
            trouble: None,
        }
    }
}

impl Outside {
    pub(super) fn gather(
        instance: &Instance,
        opened: &Opened,
        keys: &[VerifyingKey],
    ) -> Result<Self, Error> {
        let mut all = Self {
            heads: Vec::new(),
            counted: 0,
            missing: Vec::new(),
            invalid: Vec::new(),
            anchors: Vec::new(),
        };
        // Before the heads: an anchor is written after its head.
        let file = AnchorFile::read(&opened.keys)?;
        let mut named = None;
        if let Some(file) = &file {
            named = heads::anchored_in(file, &opened.repository)?;
            if let Some(head) = file.head()? {
                let head = head.verify(keys)?;
                all.anchors.push(Anchor::of("keys", &head));
                all.heads.push(head);
            }
        }
        all.ask_further(instance, keys);
        let stored = all.stored(&opened.repository, keys)?;
        // After them: what goes meanwhile is on record first.
        let thinnings = heads::thinnings(&opened.repository, keys)?;
        all.missing = missing_heads(&stored, &thinnings, named.as_slice());
        all.counted = stored.len() + all.heads.len();
        for head in stored {
            all.heads.push(head.verify(keys)?);
        }
        Ok(all)
    }

    /// Of the settings of this instance, where there are any.
    fn ask_further(&mut self, instance: &Instance, keys: &[VerifyingKey]) {
        let Ok(config) = Config::load(None, instance.root()) else {
            return;
        };
        for far in anchors::of_further(&config.repositories) {
            let verified = far.heads.map(|heads| {
                let verified = heads.iter().filter_map(|head| head.verify(keys).ok());
                verified.collect::<Vec<Head>>()
            });
            match verified {
                Ok(heads) => {
                    for head in heads {
                        self.anchors.push(Anchor::of(&far.name, &head));
                        self.heads.push(head);
                    }
                }
                Err(trouble) => self.anchors.push(Anchor {
                    place: far.name,
                    epoch: None,
                    size: None,
                    trouble: Some(trouble),
                }),
            }
        }
    }

    /// Heads whose names say what they are and that a trusted key signed.
    fn stored(
        &mut self,
        repository: &Repository,
        keys: &[VerifyingKey],
    ) -> Result<Vec<SignedHead>, Error> {
        let mut good = Vec::new();
        for object in repository::heads::heads(repository, &log_name())? {
            let place = (object.epoch, object.size);
            let read = SignedHead::from_json(&object.bytes);
            let read = read.and_then(|head| head.verify(keys).map(|_| head));
            match read {
                Ok(head) if (head.claimed().epoch, head.claimed().size) == place => good.push(head),
                Ok(head) => {
                    let (epoch, size) = (head.claimed().epoch, head.claimed().size);
                    let why = format!("it holds the head of epoch {epoch} at size {size}");
                    self.invalid.push((place, why));
                }
                Err(error) => self.invalid.push((place, error.to_string())),
            }
        }
        Ok(good)
    }

    /// The verdict, and the report that says why.
    pub(super) fn judge(&self, report: &mut audit::Report) -> Verdict {
        if let (Some(((epoch, size), why)), true) = (self.invalid.first(), report.is_sound()) {
            report.first_bad = Some(audit::BadEntry {
                epoch: i64::from(*epoch),
                position: i64::try_from(*size).unwrap_or(i64::MAX),
            });
            report.reason = Some(format!(
                "the head that lies in the repository for epoch {epoch} at size {size} is none: {why}"
            ));
        }
        report.anchored(&Anchoring {
            heads: self.counted,
            missing: &self.missing,
            now_micros: jiff::Timestamp::now().as_microsecond(),
        })
    }

    /// Lines about what is known from elsewhere.
    pub(super) fn sentences(&self) -> String {
        let mut text = String::new();
        for anchor in &self.anchors {
            let place = &anchor.place;
            match (anchor.epoch, anchor.size, &anchor.trouble) {
                (Some(epoch), Some(size), _) => {
                    text.push_str(&format!("anchor in {place}: epoch {epoch} size {size}\n"));
                }
                (.., trouble) => text.push_str(&format!(
                    "anchor in {place}: not known ({})\n",
                    trouble.as_deref().unwrap_or("no reason given")
                )),
            }
        }
        text
    }
}
