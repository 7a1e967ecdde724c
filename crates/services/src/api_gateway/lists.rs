//! Lists, the same everywhere: `{status, items, pagination: {total, skip, limit, has_more}}`.

use serde::Serialize;

use super::parameters::Parameters;

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;
/// Far beyond any list; a page number times its size stays within the types.
const SKIP_MAX: u64 = 1_000_000_000;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) skip: usize,
    pub(super) limit: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    status: &'static str,
    items: Vec<T>,
    pagination: Pagination,
}

#[derive(Debug, Serialize)]
struct Pagination {
    total: usize,
    skip: usize,
    limit: usize,
    has_more: bool,
    /// There are at least `total`; they were not counted to the end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    total_is_minimum: bool,
}

impl Page {
    /// By `skip` and `limit`.
    pub(super) fn read(parameters: &mut Parameters) -> Page {
        let skip = number(parameters, "skip", 0, SKIP_MAX, "0 to 1000000000").unwrap_or(0);
        let limit = size(parameters, "limit");
        Page { skip, limit }
    }

    /// By `page`, from 1, and `page_size`.
    pub(super) fn read_numbered(parameters: &mut Parameters) -> Page {
        let page = number(parameters, "page", 1, SKIP_MAX, "1 to 1000000000").unwrap_or(1);
        let limit = size(parameters, "page_size");
        Page {
            skip: (page - 1) * limit,
            limit,
        }
    }

    /// As SQL counts.
    pub(super) fn offset(self) -> i64 {
        i64::try_from(self.skip).unwrap_or(i64::MAX)
    }

    pub(super) fn rows(self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX)
    }
}

fn size(parameters: &mut Parameters, name: &str) -> usize {
    number(parameters, name, 1, LIMIT_MAX as u64, "1 to 100").unwrap_or(LIMIT_DEFAULT)
}

fn number(
    parameters: &mut Parameters,
    name: &str,
    min: u64,
    max: u64,
    range: &str,
) -> Option<usize> {
    let rule = format!("must be a whole number from {range}");
    parameters.number(name, &rule, |digits| {
        let number = digits
            .whole()
            .filter(|number| (min..=max).contains(number))?;
        usize::try_from(number).ok()
    })
}

impl<T> List<T> {
    pub(super) fn new(items: Vec<T>, page: Page, total: usize) -> List<T> {
        let has_more = page.skip.saturating_add(items.len()) < total;
        List::counted(items, page, total, has_more, false)
    }

    /// Of a list too long to be counted to its end.
    pub(super) fn counted(
        items: Vec<T>,
        page: Page,
        total: usize,
        has_more: bool,
        total_is_minimum: bool,
    ) -> List<T> {
        List {
            status: "success",
            pagination: Pagination {
                total,
                skip: page.skip,
                limit: page.limit,
                has_more,
                total_is_minimum,
            },
            items,
        }
    }
}
