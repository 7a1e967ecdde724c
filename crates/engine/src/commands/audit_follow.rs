//! `bre audit follow`: an outsider's look at a log, from its public folder or address alone: the newest checkpoint, and that it continues
//! one that was kept before. Needs no instance, no database, no repository.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use audit::{
    Checkpoint, Hash, LeftBehind, Note, NoteError, NoteKey, TileId, TiledTree, TreeError,
    VerifyingKey, is_consistent, read_tile,
};
use host::files::write_whole;
use serde::Serialize;

use crate::{cli::AuditFollowArgs, error::Error};

/// A file of the log is one tile, or a note.
const FILE_BYTES_MAX: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the log is shown: an address, or a folder.
enum LogSource {
    Address(reqwest::Client, String),
    Folder(PathBuf),
}

#[derive(Debug, Serialize)]
struct FollowReport {
    origin: String,
    size: u64,
    root: String,
    /// The size of the checkpoint that was kept; null: there was none.
    before: Option<u64>,
    /// Of the origin before this one, when this one began by leaving entries behind.
    left_behind: Option<String>,
    /// The position behind which its tree begins; 0: it begins with the log.
    begins_behind: u64,
    /// Names of the witnesses that signed the newest checkpoint that any signed.
    witnesses: Vec<String>,
    consistent: bool,
    /// Why not.
    reason: Option<String>,
}

fn failed(what: impl Into<String>) -> Error {
    Error::failed(what)
}

