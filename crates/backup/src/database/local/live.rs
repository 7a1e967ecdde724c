//! The running server's own files, page by page: which of them are damaged, and what they belong to. Reads only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use postgres_physical::page::{Fork, PAGE_BYTES, PageState, Relation, RelationFile, check};
use postgres_physical::replication::Connection;
use postgres_physical::server::sql::Client;
use postgres_physical::server::{ListedDatabase, databases};
use postgres_physical::wire::ConnectOptions;

use super::reach;
use super::session::Session;
use super::walk::{SourceFile, version_folder, walk};
use crate::{BackupError, Progress, Result, random_suffix};

const PAGES_READ: usize = 128;
/// A write that is under way when a page is read takes microseconds; a page that stays bad, and the same, for longer is damaged.
const LOOKS: u32 = 12;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// A page that fails its checksum on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePage {
    /// Below the data folder.
    pub path: String,
    pub fork: Fork,
    /// Of the relation, not of the file.
    pub block: u32,
    pub what: String,
    pub owner: Owner,
}

/// What the page's file belongs to; empty when the server no longer knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    pub database: Option<String>,
    /// For SQL.
    pub relation: Option<String>,
    pub oid: u32,
    /// `relkind`: `r`, `i`, `t` …
    pub kind: String,
    /// The table whose lock keeps everybody from it: of an index or of a TOAST table another one.
    pub table: Option<String>,
    /// Why the server could not say which relation of the database it is.
    pub unknown_because: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePages {
    pub data: PathBuf,
    pub files: u64,
    pub pages: u64,
    pub damaged: Vec<LivePage>,
}

/// Reads every page of every permanent relation. An error when the server's files cannot be read here, or have no checksums.
pub fn verify_live(connect: &ConnectOptions, progress: &dyn Progress) -> Result<LivePages> {
    let connect = connect.clone().with_application_name("bre-verify");
    // The temporary slot proves that the folder here is the server's own; it goes with the connection.
    let mut proof = Connection::connect(&connect)?;
    let system = proof.identify_system()?;
    let slot = format!("bre_verify_{}", random_suffix());
    let slot = proof.create_temporary_slot(&slot).ok().map(|()| slot);
    let mut session = Session::open(&connect)?;
    let reached = reach::reach(&mut session, system.system_identifier, slot.as_deref())?
        .map_err(BackupError::Source)?;
    drop(proof);
    if !reached.control.checksums_enabled {
        return Err(BackupError::Source(
            "the cluster has no data checksums, so a damaged page cannot be told from a good one (pg_checksums --enable, with the server stopped)"
                .into(),
        ));
    }
    let version = session.setting("server_version_num")?;
    let version = version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0);
    let tree = walk(
        &reached.data,
        &version_folder(version, reached.control.catalog_version),
    )?;
    progress.total(tree.bytes());
    progress.message("reading pages");
    let mut found = LivePages {
        data: reached.data,
        files: 0,
        pages: 0,
        damaged: Vec::new(),
    };
    for file in &tree.files {
        if progress.cancelled() {
            return Err(BackupError::Cancelled);
        }
        if let Some(relation) = RelationFile::parse(&file.path) {
            read(file, relation, &mut found, progress)?;
        }
    }
    name(&connect, &mut found.damaged);
    Ok(found)
}

