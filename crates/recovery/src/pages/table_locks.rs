//! Relations under our lock, and their pages on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use postgres_physical::lsn::Lsn;
use postgres_physical::page::{Fork, PAGE_BYTES, PAGES_PER_SEGMENT, PageState, check, page_lsn};
use postgres_physical::server::sql::{Client, quote_literal};
use postgres_physical::wire::{ConnectOptions, WireError};

use super::{DamagedPage, PageError};

/// What came of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageOutcome {
    /// Written, on disk, and read back.
    Written,
    /// The server had a good copy in memory and has written it; or somebody else was quicker.
    GoodAlready,
    /// Not written; why.
    Refused(String),
}

/// ACCESS EXCLUSIVE locks, one session a database. Dropped, they are given back.
#[derive(Debug)]
pub struct TableLocks {
    connect: ConnectOptions,
    data: PathBuf,
    sessions: BTreeMap<String, Client>,
    /// As they were found on disk under the lock.
    bad: BTreeMap<(String, u32), Box<[u8; PAGE_BYTES]>>,
    settled: Option<Lsn>,
}

impl TableLocks {
    /// Locks the tables of these pages. Nobody reads or writes them until [`TableLocks::release`].
    pub fn lock(
        connect: &ConnectOptions,
        data: &Path,
        pages: &[&DamagedPage],
    ) -> Result<Self, PageError> {
        let mut held = Self {
            connect: connect.clone().with_application_name("bre-pages"),
            data: data.to_owned(),
            sessions: BTreeMap::new(),
            bad: BTreeMap::new(),
            settled: None,
        };
        let places = pages
            .iter()
            .filter_map(|page| Some((page.database.clone()?, page.table.clone()?)));
        // In one order for everybody.
        for (database, table) in places.collect::<BTreeSet<_>>() {
            held.lock_one(&database, &table)?;
        }
        for page in pages {
            held.check_place(page)?;
        }
        Ok(held)
    }

    fn lock_one(&mut self, database: &str, table: &str) -> Result<(), PageError> {
        if !self.sessions.contains_key(database) {
            let mut client = Client::connect(&self.connect.clone().with_database(database))?;
            client.query(
                "SET search_path = ''; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; \
                 SET default_transaction_read_only = off; BEGIN; SET LOCAL lock_timeout = '30s'",
            )?;
            self.sessions.insert(database.to_owned(), client);
        }
        let Some(client) = self.sessions.get_mut(database) else {
            return Ok(());
        };
        // Partitions and children have files of their own.
        let sql = format!("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE");
        client
            .query(&sql)
            .map(drop)
            .map_err(|error| PageError::Locked {
                table: table.to_owned(),
                database: database.to_owned(),
                error,
            })
    }

    /// Under the lock the file is still that relation's.
    fn check_place(&mut self, page: &DamagedPage) -> Result<(), PageError> {
        let moved = || PageError::Moved {
            place: page.place(),
        };
        let database = page.database.as_deref().unwrap_or_default();
        let client = self.sessions.get_mut(database).ok_or_else(moved)?;
        let relation = quote_literal(page.relation.as_deref().unwrap_or_default());
        let file = client.value(&format!(
            "SELECT pg_relation_filepath(to_regclass({relation}))"
        ))?;
        let file = file.ok_or_else(moved)?;
        let fork = match page.fork {
            Fork::Main => "",
            Fork::FreeSpace => "_fsm",
            Fork::Visibility => "_vm",
            Fork::Init => "_init",
        };
        let segment = match page.block / PAGES_PER_SEGMENT {
            0 => String::new(),
            segment => format!(".{segment}"),
        };
        match page.path == format!("{file}{fork}{segment}") {
            true => Ok(()),
            false => Err(moved()),
        }
    }

    /// Makes the server write whatever it holds in memory of these relations: afterwards none of their buffers is
    /// dirty, and none becomes so while we hold the lock. The position that is returned is after every change of
    /// them; WAL continues behind it.
    pub fn settle(&mut self, pages: &[&DamagedPage]) -> Result<Lsn, PageError> {
        let mut client = Client::connect(&self.connect)?;
        client.query("SET statement_timeout = 0; CHECKPOINT")?;
        let place = client.value("SELECT pg_create_restore_point('bre page repair')")?;
        client.query("SELECT pg_switch_wal()")?;
        for page in pages {
            let there = read_page(&self.data.join(&page.path), page.block)?;
            if is_bad(&there, page.block) {
                self.bad.insert((page.path.clone(), page.block), there);
            }
        }
        let place = place.and_then(|place| place.parse().ok());
        let place: Lsn = place.ok_or_else(|| WireError::Protocol("no WAL position".into()))?;
        self.settled = Some(place);
        Ok(place)
    }

