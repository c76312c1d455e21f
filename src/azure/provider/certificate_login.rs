//! Reads the certificates that pods log in with, once for each, where that keeps nobody from his work.
//!
//! What is expensive goes to `compute`, in the turn of the pod's namespace. Remembers by a keyed digest of what the
//! Secret holds either why it is refused or what is public of it, never the key: `keyvault` has it read again when a
//! token is requested.

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

/// What is remembered of a certificate.
type Known = Result<CertificateFacts, Refusal>;

/// Why a certificate cannot log in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// It cannot be read.
    Unread(CertificateError),
    /// Certificate and key can be read, but cannot log in.
    Unfit(KeyFault),
}

/// The certificates that pods log in with. Cheap to clone; all clones share what is known.
#[derive(Debug, Clone)]
pub(super) struct CertificateLogins {
    compute: Compute,
    known: Arc<ResultCache<Known>>,
}

impl CertificateLogins {
    /// Logins of which nothing is known.
    pub(super) fn new(compute: Compute) -> CertificateLogins {
        CertificateLogins { compute, known: Arc::default() }
    }

    /// The credential of an application that logs in with this certificate.
    ///
    /// # Errors
    /// The certificate cannot be used, or not be read in time.
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
    ) -> Result<Result<KeyPair, Refusal>, compute::Error> {
        if text.is_cheap() {
            let read = read(text, &mut Work::default());
            self.known.put(namespace, input, summary(&read));
            return Ok(read);
        }
        let prepare = || {
            let (text, known, namespace) = (text.clone(), self.known.clone(), namespace.to_owned());
            move |work: &mut Work| {
                let read = read(&text, work);
                // Here, so that the work counts even if the caller's deadline passes before it is done.
                known.put(&namespace, input, summary(&read));
                read
            }
        };
        self.compute.run(namespace, deadline, prepare).await
    }

    fn refused(&self, params: &Params, class: &ClassRef, proof: &CertificateProof, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Unread(source) => {
                if source.is_too_expensive() {
                    self.compute.count_too_expensive();
                }
                refused(params, class, proof.refused(source))
            }
            Refusal::Unfit(fault) => {
                Error::Vault { class: class.clone(), object: None, source: keyvault::Error::from(fault) }
            }
        }
    }
}

/// What is remembered of a certificate that was read.
fn summary(read: &Result<KeyPair, Refusal>) -> Known {
    read.as_ref().map(KeyPair::facts).map_err(Clone::clone)
}

fn read(text: &CertificateText, work: &mut Work) -> Result<KeyPair, Refusal> {
    let read = text.read(work).map_err(Refusal::Unread)?;
    KeyPair::new(&read.certificate, read.key.expose_secret()).map_err(Refusal::Unfit)
}
