//! Data pages: their checksum, their LSN, and which page of which relation a file holds.

use crate::lsn::Lsn;

/// The size of a data page. PostgreSQL can be built with another; such servers are refused when `pg_control` is read.
pub const PAGE_BYTES: usize = 8192;
/// Pages per file of a relation (1 GiB) in a usual build.
pub const PAGES_PER_SEGMENT: u32 = 131_072;

const SUMS: usize = 32;
const PRIME: u32 = 16_777_619;
const BASE_OFFSETS: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What a look at one page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// All zero: allocated and never written.
    New,
    Good,
    /// The stored checksum is not that of the content: damaged, or read while it was being written.
    Bad {
        stored: u16,
        computed: u16,
    },
}

/// Checks one page; `block` is its number in the relation (not in the file).
pub fn check(page: &[u8; PAGE_BYTES], block: u32) -> PageState {
    if is_new(page) {
        return PageState::New;
    }
    let (stored, computed) = (stored_checksum(page), checksum(page, block));
    if stored == computed {
        PageState::Good
    } else {
        PageState::Bad { stored, computed }
    }
}

/// `pd_upper` is zero only on pages that were never initialised; the whole page must then be zero.
fn is_new(page: &[u8; PAGE_BYTES]) -> bool {
    page[14] == 0 && page[15] == 0 && page.iter().all(|byte| *byte == 0)
}

/// `pd_lsn`: the end of the last WAL record that changed the page.
pub fn page_lsn(page: &[u8; PAGE_BYTES]) -> Lsn {
    let word = |at: usize| {
        u64::from(u32::from_ne_bytes([
            page[at],
            page[at + 1],
            page[at + 2],
            page[at + 3],
        ]))
    };
    Lsn(word(0) << 32 | word(4))
}

pub fn stored_checksum(page: &[u8; PAGE_BYTES]) -> u16 {
    u16::from_ne_bytes([page[8], page[9]])
}

/// PostgreSQL's page checksum: 32 interleaved FNV-1a-like sums, folded, mixed with the block number, never zero.
pub fn checksum(page: &[u8; PAGE_BYTES], block: u32) -> u16 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was just asked whether it has what the function needs.
        #[allow(unsafe_code)]
        return unsafe { checksum_avx2(page, block) };
    }
    checksum_plain(page, block)
}

/// The same with eight sums at a time: every byte of every backup passes here.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn checksum_avx2(page: &[u8; PAGE_BYTES], block: u32) -> u16 {
    checksum_plain(page, block)
}

#[inline(always)]
fn checksum_plain(page: &[u8; PAGE_BYTES], block: u32) -> u16 {
    let mut sums = BASE_OFFSETS;
    let (rows, _) = page.as_chunks::<{ 4 * SUMS }>();
    // The checksum field itself counts as zero.
    let mut first = rows[0];
    first[8..10].fill(0);
    add_row(&mut sums, &first);
    for row in &rows[1..] {
        add_row(&mut sums, row);
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ mix(mix(*sum, 0), 0));
    ((folded ^ block) % 65_535) as u16 + 1
}

#[inline(always)]
fn add_row(sums: &mut [u32; SUMS], row: &[u8; 4 * SUMS]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum = mix(*sum, u32::from_ne_bytes(*word));
    }
}

#[inline(always)]
fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

/// The parts of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    Main,
    FreeSpace,
    Visibility,
    Init,
}

impl Fork {
    pub(crate) fn from_number(number: u8) -> Option<Fork> {
        [Fork::Main, Fork::FreeSpace, Fork::Visibility, Fork::Init]
            .get(usize::from(number))
            .copied()
    }
}

/// A relation as WAL names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    pub tablespace: u32,
    pub database: u32,
    pub number: u32,
    pub fork: Fork,
}

/// One file of a relation: pages `first_block()` and on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile {
    pub relation: Relation,
    pub segment: u32,
}

const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;

impl RelationFile {
    /// From a path below the data folder: `base/5/16384_vm.1`, `global/1260`,
    /// `pg_tblspc/16390/PG_15_202209061/5/16391`. `None` for everything without page checksums.
    pub fn parse(path: &str) -> Option<RelationFile> {
        let parts: Vec<&str> = path.split('/').collect();
        let (tablespace, database, name) = match parts[..] {
            ["global", name] => (GLOBAL_TABLESPACE, 0, name),
            ["base", database, name] => (DEFAULT_TABLESPACE, number(database)?, name),
            ["pg_tblspc", tablespace, version, database, name] if version.starts_with("PG_") => {
                (number(tablespace)?, number(database)?, name)
            }
            _ => return None,
        };
        let (name, segment) = match name.split_once('.') {
            Some((name, segment)) => (name, number(segment)?),
            None => (name, 0),
        };
        let (name, fork) = match name.split_once('_') {
            None => (name, Fork::Main),
            Some((name, "fsm")) => (name, Fork::FreeSpace),
            Some((name, "vm")) => (name, Fork::Visibility),
            Some((name, "init")) => (name, Fork::Init),
            Some(_) => return None,
        };
        Some(RelationFile {
            relation: Relation {
                tablespace,
                database,
                number: number(name)?,
                fork,
            },
            segment,
        })
    }

    /// The number of the file's first page in the relation.
    pub fn first_block(&self) -> u32 {
        self.segment.wrapping_mul(PAGES_PER_SEGMENT)
    }
}

fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_page_is_not_damaged_and_one_byte_is() {
        let mut page = [0; PAGE_BYTES];
        assert_eq!(check(&page, 0), PageState::New);
        page[4000] = 1;
        assert!(matches!(check(&page, 0), PageState::Bad { stored: 0, .. }));
        let sum = checksum(&page, 7).to_ne_bytes();
        page[8..10].copy_from_slice(&sum);
        assert_eq!(check(&page, 7), PageState::Good);
        assert!(matches!(check(&page, 8), PageState::Bad { .. }));
        for at in [0, 10, 127, 128, 4095, 8191] {
            page[at] ^= 0x10;
            assert!(
                matches!(check(&page, 7), PageState::Bad { .. }),
                "byte {at}"
            );
            page[at] ^= 0x10;
        }
    }

    #[test]
    fn both_ways_of_summing_agree() {
        let mut page = [0; PAGE_BYTES];
        let mut state = 1_u32;
        for block in 0..64 {
            for byte in &mut page {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            assert_eq!(checksum(&page, block), checksum_plain(&page, block));
        }
    }

    #[test]
    fn paths_of_relations() {
        let check = |path: &str, expected: Option<(u32, u32, u32, Fork, u32)>| {
            let found = RelationFile::parse(path).map(|f| {
                (
                    f.relation.tablespace,
                    f.relation.database,
                    f.relation.number,
                    f.relation.fork,
                    f.segment,
                )
            });
            assert_eq!(found, expected, "{path}");
        };
        check("base/5/16384", Some((1663, 5, 16384, Fork::Main, 0)));
        check(
            "base/5/16384_vm.2",
            Some((1663, 5, 16384, Fork::Visibility, 2)),
        );
        check("global/1260_fsm", Some((1664, 0, 1260, Fork::FreeSpace, 0)));
        check(
            "pg_tblspc/16390/PG_15_202209061/5/16391.1",
            Some((16390, 5, 16391, Fork::Main, 1)),
        );
        for other in [
            "global/pg_control",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/pgsql_tmp/1",
            "PG_VERSION",
            "base/5/t3_16384",
            "pg_wal/1",
        ] {
            check(other, None);
        }
    }
}
