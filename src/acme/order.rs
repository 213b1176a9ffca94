//! The talk with the ACME server for one certificate.

use super::storage::Storage;
use super::{Acme, AcmeError, Challenge, Laid, Laying, Settings};
use crate::addr::Host;
use crate::channel::tls::by_name::Certified;
use instant_acme::{
    Account, AccountBuilder, AuthorizationHandle, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::time::Duration;

/// How the server is asked whether it has come further.
const POLLING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

/// The account of the folder; a new one where there is none. By using an ACME server one agrees to its terms.
pub(super) async fn account(
    builder: AccountBuilder,
    settings: &Settings,
    storage: &Storage,
) -> Result<Account, AcmeError> {
    if let Some(credentials) = storage.account()? {
        return Ok(builder.from_credentials(credentials).await?);
    }
    let contact = settings.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<_> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder.create(&new, settings.directory.clone(), None).await?;
    storage.save_account(&credentials)?;
    Ok(account)
}

/// A certificate for the host: the chain and its key, both PEM.
pub(super) async fn obtain(
    account: &Account,
    acme: &Acme,
    host: &Host,
    challenge: Challenge,
) -> Result<(String, String), AcmeError> {
    let identifiers = [Identifier::Dns(host.as_str().to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut laid = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        laid.extend(authorize(authorization?, acme, host, challenge).await?);
    }
    match order.poll_ready(&POLLING).await {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => drop(laid),
        Ok(_) => return Err(AcmeError::Refused(format!("{} failed", name(challenge)))),
        Err(instant_acme::Error::Api(problem)) => {
            return Err(AcmeError::Refused(format!("{} failed: {problem}", name(challenge))));
        }
        Err(error) => return Err(error.into()),
    }
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec![host.as_str().to_owned()])?;
    order.finalize_csr(params.serialize_request(&key)?.der()).await?;
    Ok((order.poll_certificate(&POLLING).await?, key.serialize_pem()))
}

/// Lays the answer out and tells the server that it is there.
async fn authorize<'a>(
    mut authorization: AuthorizationHandle<'_>,
    acme: &'a Acme,
    host: &Host,
    challenge: Challenge,
) -> Result<Option<Laying<'a>>, AcmeError> {
    if authorization.status == AuthorizationStatus::Valid {
        return Ok(None);
    }
    let offered = authorization.challenge(ChallengeType::from(challenge));
    let mut offered =
        offered.ok_or_else(|| AcmeError::Server(format!("the server does not offer {}", name(challenge))))?;
    let answer = offered.key_authorization();
    let laid = match challenge {
        Challenge::Http01 => Laid::Http(answer.as_str().to_owned()),
        Challenge::TlsAlpn01 => Laid::Tls(proof(host, answer.digest().as_ref())?),
    };
    let token = offered.token.clone();
    let laying = acme.lay(host, &token, laid);
    offered.set_ready().await?;
    Ok(Some(laying))
}

/// The certificate that a handshake of TLS-ALPN-01 shows.
fn proof(host: &Host, digest: &[u8]) -> Result<Certified, AcmeError> {
    let mut params = CertificateParams::new(vec![host.as_str().to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| AcmeError::Unusable(e.to_owned()))?;
    Certified::unchecked(certificate.der().clone(), key).map_err(|e| AcmeError::Unusable(e.to_string()))
}

fn name(challenge: Challenge) -> &'static str {
    match challenge {
        Challenge::Http01 => "http-01",
        Challenge::TlsAlpn01 => "tls-alpn-01",
    }
}
