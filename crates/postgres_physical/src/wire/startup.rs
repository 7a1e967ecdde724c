//! Start-up and authentication: trust, peer, clear text, MD5 and SCRAM-SHA-256.

use super::{Address, ConnectOptions, Frame, ServerMessage, Wire, WireError, take_cstr};
use bytes::{Buf, Bytes, BytesMut};
use connection::{Secret, TlsError};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;
use std::time::Instant;

pub(super) fn log_in(
    wire: &mut Wire,
    options: &ConnectOptions,
    address: &Address,
    binding: Option<Vec<u8>>,
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
    // What the string says, and after it what the session needs.
    let said = options.server_options.as_deref();
    let needed = extra.iter().filter(|(name, _)| *name == "options");
    let server_options: Vec<&str> = said
        .into_iter()
        .chain(needed.map(|(_, value)| *value))
        .collect();
    let server_options = server_options.join(" ");
    if !server_options.is_empty() {
        parameters.push(("options", &server_options));
    }
    parameters.extend(extra.iter().filter(|(name, _)| *name != "options"));
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message)?;
    wire.send(&message)?;
    let mut conversation = Conversation {
        wire,
        options,
        address,
        binding,
        bound: false,
        deadline: Instant::now() + options.timeout,
    };
    conversation.authenticate()?;
    loop {
        let mut frame = conversation.next()?;
        match frame.tag {
            b'Z' => return Ok(()),
            b'K' => {
                let key = frame.body.as_ref().try_into().ok();
                conversation.wire.key = key.map(|key| (key, address.clone()));
            }
            b'S' => {
                let reported = &mut conversation.wire.reported;
                match take_cstr(&mut frame.body).as_deref() {
                    Some("in_hot_standby") => reported.in_hot_standby = take_cstr(&mut frame.body),
                    Some("default_transaction_read_only") => {
                        reported.read_only = take_cstr(&mut frame.body);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

struct Conversation<'a> {
    wire: &'a mut Wire,
    options: &'a ConnectOptions,
    address: &'a Address,
    /// What SCRAM can be bound to.
    binding: Option<Vec<u8>>,
    bound: bool,
    deadline: Instant,
}

/// How PgBouncer begins its word about a start-up parameter that it does not pass on; PostgreSQL says it of none of
/// ours.
const POOLERS_WORD: &str = "unsupported startup parameter";

impl Conversation<'_> {
    fn next(&mut self) -> Result<Frame, WireError> {
        let Some(frame) = self.wire.frame_before(Some(self.deadline))? else {
            return Err(WireError::Timeout {
                what: "the login".into(),
                seconds: self.options.timeout.as_secs(),
            });
        };
        if frame.tag == b'E' {
            let server = Box::new(ServerMessage::parse(frame.body));
            if server.message.starts_with(POOLERS_WORD) {
                return Err(WireError::Pooler {
                    target: self.options.target(),
                    server,
                });
            }
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
                0 => {
                    return self.must_be_bound("the server let us in without SCRAM");
                }
                3 => {
                    self.must_be_bound("the server asks for a password in clear text")?;
                    let password = self.password("password")?;
                    self.send_password(password.expose().as_bytes())?;
                }
                5 => {
                    self.must_be_bound("the server asks for an MD5 password")?;
                    let password = self.password("md5")?;
                    let salt = frame.body.get(..4).and_then(|salt| salt.try_into().ok());
                    let salt = salt
                        .ok_or_else(|| WireError::Protocol("an MD5 request without salt".into()))?;
                    let hash = md5_hash(
                        self.options.user.as_bytes(),
                        password.expose().as_bytes(),
                        salt,
                    );
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
        let (mut plain, mut plus) = (false, false);
        while let Some(mechanism) = take_cstr(&mut offered) {
            plain |= mechanism == SCRAM_SHA_256;
            plus |= mechanism == SCRAM_SHA_256_PLUS;
        }
        let (mechanism, binding) = match self.binding.take() {
            Some(hash) if plus => {
                self.bound = true;
                (
                    SCRAM_SHA_256_PLUS,
                    ChannelBinding::tls_server_end_point(hash),
                )
            }
            // Says that we could: a server that could too would notice that somebody took its offer away.
            Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        if !plain && !self.bound {
            return Err(WireError::Authentication {
                target: self.options.target(),
                method: "SASL without SCRAM-SHA-256".into(),
            });
        }
        self.must_be_bound("the server offers SCRAM without it")?;
        let password = self.password("scram-sha-256")?;
        let mut scram = ScramSha256::new(password.expose().as_bytes(), binding);
        let mut message = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut message)?;
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

    /// Before anything that a password could be read from is sent.
    fn must_be_bound(&self, why: &'static str) -> Result<(), WireError> {
        if self.bound || self.options.tls.channel_binding != connection::ChannelBinding::Require {
            return Ok(());
        }
        Err(WireError::Tls {
            target: self.options.target(),
            source: Box::new(TlsError::NotBound(why)),
        })
    }

    fn password(&self, method: &'static str) -> Result<Secret, WireError> {
        let (target, user) = (self.options.target(), self.options.user.clone());
        match self.options.password.ask(self.options, self.address) {
            Ok(Some(password)) => Ok(password),
            Ok(None) => Err(WireError::PasswordMissing {
                target,
                user,
                method,
            }),
            Err(source) => Err(WireError::Password {
                target,
                user,
                source: Box::new(source),
            }),
        }
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
