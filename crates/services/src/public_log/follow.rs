//! From published heads to checkpoints: the hashes of new entries are read, the root is computed again, and only then anything is shown.

use std::sync::Arc;
use std::time::Duration;

use audit::{
    Checkpoint, Entry, EpochRecord, Hash, LeftBehind, Origin, SignedHead, TILE_WIDTH, TileId,
    TileTree, VerifyingKey, tile_bytes,
};
use connection::Landing;
use tokio_postgres::Client;

use super::folder::Resource;
use super::{PublicLog, PublishedTree};
use crate::data::{MarketRefresher, Session, connect};

/// Between two checkpoints, and before what failed is tried again.
const EVERY: Duration = Duration::from_secs(1);
/// So many hashes are held until their root is checked; more are read twice.
const HELD_MAX: u64 = 1 << 16;
/// Hashes asked for at once.
const ROWS: u64 = 8192;

/// The tree as far as it was written, and what its log says of itself.
struct Grown {
    origin: Origin,
    extensions: Vec<String>,
    /// The epochs of its entries, and where each begins.
    begins: Vec<(u32, u64)>,
    epoch: u32,
    /// The tree begins behind this position: what was before is gone, in part, with its hashes.
    behind: u64,
    tree: TileTree,
    /// Hash of the last entry in the tree.
    last: Option<Hash>,
    /// The origin's first checkpoint is in the repository.
    first_is_kept: bool,
    /// As they are shown.
    keys: Vec<VerifyingKey>,
}

impl Grown {
    /// The position of the last entry in the tree.
    fn end(&self) -> u64 {
        self.behind + self.tree.size()
    }
}

