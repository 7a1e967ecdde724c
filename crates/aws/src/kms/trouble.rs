//! The meaning of KMS's errors.

use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use repository::keys::{KeyError, KeyTrouble};

/// After all attempts of the SDK.
pub(super) fn trouble<E, R>(key: &str, error: &SdkError<E, R>) -> KeyError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug,
{
    let away = || KeyTrouble::Away {
        what: DisplayErrorContext(error).to_string(),
    };
    let trouble = match error {
        SdkError::ServiceError(answer) => {
            let meta = answer.err().meta();
            of_code(
                meta.code().unwrap_or("no code"),
                meta.message().unwrap_or("no reason given"),
            )
        }
        SdkError::ConstructionFailure(_) => KeyTrouble::Failed {
            what: DisplayErrorContext(error).to_string(),
        },
        _ => away(),
    };
    KeyError {
        key: key.to_owned(),
        trouble,
    }
}

pub(super) fn wrong_key_name(key: &str) -> KeyError {
    KeyError {
        key: key.to_owned(),
        trouble: KeyTrouble::Failed {
            what: "this is no ARN of a KMS key".to_owned(),
        },
    }
}

fn of_code(code: &str, message: &str) -> KeyTrouble {
    let what = format!("{code}: {message}");
    match code {
        "DisabledException" => KeyTrouble::Disabled,
        // AWS says so in the message only.
        "KMSInvalidStateException" if message.to_lowercase().contains("pending deletion") => {
            KeyTrouble::PendingDeletion { on: None }
        }
        "NotFoundException" => KeyTrouble::Gone { what },
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "ExpiredTokenException"
        | "MissingAuthenticationToken"
        | "OptInRequired" => KeyTrouble::Denied { what },
        "InvalidCiphertextException" | "IncorrectKeyException" => KeyTrouble::Wrong { what },
        "ThrottlingException"
        | "LimitExceededException"
        | "KMSInternalException"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "InternalFailure"
        | "RequestTimeout"
        | "no code" => KeyTrouble::Away { what },
        _ => KeyTrouble::Failed { what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_needs_a_person() {
        for (code, message, word) in [
            ("DisabledException", "arn is disabled.", "disabled"),
            (
                "KMSInvalidStateException",
                "arn is pending deletion.",
                "pending deletion",
            ),
            ("KMSInvalidStateException", "arn is unavailable", "failed"),
            ("NotFoundException", "Key 'arn' does not exist", "deleted"),
            ("AccessDeniedException", "not authorized", "denied"),
            ("InvalidCiphertextException", "", "wrong"),
            ("ThrottlingException", "Rate exceeded", "away"),
            ("SomethingNew", "", "failed"),
        ] {
            let trouble = of_code(code, message);
            assert_eq!(trouble.word(), word, "{code} {message}");
            assert_eq!(trouble.may_pass(), word == "away");
        }
    }
}
