//! Amazon's services, and servers that speak as they do, behind the repository's traits: S3 as a store, KMS as a key provider.

pub mod s3;