impl PublicLog {
    /// Follows until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, refresher: Arc<MarketRefresher>) {
        let mut heads = self.heads.published();
        heads.mark_changed();
        let mut session = None;
        let mut grown = None;
        while heads.changed().await.is_ok() {
            let head = heads.borrow_and_update().clone();
            let Some(head) = head else { continue };
            let mut done = self
                .publish(&refresher, &mut session, &mut grown, &head)
                .await;
            if done.is_err() {
                // From the beginning, on a new connection: the database may be another one since.
                (session, grown) = (None, None);
                done = self
                    .publish(&refresher, &mut session, &mut grown, &head)
                    .await;
            }
            match done {
                Ok(()) => self.set_trouble(None),
                Err(why) => {
                    (session, grown) = (None, None);
                    self.set_trouble(Some(why));
                    // Tried again although no newer head came.
                    heads.mark_changed();
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn publish(
        self: &Arc<Self>,
        refresher: &MarketRefresher,
        session: &mut Option<Session>,
        grown: &mut Option<Grown>,
        head: &SignedHead,
    ) -> Result<(), String> {
        let claimed = head.claimed();
        if session.is_none() {
            let target = refresher.target();
            let opened = connect(&target, "bre public log", Landing::Any).await;
            *session = Some(opened.map_err(|error| error.to_string())?);
        }
        let Some(open) = session.as_ref() else {
            return Ok(());
        };
        let client = &open.client;
        // One look at the database, however often it is asked.
        let query = |error: tokio_postgres::Error| crate::data::describe(&error);
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .await
            .map_err(query)?;
        let done = self.publish_in(client, grown, head).await;
        client.batch_execute("ROLLBACK").await.map_err(query)?;
        if done? {
            self.told.send_replace(claimed.size);
        }
        Ok(())
    }

    /// False: the head is none of the log that is here, which a recovery left behind.
    async fn publish_in(
        self: &Arc<Self>,
        client: &Client,
        grown: &mut Option<Grown>,
        head: &SignedHead,
    ) -> Result<bool, String> {
        let claimed = head.claimed();
        if grown
            .as_ref()
            .is_none_or(|grown| grown.epoch != claimed.epoch)
        {
            let Some(openings) = self.openings(client, claimed.epoch).await? else {
                return Ok(false);
            };
            let began = Origin::began_by(&openings);
            let begins = self.begins(client, &openings).await?;
            *grown = match grown.take() {
                Some(before) if before.origin.began == began && before.end() <= claimed.size => {
                    Some(Grown {
                        begins,
                        epoch: claimed.epoch,
                        ..before
                    })
                }
                _ => Some(
                    self.resume((openings, begins), claimed.epoch, began, claimed.size)
                        .await?,
                ),
            };
        }
        let Some(grown) = grown.as_mut() else {
            return Ok(false);
        };
        if grown.end() > claimed.size {
            return Ok(false);
        }
        let tree = self.grow(client, grown, head).await?;
        let note = Checkpoint {
            origin: grown.origin.to_string(),
            size: tree.size(),
            root: tree.root(),
            extensions: grown.extensions.clone(),
        };
        let note = note
            .sign(&self.heads.signing_key())
            .map_err(|error| error.to_string())?;
        let published = Arc::new(PublishedTree {
            origin: grown.origin.clone(),
            head: head.clone(),
            behind: grown.behind,
            partial: tree.partial().map(|tile| (tile.id, tile.hashes)).collect(),
            note,
        });
        let (log, shown) = (Arc::clone(self), Arc::clone(&published));
        let first_is_kept = grown.first_is_kept;
        on_a_thread(move || log.show_checkpoint(&shown, first_is_kept)).await?;
        grown.first_is_kept = true;
        let keys = self.heads.trusted();
        if keys != grown.keys {
            let log = Arc::clone(self);
            on_a_thread(move || log.show_keys()).await?;
            grown.keys = keys;
        }
        (grown.tree, grown.last) = (tree, Some(claimed.last_hash));
        self.published.store(Some(published));
        Ok(true)
    }

    /// What opened the epochs of this log, to the given one. `None`: that is not in it.
    async fn openings(
        &self,
        client: &Client,
        epoch: u32,
    ) -> Result<Option<Vec<EpochRecord>>, String> {
        let entries = crate::data::openings_in(client, self.log)
            .await
            .map_err(|error| error.to_string())?;
        let keys = self.heads.trusted();
        let read = |entry: &Entry| {
            EpochRecord::of(entry, &keys)
                .map_err(|error| format!("the opening of epoch {}: {error}", entry.epoch))
        };
        let mut openings = entries
            .iter()
            .filter(|entry| entry.epoch <= epoch)
            .map(read)
            .collect::<Result<Vec<_>, _>>()?;
        openings.sort_by_key(|opening| opening.position);
        let is_here = openings.last().is_some_and(|last| last.epoch == epoch);
        Ok(is_here.then_some(openings))
    }

    /// The opening of the epoch right behind a hole may be gone with the others: its first entry says which it is.
    async fn begins(
        &self,
        client: &Client,
        openings: &[EpochRecord],
    ) -> Result<Vec<(u32, u64)>, String> {
        let all = openings.iter().map(|it| (it.epoch, it.position));
        let behind = Origin::begins_behind(openings);
        if behind == 0 {
            return Ok(all.collect());
        }
        let first = behind + 1;
        let sql =
            "SELECT epoch FROM audit_log WHERE log = $1 AND position = $2 ORDER BY epoch LIMIT 1";
        let position = i64::try_from(first).unwrap_or(i64::MAX);
        let row = client
            .query_opt(sql, &[&self.log.cast_signed(), &position])
            .await
            .map_err(|error| crate::data::describe(&error))?;
        let epoch = row.and_then(|row| u32::try_from(row.get::<_, i32>(0)).ok());
        let epoch = epoch
            .ok_or_else(|| format!("entry {first} is not in the database: run bre verify audit"))?;
        let later = all.filter(|(_, position)| *position > first);
        Ok(std::iter::once((epoch, first)).chain(later).collect())
    }

    async fn resume(
        self: &Arc<Self>,
        (openings, begins): (Vec<EpochRecord>, Vec<(u32, u64)>),
        epoch: u32,
        began: u32,
        size: u64,
    ) -> Result<Grown, String> {
        let log = Arc::clone(self);
        on_a_thread(move || {
            let origin = Origin {
                name: log.name.clone(),
                log: log.log,
                began,
            };
            let published = log.store.origins()?;
            let left = log.left_behind(&openings, began, &published)?;
            let behind = Origin::begins_behind(&openings);
            let line = audit::begins_behind_line(behind);
            let left = left.iter().map(ToString::to_string);
            let (tree, last) = log.resume_tree(began, size.saturating_sub(behind))?;
            log.refill(began, tree.size())?;
            log.show_origins(&published, began)?;
            log.show_keys()?;
            Ok(Grown {
                origin,
                extensions: left.chain(line).collect(),
                begins,
                epoch,
                behind,
                tree,
                last,
                first_is_kept: published.contains(&began),
                keys: log.heads.trusted(),
            })
        })
        .await
    }

    /// What an origin that is not the first says of the one before.
    fn left_behind(
        &self,
        openings: &[EpochRecord],
        began: u32,
        published: &[u32],
    ) -> Result<Option<LeftBehind>, String> {
        let opening = openings.iter().find(|opening| opening.epoch == began);
        let Some(opening) = opening.filter(|_| began > 1) else {
            return Ok(None);
        };
        // The one before is of the newest epoch that was left.
        let newest = opening
            .old_heads
            .iter()
            .max_by_key(|head| (head.epoch, head.size));
        let Some(newest) = newest.filter(|head| head.size > 0) else {
            return Ok(None);
        };
        let before = published
            .iter()
            .rfind(|k| **k <= newest.epoch)
            .copied()
            .unwrap_or(1);
        // The opening names its last hash alone; the root is worth as much as the head's signature.
        let head = self.store.head(newest.epoch, newest.size)?;
        let trusted = self.heads.trusted();
        let head = head.filter(|head| {
            head.claimed().last_hash == newest.hash && head.verify(&trusted).is_ok()
        });
        Ok(Some(LeftBehind {
            origin: Origin {
                name: self.name.clone(),
                log: self.log,
                began: before,
            }
            .to_string(),
            size: newest.size,
            root: head.map(|head| head.claimed().root),
        }))
    }

    /// The tree as far as its full tiles are kept. Those of one level are put in order, and above before below, so the ones that are
    /// there are the first ones.
    fn resume_tree(&self, began: u32, size: u64) -> Result<(TileTree, Option<Hash>), String> {
        let tile = |id: TileId| -> Result<Option<Vec<Hash>>, String> {
            let bytes = self.store.tile(began, id)?;
            Ok(bytes.and_then(|bytes| audit::read_tile(id, &bytes)))
        };
        let (mut kept, mut missing) = (0, size / TILE_WIDTH);
        while kept < missing {
            let middle = kept + (missing - kept) / 2;
            match tile(TileId::full(0, middle))? {
                Some(_) => kept = middle + 1,
                None => missing = middle,
            }
        }
        let resumed = TileTree::resume(kept * TILE_WIDTH, Vec::new(), |id| {
            tile(id)?.ok_or_else(|| format!("{} is missing from the repository", id.path()))
        })?;
        let resumed = resumed.ok_or_else(|| "a tree of full tiles has no rest".to_owned())?;
        let last = match kept.checked_sub(1) {
            Some(index) => tile(TileId::full(0, index))?,
            None => None,
        };
        Ok((resumed, last.and_then(|hashes| hashes.last().copied())))
    }

    /// Full tiles that the folder has not got.
    fn refill(&self, began: u32, size: u64) -> Result<(), String> {
        let mut hashes = size;
        for level in 0u8.. {
            let full = hashes / TILE_WIDTH;
            for index in (0..full).rev() {
                let id = TileId::full(level, index);
                if self.folder.has(&Resource::tile(self.log, began, id)) {
                    break;
                }
                self.full_tile(began, id)?;
            }
            hashes = full;
            if hashes == 0 {
                break;
            }
        }
        Ok(())
    }

    fn show_origins(&self, published: &[u32], began: u32) -> Result<(), String> {
        let mut all = published.to_vec();
        all.push(began);
        all.sort_unstable();
        all.dedup();
        let lines: String = all
            .iter()
            .map(|began| {
                let origin = Origin {
                    name: self.name.clone(),
                    log: self.log,
                    began: *began,
                };
                format!("{origin}\n")
            })
            .collect();
        self.folder
            .put(&Resource::origins(self.log), lines.as_bytes())
    }

    /// The keys that sign, and what was said of them.
    fn show_keys(&self) -> Result<(), String> {
        let name = Origin::all(&self.name, self.log);
        let mut text = String::new();
        for key in self.heads.trusted() {
            let key = audit::NoteKey::new(&name, audit::SignatureKind::Plain, key)
                .map_err(|error| error.to_string())?;
            text.push_str(&format!("{key}\n"));
        }
        text.push('\n');
        for statement in self.store.statements()? {
            text.push_str(&String::from_utf8_lossy(&statement));
            text.push('\n');
        }
        self.folder.put(&Resource::keys(self.log), text.as_bytes())
    }

    /// The tree at the head, its new full tiles written.
    async fn grow(
        self: &Arc<Self>,
        client: &Client,
        grown: &Grown,
        head: &SignedHead,
    ) -> Result<TileTree, String> {
        let claimed = head.claimed();
        let (from, to) = (grown.end(), claimed.size);
        let stretches = stretches(&grown.begins, from, to);
        let began = grown.origin.began;
        let mut tree = grown.tree.clone();
        let (mut held, mut last) = (Vec::new(), grown.last);
        let hold = to - from <= HELD_MAX;
        for stretch in &stretches {
            let hashes = self
                .leaves(client, grown.behind, *stretch, &mut last)
                .await?;
            for hash in &hashes {
                tree.push(*hash);
            }
            if hold {
                held.extend(hashes);
            }
        }
        // Behind a hole the head's root is one over hashes that are gone; but each entry names the one before it, and
        // the head the last one.
        let is_signed = match grown.behind {
            0 => tree.root() == claimed.root,
            _ => last == Some(claimed.last_hash),
        };
        if !is_signed {
            return Err(format!(
                "the entries in the database up to position {to} do not lead to what the signed head says: run bre \
                 verify audit"
            ));
        }
        let mut writing = grown.tree.clone();
        if hold {
            self.write(began, &mut writing, held).await?;
            return Ok(writing);
        }
        let mut last = grown.last;
        for stretch in stretches {
            let hashes = self
                .leaves(client, grown.behind, stretch, &mut last)
                .await?;
            self.write(began, &mut writing, hashes).await?;
        }
        Ok(writing)
    }

    /// Hashes of the entries of an epoch, first to last. In a tree that begins behind a hole they are computed from the
    /// entries, each of which has to name the one before it.
    async fn leaves(
        &self,
        client: &Client,
        behind: u64,
        (epoch, first, last): (u32, u64, u64),
        before: &mut Option<Hash>,
    ) -> Result<Vec<Hash>, String> {
        if behind == 0 {
            return self.hashes(client, epoch, first, last).await;
        }
        let rows = self
            .column(client, "canonical", (epoch, first, last))
            .await?;
        let mut hashes = Vec::with_capacity(rows.len());
        for (position, bytes) in (first..).zip(rows) {
            let bytes = audit::expand(&bytes);
            let broken = || {
                format!(
                    "entry {position} of epoch {epoch} does not name the one before it: run bre verify audit"
                )
            };
            let entry = Entry::parse(&bytes).map_err(|_| broken())?;
            let place = (entry.epoch, entry.position);
            if place != (epoch, position) || before.is_some_and(|hash| hash != entry.previous) {
                return Err(broken());
            }
            let hash = Entry::hash_of(&bytes);
            *before = Some(hash);
            hashes.push(hash);
        }
        Ok(hashes)
    }

    async fn hashes(
        &self,
        client: &Client,
        epoch: u32,
        first: u64,
        last: u64,
    ) -> Result<Vec<Hash>, String> {
        let rows = self.column(client, "hash", (epoch, first, last)).await?;
        let read = |bytes: &Vec<u8>| Hash::try_from(bytes.as_slice()).ok();
        let hashes: Option<Vec<Hash>> = rows.iter().map(read).collect();
        hashes.ok_or_else(|| not_all(epoch, first, last))
    }

    /// One of the columns that hold bytes, of all these entries.
    async fn column(
        &self,
        client: &Client,
        name: &str,
        (epoch, first, last): (u32, u64, u64),
    ) -> Result<Vec<Vec<u8>>, String> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let sql = format!(
            "SELECT {name} FROM audit_log WHERE log = $1 AND epoch = $2 AND position BETWEEN $3 AND $4 \
             ORDER BY position"
        );
        let rows = client
            .query(
                &sql,
                &[
                    &self.log.cast_signed(),
                    &epoch.cast_signed(),
                    &number(first),
                    &number(last),
                ],
            )
            .await
            .map_err(|error| crate::data::describe(&error))?;
        let bytes = rows.iter().map(|row| row.try_get::<_, Vec<u8>>(0).ok());
        let bytes: Option<Vec<Vec<u8>>> = bytes.collect();
        bytes
            .filter(|bytes| bytes.len() as u64 == last - first + 1)
            .ok_or_else(|| not_all(epoch, first, last))
    }

    /// Full tiles: into the repository, above before below, then into the folder.
    async fn write(
        self: &Arc<Self>,
        began: u32,
        tree: &mut TileTree,
        hashes: Vec<Hash>,
    ) -> Result<(), String> {
        let mut made = Vec::new();
        for hash in hashes {
            let mut tiles = tree.push(hash);
            tiles.reverse();
            made.extend(tiles);
        }
        if made.is_empty() {
            return Ok(());
        }
        let log = Arc::clone(self);
        on_a_thread(move || {
            for tile in made {
                let bytes = tile_bytes(&tile.hashes);
                log.store.put_tile(began, tile.id, &bytes)?;
                let resource = Resource::tile(log.log, began, tile.id);
                log.folder.put(&resource, &bytes)?;
                log.folder.drop_partial(&resource);
            }
            Ok(())
        })
        .await
    }

    /// Partial tiles before the checkpoint that needs them.
    fn show_checkpoint(
        &self,
        published: &PublishedTree,
        first_is_kept: bool,
    ) -> Result<(), String> {
        let began = published.origin.began;
        for (id, hashes) in &published.partial {
            let resource = Resource::tile(self.log, began, *id);
            if !self.folder.has(&resource) {
                self.folder.put(&resource, &tile_bytes(hashes))?;
            }
        }
        let bytes = published.note.to_bytes();
        if !first_is_kept {
            self.store.put_first(began, &bytes)?;
        }
        self.folder
            .put(&Resource::checkpoint(self.log, began), &bytes)
    }
}

fn not_all(epoch: u32, first: u64, last: u64) -> String {
    format!(
        "entries {first} to {last} of epoch {epoch} are not all in the database: run bre verify audit"
    )
}

/// Positions from after `from` to `to`, cut by epochs and into pieces: epoch, first, last.
fn stretches(begins: &[(u32, u64)], from: u64, to: u64) -> Vec<(u32, u64, u64)> {
    let mut stretches = Vec::new();
    for (at, (epoch, begin)) in begins.iter().enumerate() {
        let next = begins.get(at + 1);
        let end = next.map_or(to, |(_, next)| next - 1).min(to);
        let mut first = from.saturating_add(1).max(*begin);
        while first <= end {
            let last = end.min(first + ROWS - 1);
            stretches.push((*epoch, first, last));
            first = last + 1;
        }
    }
    stretches
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())?
}
