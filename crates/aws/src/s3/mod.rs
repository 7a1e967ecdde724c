//! A store in S3, or in a server with the same API. Why it is built this way: `docs/decisions/0053-s3-as-a-store.md`.
//!
//! Entry point: [`S3Store::open`]. Absent: to create buckets, and anything that lifts a lock.

mod blocks;
mod delete;
mod location;
mod locks;
mod pieces;
mod put;
mod read;
mod remote;

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

pub use location::{Checksums, LocationError, S3Location};
use repository::{
    StoreError,
    store::{
        Appender, ColdObject, Lock, LockPolicy, MARKER, NextPiece, ObjectInfo, Store, check_name,
    },
};

use crate::worker::Worker;
use blocks::{BLOCK, Blocks};
use pieces::Upload;
use remote::Remote;

const THREADS: usize = 2;

#[derive(Debug)]
pub struct S3Store {
    worker: Worker,
    remote: Arc<Remote>,
    blocks: Blocks,
    /// The marker was seen: this is the repository, not a bucket that happens to have the name.
    marked: AtomicBool,
    /// Whether the server refuses a second put of a name; unknown before the first.
    refuses_second: Mutex<Option<bool>>,
}

impl S3Store {
    /// Names it; nothing is asked yet, except for the machine's own region and credentials.
    pub fn open(location: &S3Location, lock: Option<LockPolicy>) -> Result<Self, StoreError> {
        let failed = |what: String| StoreError::Away {
            store: location.to_string(),
            what,
        };
        if let Some(file) = &location.credentials_file {
            secrets::check(file)?;
        }
        let worker = Worker::start("s3", THREADS)
            .map_err(|error| failed(format!("cannot start threads: {error}")))?;
        let asked = location.clone();
        let remote = worker.run(async move { Remote::connect(&asked, lock).await });
        let remote = remote.ok_or_else(|| failed("its settings cannot be read".to_owned()))?;
        Ok(Self {
            worker,
            remote: Arc::new(remote),
            blocks: Blocks::default(),
            marked: AtomicBool::new(false),
            refuses_second: Mutex::new(None),
        })
    }

    /// From how many bytes on an object goes in parts (servers take none below 5 MiB), and how many names a listing
    /// brings at a time: for tests, which have neither the bytes nor the names.
    #[doc(hidden)]
    #[must_use]
    pub fn in_steps_of(mut self, part_bytes: usize, names: i32) -> Self {
        if let Some(remote) = Arc::get_mut(&mut self.remote) {
            (remote.part_bytes, remote.page_names) = (part_bytes, names);
        }
        self
    }

    /// Begins the upload where there is none yet; one that fails is thrown away.
    fn put_part(
        &self,
        name: &str,
        upload: Option<Upload>,
        part: Vec<u8>,
    ) -> Result<Upload, StoreError> {
        let upload = match upload {
            Some(upload) => upload,
            None => {
                let name = name.to_owned();
                self.run(|remote| Upload::begin(remote, name))?
            }
        };
        let begun = upload.clone();
        self.run(|remote| upload.part(remote, part))
            .inspect_err(|_| drop(self.run(|remote| begun.abort(remote))))
    }

    fn range_of_pack(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let bytes = self.blocks.read(name, offset, len, |from| {
            let name = name.to_owned();
            self.run(move |remote| async move { read::block(&remote, &name, from, BLOCK).await })
        })?;
        if bytes.len() == len {
            return Ok(bytes);
        }
        Err(read::short(name, offset, len))
    }

