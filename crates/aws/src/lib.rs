//! Amazon's services, and servers with the same API, behind the repository's traits: S3 as a store, KMS as a key
//! provider.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod kms;
pub mod s3;
mod worker;

use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};

/// Retries that are nobody else's. By itself the SDK draws the retries of all clients of one service and region from
/// one purse: a repository that is away would empty it, and another that answers at the second attempt would fail at
/// the first. Attempts and time bound each request as it is.
fn own_retries() -> RetryPartition {
    RetryPartition::custom("bre")
        .token_bucket(TokenBucket::unlimited())
        .build()
}
