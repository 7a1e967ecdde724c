mod anchors;
mod cases;
mod chain;
mod document;
mod entries;
mod heads;
mod key_statements;
mod keys;
mod merkle;
mod notes;
mod proof;
mod python;
mod revocation;
mod stored;
mod tampering;
mod thinning;
mod tiles;
mod witness;

use crate::*;

/// RFC 8032, test 1.
const SEED: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

fn key() -> SigningKey {
    SigningKey::from_seed(&SEED).unwrap()
}

/// A log as its writer, its database and its repository know it.
struct Log {
    key: SigningKey,
    chain: Chain,
    rows: Vec<StoredEntry>,
    heads: Vec<Head>,
    clock: i64,
}

impl Log {
    fn new() -> Log {
        let key = key();
        let mut chain = Chain::new(1);
        let created = chain
            .open_epoch(1_000, &EpochOpening::Created { timeline: 1 }, &key)
            .unwrap();
        Log {
            key,
            chain,
            rows: vec![StoredEntry::from(&created)],
            heads: Vec::new(),
            clock: 1_000,
        }
    }

    /// With quotes up to the given size, and a head at each of the given sizes.
    fn with(size: u64, heads: &[u64]) -> Log {
        let mut log = Log::new();
        log.grow(size, heads);
        log
    }

    fn grow(&mut self, size: u64, heads: &[u64]) {
        loop {
            if heads.contains(&self.chain.position()) {
                self.sign_head();
            }
            if self.chain.position() >= size {
                return;
            }
            self.quote();
        }
    }

    fn quote(&mut self) {
        self.clock += 10;
        let fields = Fields::new()
            .with("client_id", format!("client-{}", self.clock))
            .with("outputs", format!("{{\"total_fee\":{}.5068}}", self.clock));
        let sealed = self.chain.append(Kind::Quote, self.clock, fields).unwrap();
        self.rows.push(StoredEntry::from(&sealed));
    }

    fn sign_head(&mut self) {
        let head = self
            .chain
            .head(self.clock, self.chain.position() * 100)
            .unwrap();
        let signed = self.key.sign(&head);
        self.heads
            .push(self.key.verifying_key().verify(&signed).unwrap());
    }

    /// The database comes back with the first `size` entries of what it holds, and a new epoch is opened.
    fn recover(&mut self, size: usize, timeline: u32, known_lost: Option<u64>) {
        self.rows.truncate(size);
        self.chain = Chain::resume(1, None, self.rows.clone(), &self.keys()).unwrap();
        let opening = EpochOpening::Recovery {
            timeline,
            known_heads: &self.heads,
            restore_id: "r-7",
            target_lsn: 0x1_0000_2000,
            known_lost,
            missing_heads: &[],
        };
        let sealed = self
            .chain
            .open_epoch(self.clock, &opening, &self.key)
            .unwrap();
        self.rows.push(StoredEntry::from(&sealed));
    }

    fn keys(&self) -> Vec<VerifyingKey> {
        vec![self.key.verifying_key().clone()]
    }

    fn verify(&self) -> Report {
        verify(1, self.rows.clone(), &self.heads, &self.keys())
    }
}