    /// The page is still bad after [`TableLocks::settle`].
    #[must_use]
    pub fn is_bad(&self, page: &DamagedPage) -> bool {
        self.bad.contains_key(&(page.path.clone(), page.block))
    }

    /// Writes the page as the restored folder has it. Not unless it is whole there, older than the lock, the lock is
    /// still ours, and what is on disk is what we saw.
    pub fn put(&mut self, page: &DamagedPage, restored: &Path) -> Result<PageOutcome, PageError> {
        let from = restored.join(&page.path);
        let good = read_page(&from, page.block)?;
        if is_bad(&good, page.block) {
            return Ok(PageOutcome::Refused(
                "the backup has the page damaged too".to_owned(),
            ));
        }
        let settled = self.settled.unwrap_or(Lsn(0));
        if is_empty(&good) || page_lsn(&good) > settled {
            return Ok(PageOutcome::Refused(format!(
                "the restored page is of {}, the lock of {settled}: it is not taken",
                page_lsn(&good)
            )));
        }
        self.write(page, &good)
    }

    /// Writes an empty page, which a free space map or a visibility map may be at any time.
    pub fn empty(&mut self, page: &DamagedPage) -> Result<PageOutcome, PageError> {
        self.write(page, &[0; PAGE_BYTES])
    }

    fn write(
        &mut self,
        page: &DamagedPage,
        bytes: &[u8; PAGE_BYTES],
    ) -> Result<PageOutcome, PageError> {
        let place = self.data.join(&page.path);
        let Some(seen) = self.bad.get(&(page.path.clone(), page.block)) else {
            return Ok(PageOutcome::GoodAlready);
        };
        let there = read_page(&place, page.block)?;
        if there != *seen {
            return Ok(PageOutcome::Refused(
                "it was written while it was locked: by whom is not known, so it is left alone"
                    .to_owned(),
            ));
        }
        self.check_locked()?;
        let failed = |what: &'static str| {
            let path = place.clone();
            move |source| PageError::File { what, path, source }
        };
        let file = OpenOptions::new()
            .write(true)
            .open(&place)
            .map_err(failed("cannot open"))?;
        file.write_all_at(bytes, offset(page.block))
            .map_err(failed("cannot write"))?;
        file.sync_all().map_err(failed("cannot sync"))?;
        self.check_locked()?;
        let back = read_page(&place, page.block)?;
        match *back == *bytes {
            true => Ok(PageOutcome::Written),
            false => Ok(PageOutcome::Refused(
                "what was written does not read back: look at the disk".to_owned(),
            )),
        }
    }

    fn check_locked(&mut self) -> Result<(), PageError> {
        for (database, client) in &mut self.sessions {
            client
                .query("SELECT 1")
                .map_err(|error| PageError::LockLost {
                    database: database.clone(),
                    error,
                })?;
        }
        Ok(())
    }

    pub fn release(mut self) -> Result<(), PageError> {
        for client in self.sessions.values_mut() {
            client.query("COMMIT")?;
        }
        Ok(())
    }
}

fn offset(block: u32) -> u64 {
    u64::from(block % PAGES_PER_SEGMENT) * PAGE_BYTES as u64
}

fn read_page(path: &Path, block: u32) -> Result<Box<[u8; PAGE_BYTES]>, PageError> {
    let failed = |source| PageError::File {
        what: "cannot read",
        path: path.to_owned(),
        source,
    };
    let mut page = Box::new([0; PAGE_BYTES]);
    let file = File::open(path).map_err(failed)?;
    file.read_exact_at(&mut page[..], offset(block))
        .map_err(failed)?;
    Ok(page)
}

fn is_bad(page: &[u8; PAGE_BYTES], block: u32) -> bool {
    matches!(check(page, block), PageState::Bad { .. })
}

fn is_empty(page: &[u8; PAGE_BYTES]) -> bool {
    page.iter().all(|byte| *byte == 0)
}
