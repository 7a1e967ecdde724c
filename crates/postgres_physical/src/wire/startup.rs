//! Start-up and authentication: trust, peer, clear text, MD5 and SCRAM-SHA-256.

use super::{ConnectOptions, Frame, ServerMessage, Wire, WireError, take_cstr};
use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use std::time::Instant;

pub(super) fn log_in(
    wire: &mut Wire,
    options: &ConnectOptions,
    extra: &[(&str, &str)],
) -> Result<(), WireError> {
    let mut parameters = vec![
        ("user", options.user.as_str()),
        ("database", options.database.as_str()),
        ("application_name", options.application_name.as_str()),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "UTC"),
    ];
    parameters.extend_from_slice(extra);
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message)?;
    wire.send(&message)?;
    let mut conversation = Conversation {
        wire,
        options,
        deadline: Instant::now() + options.patience,
    };
    conversation.authenticate()?;
    while conversation.next()?.tag != b'Z' {}
    Ok(())
}

struct Conversation<'a> {
    wire: &'a mut Wire,
    options: &'a ConnectOptions,
    deadline: Instant,
}

impl Conversation<'_> {
    fn next(&mut self) -> Result<Frame, WireError> {
        let Some(frame) = self.wire.frame_before(Some(self.deadline))? else {
            return Err(WireError::Timeout {
                what: "the login".into(),
                seconds: self.options.patience.as_secs(),
            });
        };
        if frame.tag == b'E' {
            let server = Box::new(ServerMessage::parse(frame.body));
            return Err(WireError::Login {
                target: self.options.target(),
                user: self.options.user.clone(),
                server,
            });
        }
        Ok(frame)
    }

    fn authenticate(&mut self) -> Result<(), WireError> {
        loop {
            let mut frame = self.next()?;
            match frame.tag {
                b'R' => {}
                b'N' | b'S' => continue,
                _ => return Err(self.wire.unexpected("the login", &frame)),
            }
            match frame.body.try_get_u32().unwrap_or(u32::MAX) {
                0 => return Ok(()),
                3 => {
                    let password = self.password("password")?;
                    self.send_password(password.as_bytes())?;
                }
                5 => {
                    let password = self.password("md5")?;
                    let salt = frame.body.get(..4).and_then(|salt| salt.try_into().ok());
                    let salt = salt
                        .ok_or_else(|| WireError::Protocol("an MD5 request without salt".into()))?;
                    let hash = md5_hash(self.options.user.as_bytes(), password.as_bytes(), salt);
                    self.send_password(hash.as_bytes())?;
                }
                10 => self.scram(frame.body)?,
                other => {
                    return Err(WireError::Authentication {
                        target: self.options.target(),
                        method: method_name(other),
                    });
                }
            }
        }
    }

    fn scram(&mut self, mut offered: Bytes) -> Result<(), WireError> {
        let mut found = false;
        while let Some(mechanism) = take_cstr(&mut offered) {
            found |= mechanism == SCRAM_SHA_256;
        }
        if !found {
            return Err(WireError::Authentication {
                target: self.options.target(),
                method: "SASL without SCRAM-SHA-256".into(),
            });
        }
        let password = self.password("scram-sha-256")?;
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut message = BytesMut::new();
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut message)?;
        self.wire.send(&message)?;
        let challenge = self.sasl_body(11)?;
        scram.update(&challenge)?;
        message.clear();
        frontend::sasl_response(scram.message(), &mut message)?;
        self.wire.send(&message)?;
        let proof = self.sasl_body(12)?;
        // The server proves that it knows the password too.
        Ok(scram.finish(&proof)?)
    }

    fn sasl_body(&mut self, expected: u32) -> Result<Bytes, WireError> {
        let mut frame = self.next()?;
        if frame.tag != b'R' || frame.body.try_get_u32() != Ok(expected) {
            return Err(WireError::Protocol(
                "the SCRAM exchange is out of order".into(),
            ));
        }
        Ok(frame.body)
    }

    fn password(&self, method: &'static str) -> Result<String, WireError> {
        let missing = || WireError::PasswordMissing {
            target: self.options.target(),
            user: self.options.user.clone(),
            method,
        };
        Ok(self
            .options
            .password
            .as_ref()
            .ok_or_else(missing)?
            .expose()
            .to_owned())
    }

    fn send_password(&mut self, password: &[u8]) -> Result<(), WireError> {
        let mut message = BytesMut::new();
        frontend::password_message(password, &mut message)?;
        self.wire.send(&message)
    }
}

fn method_name(code: u32) -> String {
    match code {
        2 => "Kerberos".into(),
        7 | 8 => "GSSAPI".into(),
        9 => "SSPI".into(),
        other => format!("number {other}"),
    }
}
