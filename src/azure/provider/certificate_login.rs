//! Parses the certificates that pods log in with, once for each.
//!
//! Expensive parsing runs on the `compute` thread, which is fair among namespaces. Caches by a
//! keyed digest of the Secret's values either the refusal or the public facts of a certificate,
//! never the private key: `keyvault` has the certificate parsed again for each token request.

use std::sync::Arc;

use tokio::time::Instant;

use super::client_certificate::{CertificateError, CertificateText};
use super::credentials::CertificateProof;
use super::error::Error;
use super::login::refused;
use super::params::Params;
use crate::azure::keyvault::{self, CertificateFacts, Credential, KeyFault, KeyPair, LoginCertificate};
use crate::compute::{self, Compute, ResultCache};
use crate::formats::pkcs12::Work;
use crate::model::{ClassRef, ExposeSecret as _};

/// The cached result for a certificate.
type Known = Result<CertificateFacts, LoginRefusal>;

/// Why a certificate cannot log in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LoginRefusal {
    /// It cannot be parsed.
    Unread(CertificateError),
    /// Certificate and key can be parsed, but cannot log in.
    Unfit(KeyFault),
}

/// The certificates that pods log in with. Cheap to clone; all clones share the cache.
#[derive(Debug, Clone)]
pub(super) struct CertificateLogins {
    compute: Compute,
    known: Arc<ResultCache<Known>>,
}

impl CertificateLogins {
    /// Logins with an empty cache.
    pub(super) fn new(compute: Compute) -> CertificateLogins {
        CertificateLogins { compute, known: Arc::default() }
    }

    /// The credential of an application that logs in with this certificate.
    ///
    /// # Errors
    /// The certificate cannot be used, or not be parsed before the deadline.
    pub(super) async fn credential(
        &self,
        (params, class): (&Params, &ClassRef),
        client_id: String,
        proof: CertificateProof,
        deadline: Instant,
    ) -> Result<Credential, Error> {
        let namespace = &class.namespace;
        let input = self.compute.digest(&proof.text.parts());
        let (known, pair) = match self.known.get(namespace, &input) {
            Some(known) => (known, None),
            None => {
                let late = |source| Error::Compute { class: class.clone(), what: proof.keys.clone(), source };
                let read = self.read(namespace, &proof.text, input, deadline).await.map_err(late)?;
                (summary(&read), read.ok())
            }
        };
        let facts = known.map_err(|refusal| self.refused(params, class, &proof, refusal))?;
        let certificate = match pair {
            Some(pair) => LoginCertificate::read(pair),
            None => LoginCertificate::known(facts, move |work| {
                read(&proof.text, work).map_err(|_| KeyFault::Unfit("it was read before, and cannot be read any more"))
            }),
        };
        Ok(Credential::ClientCertificate { client_id, namespace: namespace.to_string(), certificate })
    }

    async fn read(
        &self,
        namespace: &str,
        text: &Arc<CertificateText>,
        input: [u8; 32],
        deadline: Instant,
    ) -> Result<Result<KeyPair, LoginRefusal>, compute::Error> {
        if text.is_cheap() {
            let read = read(text, &mut Work::default());
            self.known.put(namespace, input, summary(&read));
            return Ok(read);
        }
        let prepare = || {
            let (text, known, namespace) = (text.clone(), self.known.clone(), namespace.to_owned());
            move |work: &mut Work| {
                let read = read(&text, work);
                // On the thread, so that the result is cached even if the caller's deadline passes
                // first.
                known.put(&namespace, input, summary(&read));
                read
            }
        };
        self.compute.run(namespace, deadline, prepare).await
    }

    fn refused(&self, params: &Params, class: &ClassRef, proof: &CertificateProof, refusal: LoginRefusal) -> Error {
        match refusal {
            LoginRefusal::Unread(source) => {
                if source.is_too_expensive() {
                    self.compute.count_too_expensive();
                }
                refused(params, class, proof.refused(source))
            }
            LoginRefusal::Unfit(fault) => {
                Error::Vault { class: class.clone(), object: None, source: keyvault::Error::from(fault) }
            }
        }
    }
}

/// The part of a result that is cached: never the private key.
fn summary(read: &Result<KeyPair, LoginRefusal>) -> Known {
    read.as_ref().map(KeyPair::facts).map_err(Clone::clone)
}

fn read(text: &CertificateText, work: &mut Work) -> Result<KeyPair, LoginRefusal> {
    let read = text.read(work).map_err(LoginRefusal::Unread)?;
    KeyPair::new(&read.certificate, read.key.expose_secret()).map_err(LoginRefusal::Unfit)
}