    fn run<T, F>(&self, work: impl FnOnce(Arc<Remote>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.worker
            .run(work(Arc::clone(&self.remote)))
            .unwrap_or_else(|| Err(self.remote.away("the thread that asks it ended")))
    }

    /// Once seen it stays: a bucket is not an empty folder that appears where a disk was mounted.
    fn present(&self) -> Result<(), StoreError> {
        if self.marked.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.look_for_marker()
    }

    fn look_for_marker(&self) -> Result<(), StoreError> {
        let seen = self.run(|remote| async move { read::seen(&remote, MARKER).await })?;
        self.marked.store(seen.is_some(), Ordering::Relaxed);
        match seen {
            Some(_) => Ok(()),
            None => Err(self.remote.unmarked()),
        }
    }

    /// Not every server heeds `If-None-Match`. Asked once, with a probe.
    fn refuses_second(&self) -> Result<bool, StoreError> {
        let mut known = self
            .refuses_second
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(refuses) = *known {
            return Ok(refuses);
        }
        let refuses = self.run(|remote| async move { put::refuses_second(&remote).await })?;
        *known = Some(refuses);
        Ok(refuses)
    }
}

impl Store for S3Store {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_name(name)?;
        if name != MARKER {
            self.present()?;
        }
        let refuses = self.refuses_second()?;
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        self.run(move |remote| async move { put::put_new(&remote, &name, bytes, refuses).await })
    }

    fn put_pieces(&self, name: &str, next: &mut NextPiece<'_>) -> Result<(), StoreError> {
        check_name(name)?;
        self.present()?;
        let part_bytes = self.remote.part_bytes.min(pieces::PART_BYTES);
        let (mut upload, mut bytes) = (None, Vec::new());
        let put = loop {
            match next() {
                Ok(Some(mut piece)) => bytes.append(&mut piece),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            while bytes.len() > part_bytes {
                let rest = bytes.split_off(part_bytes);
                let part = std::mem::replace(&mut bytes, rest);
                upload = Some(self.put_part(name, upload, part)?);
            }
        };
        match (put, upload) {
            (Ok(()), None) => self.put(name, &bytes),
            (Ok(()), upload) => {
                let upload = self.put_part(name, upload, bytes)?;
                self.run(|remote| upload.complete(remote))
            }
            (Err(error), Some(upload)) => {
                let _ = self.run(|remote| upload.abort(remote));
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        check_name(name)?;
        let name = name.to_owned();
        self.run(|remote| async move { read::whole(&remote, &name).await })
    }

    fn get_range(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        check_name(name)?;
        if len > 0 && (len as u64) < BLOCK && name.starts_with("packs/") {
            return self.range_of_pack(name, offset, len);
        }
        let name = name.to_owned();
        self.run(move |remote| async move { read::range(&remote, &name, offset, len).await })
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        check_name(name)?;
        let name = name.to_owned();
        self.run(|remote| async move { read::size(&remote, &name).await })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        // Every time: an empty listing of another place would prove that something is not there.
        self.look_for_marker()?;
        let prefix = prefix.to_owned();
        self.run(|remote| async move { read::list(&remote, &prefix).await })
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        self.present()?;
        self.blocks.forget(name);
        let name = name.to_owned();
        self.run(|remote| async move { delete::delete(&remote, &name).await })
    }

    fn delete_all(&self, names: &[String]) -> Result<(), StoreError> {
        self.present()?;
        for name in names {
            check_name(name)?;
            self.blocks.forget(name);
        }
        let names = names.to_vec();
        self.run(|remote| async move { delete::delete_all(remote, names).await })
    }

    fn appender(&self, _name: &str) -> Option<Result<Box<dyn Appender>, StoreError>> {
        None
    }

    fn keep_longer(&self, names: &[String]) -> Result<(), StoreError> {
        let names = names.to_vec();
        self.run(|remote| async move { locks::keep_longer(remote, names).await })
    }

    fn lock_of(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        check_name(name)?;
        let name = name.to_owned();
        self.run(|remote| async move { locks::lock_of(&remote, &name).await })
    }

    fn cold(&self, name: &str) -> Result<Option<ColdObject>, StoreError> {
        check_name(name)?;
        let name = name.to_owned();
        self.run(|remote| async move { read::cold(&remote, &name).await })
    }

    fn set_hold(&self, names: &[String], on: bool) -> Result<(), StoreError> {
        let names = names.to_vec();
        self.run(move |remote| async move { locks::set_hold(remote, names, on).await })
    }

    fn describe(&self) -> String {
        self.remote.shown.clone()
    }
}
