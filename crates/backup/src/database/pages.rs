//! Pages that fail their checksum: torn by a write that ran at the same time (WAL repairs those), or damaged.

use postgres_physical::lsn::Lsn;
use postgres_physical::page::{PAGE_BYTES, PageState, Relation, RelationFile, check};
use postgres_physical::replication::{Connection, Event};
use postgres_physical::server::sql::Client;
use postgres_physical::wal::{Decoder, Step};
use postgres_physical::wire::ConnectOptions;
use repository::backup::DamagedPage;
use std::collections::BTreeSet;
use std::time::Duration;

/// One page whose checksum is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageCheck {
    path: String,
    relation: Relation,
    block: u32,
    what: String,
}

impl PageCheck {
    /// `bytes` begin with page `first_block`; a last part of a page is being written right now and WAL has it.
    pub(super) fn bad_pages<'a>(
        bytes: &'a [u8],
        path: &'a str,
        file: RelationFile,
        first_block: u32,
    ) -> impl Iterator<Item = PageCheck> + 'a {
        let (pages, _) = bytes.as_chunks::<PAGE_BYTES>();
        pages
            .iter()
            .zip(first_block..)
            .filter_map(move |(page, block)| match check(page, block) {
                PageState::New | PageState::Good => None,
                PageState::Bad { stored, computed } => Some(PageCheck {
                    path: path.to_owned(),
                    relation: file.relation,
                    block,
                    what: format!("checksum {stored:#06x}, computed {computed:#06x}"),
                }),
            })
    }

    /// With the relation's name, when the server can still tell.
    pub(super) fn describe(self, connect: &ConnectOptions) -> DamagedPage {
        let relation = relation_name(connect, self.relation);
        DamagedPage {
            path: self.path,
            relation,
            block: self.block,
            what: self.what,
        }
    }
}

/// Keeps only what replaying the WAL of the backup does not repair. When that WAL cannot be read, all suspects stay,
/// and say so.
pub(super) fn judge(
    connection: Option<Connection>,
    suspects: Vec<PageCheck>,
    (start, stop): (Lsn, Lsn),
    timeline: u32,
    segment_bytes: u64,
) -> Vec<PageCheck> {
    let wanted = suspects
        .iter()
        .map(|suspect| (suspect.relation, suspect.block))
        .collect();
    let read = connection.map_or_else(
        || Err("no connection to read it".to_owned()),
        |connection| repaired(connection, &wanted, (start, stop), timeline, segment_bytes),
    );
    match read {
        Ok(repaired) => suspects
            .into_iter()
            .filter(|suspect| !repaired.contains(&(suspect.relation, suspect.block)))
            .collect(),
        Err(reason) => {
            let doubt = |suspect: PageCheck| PageCheck {
                what: format!("{} (WAL not read: {reason})", suspect.what),
                ..suspect
            };
            suspects.into_iter().map(doubt).collect()
        }
    }
}

type Page = (Relation, u32);

/// Those of `wanted` that some record between `start` and `stop` writes as a whole.
fn repaired(
    connection: Connection,
    wanted: &BTreeSet<Page>,
    (start, stop): (Lsn, Lsn),
    timeline: u32,
    segment_bytes: u64,
) -> Result<BTreeSet<Page>, String> {
    let from = start.segment_start(segment_bytes);
    let mut stream = connection
        .start_streaming(None, from, timeline)
        .map_err(|error| error.to_string())?;
    let mut decoder = Decoder::new(from, segment_bytes);
    let mut found = BTreeSet::new();
    loop {
        match stream
            .next_event(Duration::from_secs(30))
            .map_err(|error| error.to_string())?
        {
            Some(Event::Wal { data, .. }) => decoder.push(&data),
            Some(Event::KeepAlive { .. }) => continue,
            Some(Event::EndOfTimeline(_)) | None => {
                return Err("it ends before the backup does".into());
            }
        }
        loop {
            match decoder.step() {
                Step::NeedMore => break,
                Step::End(end) => {
                    return Err(format!("no valid record at {}: {}", end.at, end.reason));
                }
                Step::Record(record) if record.lsn >= stop => return Ok(found),
                Step::Record(record) => {
                    let blocks = record.blocks().map_err(|error| error.to_string())?;
                    let whole = blocks
                        .iter()
                        .filter(|block| block.replaces_page() && record.lsn >= start);
                    found.extend(
                        whole
                            .map(|block| (block.relation, block.block))
                            .filter(|page| wanted.contains(page)),
                    );
                }
            }
        }
        if decoder.position() >= stop {
            return Ok(found);
        }
    }
}

/// `schema.table in database NAME`; best effort. Of a database that nobody can enter only its name is known.
fn relation_name(connect: &ConnectOptions, relation: Relation) -> Option<String> {
    let mut client = Client::connect(connect).ok()?;
    let database = match relation.database {
        // The catalogues that all databases share.
        0 => connect.database.clone(),
        oid => client
            .value(&format!(
                "SELECT datname FROM pg_database WHERE oid = {oid}"
            ))
            .ok()??,
    };
    let Ok(mut client) = Client::connect(&connect.clone().with_database(&database)) else {
        return Some(format!(
            "a relation of database {database}, which cannot be entered"
        ));
    };
    // The default tablespace of the database is written as 0.
    let sql = format!(
        "SELECT c.oid::regclass FROM pg_class c WHERE c.oid = pg_filenode_relation(CASE WHEN {0} = \
         (SELECT dattablespace FROM pg_database WHERE datname = current_database()) THEN 0 ELSE {0} END, {1})",
        relation.tablespace, relation.number
    );
    let name = client.value(&sql).ok()??;
    Some(format!("{name} in database {database}"))
}