pub(super) async fn run(json: bool, args: &AuditFollowArgs) -> Result<ExitCode, Error> {
    let keys = args
        .key
        .iter()
        .map(VerifyingKey::load)
        .collect::<Result<Vec<_>, _>>()?;
    let shown = LogSource::at(&args.at)?;
    let witnesses = args
        .witness
        .iter()
        .map(|text| witness_key(text))
        .collect::<Result<Vec<_>, _>>()?;
    let before = kept(&args.checkpoint, &keys)?;
    let (new, note) = shown.checkpoint("checkpoint", &keys).await?;
    let mut followed = FollowReport {
        origin: new.origin.clone(),
        size: new.size,
        root: new.root.to_string(),
        before: before.as_ref().map(|before| before.size),
        left_behind: None,
        begins_behind: new
            .begins_behind()
            .map_err(|error| failed(error.to_string()))?,
        witnesses: Vec::new(),
        consistent: true,
        reason: None,
    };
    let left = new
        .left_behind()
        .map_err(|error| failed(error.to_string()))?;
    followed.left_behind = left.as_ref().map(ToString::to_string);
    followed.reason = match &before {
        None => shown.leads(&new, None).await?,
        Some(old) if old.origin == new.origin => shown.leads(&new, Some(old)).await?,
        Some(old) => of_another(old, &new, left.as_ref()),
    };
    followed.consistent = followed.reason.is_none();
    followed.witnesses = shown.witnesses(&new, &keys, &witnesses).await?;
    if followed.consistent
        && let Some(file) = &args.checkpoint
    {
        // The next look begins here.
        write_whole(file, &note.to_bytes(), 0o644)?;
    }
    terminal::result(json, &followed, || followed.sentences());
    Ok(match followed.consistent {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn witness_key(text: &str) -> Result<NoteKey, Error> {
    text.parse().map_err(|error: audit::NoteError| {
        Error::argument("key of a witness", text.to_owned(), error.to_string())
    })
}

/// What was kept at the last look, if there was one.
fn kept(file: &Option<PathBuf>, keys: &[VerifyingKey]) -> Result<Option<Checkpoint>, Error> {
    let Some(file) = file else {
        return Ok(None);
    };
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("cannot read", file)(error)),
    };
    let wrong = |error: audit::NoteError| failed(format!("{}: {error}", file.display()));
    let note = Note::parse(&bytes).map_err(wrong)?;
    Checkpoint::verify(&note, keys).map(Some).map_err(wrong)
}

/// Whether a log of another origin may follow the one that was kept: it has to say where that one ended.
fn of_another(old: &Checkpoint, new: &Checkpoint, left: Option<&LeftBehind>) -> Option<String> {
    let Some(left) = left.filter(|left| left.origin == old.origin) else {
        return Some(format!(
            "{} does not say that it follows {}, which was kept",
            new.origin, old.origin
        ));
    };
    let other_tree = left.size == old.size && left.root.is_some_and(|root| root != old.root);
    (left.size < old.size || other_tree).then(|| {
        format!(
            "{} says that {} ended with {} entries, and its checkpoint of {} was kept: the log hides what it published",
            new.origin, old.origin, left.size, old.size
        )
    })
}

impl LogSource {
    fn at(at: &str) -> Result<Self, Error> {
        if !at.starts_with("http://") && !at.starts_with("https://") {
            return Ok(Self::Folder(Path::new(at).to_owned()));
        }
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| failed(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self::Address(http, at.trim_end_matches('/').to_owned()))
    }

    async fn file(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(path);
                match fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::file("cannot read", &path)(error)),
                }
            }
            Self::Address(http, address) => {
                let url = format!("{address}/{path}");
                let unreachable = |error: reqwest::Error| {
                    Error::unreachable("cannot reach the log", format!("{url}: {error}"))
                };
                let mut response = http.get(&url).send().await.map_err(unreachable)?;
                match response.status().as_u16() {
                    200 => {}
                    404 => return Ok(None),
                    status => return Err(failed(format!("{url} answers {status}"))),
                }
                let mut bytes = Vec::new();
                while let Some(part) = response.chunk().await.map_err(unreachable)? {
                    bytes.extend_from_slice(&part);
                    if bytes.len() > FILE_BYTES_MAX {
                        return Err(failed(format!("{url} is longer than any file of a log")));
                    }
                }
                Ok(Some(bytes))
            }
        }
    }

    async fn checkpoint(
        &self,
        name: &str,
        keys: &[VerifyingKey],
    ) -> Result<(Checkpoint, Note), Error> {
        let bytes = self.file(name).await?;
        let bytes = bytes.ok_or_else(|| {
            failed(format!(
                "there is no {name} there: give the address of one origin, such as …/log/log-1/1"
            ))
        })?;
        let wrong = |error: audit::NoteError| failed(format!("{name}: {error}"));
        let note = Note::parse(&bytes).map_err(wrong)?;
        let checkpoint = Checkpoint::verify(&note, keys).map_err(wrong)?;
        Ok((checkpoint, note))
    }

    /// Who cosigned the newest checkpoint that anybody did; one that does not fit the newest of all is an error.
    async fn witnesses(
        &self,
        new: &Checkpoint,
        keys: &[VerifyingKey],
        known: &[NoteKey],
    ) -> Result<Vec<String>, Error> {
        if known.is_empty() || self.file("cosigned").await?.is_none() {
            return Ok(Vec::new());
        }
        let (cosigned, note) = self.checkpoint("cosigned", keys).await?;
        let mut names = Vec::new();
        for witness in known {
            match Checkpoint::verify_cosigned(&note, &new.origin, keys, witness) {
                Ok(_) => names.push(witness.name().to_owned()),
                Err(NoteError::Unsigned) => {}
                Err(error) => return Err(failed(format!("what witnesses signed: {error}"))),
            }
        }
        if cosigned.size <= new.size
            && let Some(why) = self.leads(new, Some(&cosigned)).await?
        {
            return Err(failed(format!(
                "the checkpoint that witnesses signed: {why}"
            )));
        }
        Ok(names)
    }

    /// Whether the tiles lead to the root, and from the older checkpoint to it. Tiles are got one after the other, as they are needed.
    async fn leads(
        &self,
        new: &Checkpoint,
        old: Option<&Checkpoint>,
    ) -> Result<Option<String>, Error> {
        if let Some(old) = old
            && old.size > new.size
        {
            return Ok(Some(format!(
                "it had {} entries and has {}: the log was cut",
                old.size, new.size
            )));
        }
        let mut tiles: HashMap<TileId, Vec<Hash>> = HashMap::new();
        loop {
            let mut tree = TiledTree::new(new.size, |id| tiles.get(&id).cloned().ok_or(id));
            let looked = tree.root().and_then(|root| {
                let proof = tree.consistency(old.map_or(0, |old| old.size))?;
                Ok((root, proof))
            });
            let id = match looked {
                Ok((root, _)) if root != new.root => {
                    return Ok(Some("its tiles do not lead to its root".to_owned()));
                }
                Ok((_, proof)) => {
                    let fits = old.is_none_or(|old| {
                        is_consistent((old.size, old.root), (new.size, new.root), &proof)
                    });
                    return Ok((!fits).then(|| {
                        "it does not continue the checkpoint that was kept: the log was rewritten"
                            .to_owned()
                    }));
                }
                Err(TreeError::Tile(id)) => id,
                Err(error) => return Err(failed(format!("{error:?}"))),
            };
            let bytes = self.file(&id.path()).await?;
            let hashes = bytes.as_deref().and_then(|bytes| read_tile(id, bytes));
            let hashes = hashes
                .ok_or_else(|| failed(format!("{} is not there, or is no tile", id.path())))?;
            tiles.insert(id, hashes);
        }
    }
}

impl FollowReport {
    fn sentences(&self) -> String {
        let mut text = format!("{} has {} entries\n", self.origin, self.size);
        if let Some(left) = &self.left_behind {
            text.push_str(&format!("{left}\n"));
        }
        if self.begins_behind > 0 {
            text.push_str(&format!(
                "its tree begins behind position {}: entries up to there are gone\n",
                self.begins_behind
            ));
        }
        for witness in &self.witnesses {
            text.push_str(&format!("signed by witness {witness}\n"));
        }
        match (&self.reason, self.before) {
            (Some(why), _) => text.push_str(&format!("NOT CONSISTENT: {why}\n")),
            (None, Some(before)) => text.push_str(&format!(
                "consistent: it continues what had {before} entries at the last look\n"
            )),
            (None, None) => text.push_str("its tiles lead to its root; nothing was kept before\n"),
        }
        text
    }
}
