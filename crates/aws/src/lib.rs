//! Amazon's services, and servers that speak as they do, behind the repository's traits: S3 as a store, KMS as a key provider.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod kms;
pub mod s3;
mod worker;
