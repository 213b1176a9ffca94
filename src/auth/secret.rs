//! Passwords as they are kept.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier};
use bcrypt::HashParts;
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// More memory than this for one password is a mistake in the file, in KiB.
const MAX_ARGON2_MEMORY: u32 = 1024 * 1024;
/// At this cost one password takes minutes.
const MAX_BCRYPT_COST: u32 = 20;

/// A password, or a hash of one; `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    /// SHA-256 of the password: two of them have one length, so that comparing them tells nothing.
    Plain([u8; 32]),
    Argon2(String),
    Bcrypt(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    /// Text that begins as an argon2 (`$argon2id$...`) or bcrypt (`$2b$...`) hash is one; any other text is the password itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty password would let in whoever knows the name".to_owned());
        }
        if text.starts_with("$argon2") {
            let hash = PasswordHash::new(text).map_err(|error| format!("no argon2 hash: {error}"))?;
            let params =
                argon2::Params::try_from(&hash).map_err(|error| format!("no argon2 hash: {error}"))?;
            if hash.hash.is_none() || hash.salt.is_none() {
                return Err("no argon2 hash: salt or hash is missing".to_owned());
            }
            if params.m_cost() > MAX_ARGON2_MEMORY {
                return Err(format!("argon2 hash with m={}: at most {MAX_ARGON2_MEMORY}", params.m_cost()));
            }
            return Ok(Self(Kind::Argon2(text.to_owned())));
        }
        if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|start| text.starts_with(start)) {
            let parts: HashParts = text.parse().map_err(|error| format!("no bcrypt hash: {error}"))?;
            if parts.get_cost() > MAX_BCRYPT_COST {
                return Err(format!("bcrypt hash of cost {}: at most {MAX_BCRYPT_COST}", parts.get_cost()));
            }
            return Ok(Self(Kind::Bcrypt(text.to_owned())));
        }
        Ok(Self(Kind::Plain(Sha256::digest(text).into())))
    }

    /// Whether a comparison takes milliseconds of processor time.
    pub(super) fn is_slow(&self) -> bool {
        !matches!(self.0, Kind::Plain(_))
    }

    /// Whether it is the password, in a time that tells nothing of how far it is right.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Plain(digest) => {
                let given: [u8; 32] = Sha256::digest(password).into();
                digest.ct_eq(&given).into()
            }
            Kind::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Kind::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        }
    }
}