fn read(
    found: &SourceFile,
    relation: RelationFile,
    all: &mut LivePages,
    progress: &dyn Progress,
) -> Result<()> {
    let file = match File::open(&found.place) {
        // Dropped meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(BackupError::file("read", &found.place))?,
    };
    all.files += 1;
    let mut buffer = vec![0; PAGES_READ * PAGE_BYTES];
    let mut at = 0_u64;
    loop {
        let filled =
            read_at(&file, &mut buffer, at).map_err(BackupError::file("read", &found.place))?;
        let (pages, _) = buffer[..filled].as_chunks::<PAGE_BYTES>();
        let first =
            relation.first_block() + u32::try_from(at / PAGE_BYTES as u64).unwrap_or(u32::MAX);
        for (page, block) in pages.iter().zip(first..) {
            let place = at + u64::from(block - first) * PAGE_BYTES as u64;
            if let PageState::Bad { .. } = check(page, block)
                && let Some(what) = stays_bad(&file, place, block)
            {
                all.damaged.push(LivePage {
                    path: found.path.clone(),
                    fork: relation.relation.fork,
                    block,
                    what,
                    owner: Owner::default(),
                });
            }
        }
        all.pages += pages.len() as u64;
        progress.advance(filled as u64);
        if filled < buffer.len() || progress.cancelled() {
            return Ok(());
        }
        at += filled as u64;
    }
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Looks again until the page is good, or gone, or was the same bad bytes for a while.
fn stays_bad(file: &File, at: u64, block: u32) -> Option<String> {
    let mut before = [0; PAGE_BYTES];
    let (mut same, mut what) = (0, String::new());
    while same < LOOKS {
        let mut page = [0; PAGE_BYTES];
        if read_at(file, &mut page, at).ok()? < PAGE_BYTES {
            // Truncated meanwhile.
            return None;
        }
        let PageState::Bad { stored, computed } = check(&page, block) else {
            return None;
        };
        same = if page == before { same + 1 } else { 0 };
        before = page;
        what = format!("checksum {stored:#06x}, computed {computed:#06x}");
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Some(what)
}

/// Asks the server whose files they are; one it does not know, or cannot say because that very page is damaged, stays unnamed.
fn name(connect: &ConnectOptions, damaged: &mut [LivePage]) {
    let mut known: BTreeMap<Relation, Owner> = BTreeMap::new();
    for page in damaged {
        let Some(file) = RelationFile::parse(&page.path) else {
            continue;
        };
        let relation = Relation {
            fork: Fork::Main,
            ..file.relation
        };
        let owner = known
            .entry(relation)
            .or_insert_with(|| owner(connect, relation).unwrap_or_default());
        page.owner = owner.clone();
    }
}

fn owner(connect: &ConnectOptions, relation: Relation) -> Option<Owner> {
    let mut client = Client::connect(connect).ok()?;
    let database = match relation.database {
        0 => connect.database.clone(),
        oid => client
            .value(&format!(
                "SELECT datname FROM pg_database WHERE oid = {oid}"
            ))
            .ok()??,
    };
    let named = Owner {
        database: Some(database.clone()),
        ..Owner::default()
    };
    let mut client = match Client::connect(&connect.clone().with_database(&database)) {
        Ok(client) => client,
        Err(error) => {
            let closed = databases(&mut client).ok()?;
            let closed = closed.iter().find(|listed| listed.name == database);
            let why = closed.and_then(ListedDatabase::why_closed);
            return Some(Owner {
                unknown_because: Some(why.unwrap_or_else(|| error.to_string())),
                ..named
            });
        }
    };
    // The default tablespace of the database is written as 0.
    let sql = format!(
        "SET search_path = ''; SELECT c.oid::regclass, c.oid, c.relkind, coalesce(i.indrelid::regclass, t.oid::regclass, o.oid::regclass) \
         FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_class t ON t.reltoastrelid = c.oid AND t.relkind = 'r' \
         LEFT JOIN pg_class o ON o.oid = c.oid AND o.relkind IN ('r', 'm') \
         WHERE c.oid = pg_filenode_relation(CASE WHEN {0} = \
         (SELECT dattablespace FROM pg_database WHERE datname = current_database()) THEN 0 ELSE {0} END, {1})",
        relation.tablespace, relation.number
    );
    let Some(row) = client.query(&sql).ok()?.rows.into_iter().next() else {
        return Some(named);
    };
    let field = |index: usize| row.get(index).cloned().flatten();
    Some(Owner {
        relation: field(0),
        oid: field(1)?.parse().ok()?,
        kind: field(2)?,
        table: field(3),
        ..named
    })
}
