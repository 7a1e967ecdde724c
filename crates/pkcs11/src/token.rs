//! Sessions with the token: one at a time, opened when needed. A refused PIN is not tried again: tokens lock for good
//! after a few.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{
        Mechanism, MechanismType,
        rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource},
    },
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};
use repository::keys::{KeyError, KeyTrouble};
use zeroize::Zeroizing;

use crate::TokenLocation;

pub(crate) struct Token {
    key: String,
    module: PathBuf,
    label: String,
    object: String,
    pin_file: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<(Session, ObjectHandle)>,
    /// Why the PIN was refused; nothing is asked again.
    refused: Option<String>,
}

/// A library is loaded and begun once a process, however many keys are in its tokens.
fn modules() -> MutexGuard<'static, HashMap<PathBuf, Pkcs11>> {
    static MODULES: OnceLock<Mutex<HashMap<PathBuf, Pkcs11>>> = OnceLock::new();
    let modules = MODULES.get_or_init(Mutex::default);
    modules.lock().unwrap_or_else(PoisonError::into_inner)
}

fn module(path: &Path) -> Result<Pkcs11, Error> {
    let mut modules = modules();
    if let Some(known) = modules.get(path) {
        return Ok(known.clone());
    }
    let module = Pkcs11::new(path)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(error),
    }
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

impl Token {
    pub(crate) fn new(location: &TokenLocation) -> Self {
        Self {
            key: location.name(),
            module: location.module.clone(),
            label: location.token.clone(),
            object: location.object.clone(),
            pin_file: location.pin_file.clone(),
            state: Mutex::default(),
        }
    }

    /// Modulus and exponent.
    pub(crate) fn public_half(&self) -> Result<(Vec<u8>, Vec<u8>), KeyError> {
        let session = self.session()?;
        let object = self.find(&session, ObjectClass::PUBLIC_KEY)?;
        let wanted = [AttributeType::Modulus, AttributeType::PublicExponent];
        let found = session.get_attributes(object, &wanted);
        let (mut modulus, mut exponent) = (Vec::new(), Vec::new());
        for attribute in found.map_err(|error| self.trouble(&error))? {
            match attribute {
                Attribute::Modulus(bytes) => modulus = without_leading_zeros(&bytes),
                Attribute::PublicExponent(bytes) => exponent = without_leading_zeros(&bytes),
                _ => {}
            }
        }
        if modulus.is_empty() || exponent.is_empty() {
            return Err(self.failed(format!("{} is no RSA key", self.object)));
        }
        Ok((modulus, exponent))
    }

    /// Opens the session where there is none; one that the token has closed meanwhile is opened once more.
    pub(crate) fn decrypt(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for is_last in [false, true] {
            if state.open.is_none() {
                state.open = Some(self.open(&mut state.refused)?);
            }
            let Some((session, key)) = &state.open else {
                break;
            };
            match session.decrypt(&oaep(), *key, sealed) {
                Ok(plain) => return Ok(Zeroizing::new(plain)),
                Err(error) => {
                    let trouble = self.trouble(&error);
                    // A ciphertext that is no good leaves the session as it is.
                    let is_wrong = matches!(trouble.trouble, KeyTrouble::Wrong { .. });
                    if !is_wrong {
                        state.open = None;
                    }
                    if is_last || is_wrong {
                        return Err(trouble);
                    }
                }
            }
        }
        Err(self.failed("no session can be opened".to_owned()))
    }

    fn open(&self, refused: &mut Option<String>) -> Result<(Session, ObjectHandle), KeyError> {
        if let Some(what) = refused {
            return Err(self.locked(what.clone()));
        }
        let session = self.session()?;
        let pin = secrets::read_text(&self.pin_file)
            .map_err(|error| self.failed(format!("its PIN: {error}")))?;
        let pin = AuthPin::from(pin.trim_end_matches(['\r', '\n']).to_owned());
        match session.login(UserType::User, Some(&pin)) {
            // Another key of this token is in use in this process.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => {
                if let Error::Pkcs11(
                    RvError::PinIncorrect
                    | RvError::PinInvalid
                    | RvError::PinLenRange
                    | RvError::PinExpired
                    | RvError::PinLocked,
                    _,
                ) = &error
                {
                    let what = format!("the PIN in {} was refused", self.pin_file.display());
                    *refused = Some(what.clone());
                    return Err(self.locked(what));
                }
                return Err(self.trouble(&error));
            }
        }
        let key = self.find(&session, ObjectClass::PRIVATE_KEY)?;
        Ok((session, key))
    }

    fn session(&self) -> Result<Session, KeyError> {
        let module = module(&self.module)
            .map_err(|error| self.failed(format!("{}: {error}", self.module.display())))?;
        let slots = module.get_slots_with_token();
        for slot in slots.map_err(|error| self.trouble(&error))? {
            // A token that went meanwhile is not the one.
            let Ok(token) = module.get_token_info(slot) else {
                continue;
            };
            if token.label() == self.label {
                let session = module.open_ro_session(slot);
                return session.map_err(|error| self.trouble(&error));
            }
        }
        Err(self.with(KeyTrouble::Away {
            what: format!("no token is labelled {}; put it in", self.label),
        }))
    }

    fn find(&self, session: &Session, class: ObjectClass) -> Result<ObjectHandle, KeyError> {
        let template = [
            Attribute::Class(class),
            Attribute::Label(self.object.clone().into_bytes()),
        ];
        let found = session.find_objects(&template);
        match found.map_err(|error| self.trouble(&error))?.as_slice() {
            [one] => Ok(*one),
            [] => Err(self.with(KeyTrouble::Gone {
                what: format!("the token {} holds no {class} {}", self.label, self.object),
            })),
            several => Err(self.failed(format!(
                "the token {} holds {} of label {}",
                self.label,
                several.len(),
                self.object
            ))),
        }
    }

    fn trouble(&self, error: &Error) -> KeyError {
        let what = error.to_string();
        self.with(match error {
            Error::Pkcs11(
                RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::DeviceRemoved
                | RvError::DeviceError
                | RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::UserNotLoggedIn
                | RvError::KeyHandleInvalid,
                _,
            ) => KeyTrouble::Away { what },
            Error::Pkcs11(RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange, _) => {
                KeyTrouble::Wrong { what }
            }
            // What some tokens say to a ciphertext that is not theirs.
            Error::Pkcs11(RvError::GeneralError | RvError::FunctionFailed, _) => {
                KeyTrouble::Wrong { what }
            }
            Error::Pkcs11(RvError::KeyFunctionNotPermitted | RvError::MechanismInvalid, _) => {
                KeyTrouble::Denied { what }
            }
            _ => KeyTrouble::Failed { what },
        })
    }

    fn locked(&self, what: String) -> KeyError {
        self.with(KeyTrouble::Locked { what })
    }

    fn failed(&self, what: String) -> KeyError {
        self.with(KeyTrouble::Failed { what })
    }

    fn with(&self, trouble: KeyTrouble) -> KeyError {
        KeyError {
            key: self.key.clone(),
            trouble,
        }
    }
}

/// SHA-1 and no label: what every token speaks. Nothing here rests on SHA-1 being free of collisions.
fn oaep() -> Mechanism<'static> {
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(
        MechanismType::SHA1,
        PkcsMgfType::MGF1_SHA1,
        PkcsOaepSource::empty(),
    ))
}

fn without_leading_zeros(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0);
    bytes[start.unwrap_or(bytes.len())..].to_vec()
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.key)
    }
}
