//! Brings one Secret to its desired state: read, plan, write, and start again on a conflict.
//!
//! Caches the last state of each Secret, so that an unchanged one costs no request, and a verified
//! one costs a GET of its metadata.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::debug;

use super::error::Error;
use super::plan::{self, DesiredSecret, OwnerChange, Owners, Plan, Refusal};
use crate::kubernetes::{SecretContent, SecretError, SecretRef, SecretVersion, Secrets};
use crate::model::{ClassRef, Owner};

/// How often a Secret may change between our read and our write.
const ATTEMPTS: usize = 8;
/// For how long a rejected write is not repeated. An admission policy may change, so it has an end.
const REJECTED: Duration = Duration::from_secs(600);

/// How current the known state of a Secret has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// The cached state counts, without a request.
    Cached,
    /// The API server confirms the cached state: the Secret may have been changed or deleted.
    Verified,
}

/// What [`Writer::ensure`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// Nothing: the Secret is as desired.
    Unchanged,
    /// Nothing: another node wrote newer content.
    Newer,
    Created,
    /// Changed the content, or replaced the owners.
    Updated,
    AddedOwners,
}

/// Writes Secrets. Cheap to clone; all clones share the cache.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    secrets: Secrets,
    cache: Arc<Mutex<HashMap<SecretRef, Cached>>>,
    rejected: Arc<Mutex<HashMap<SecretRef, Rejected>>>,
}

/// The state of a Secret when it was as desired.
#[derive(Debug, Clone)]
struct Cached {
    version: SecretVersion,
    /// See [`DesiredSecret::digest`].
    digest: [u8; 32],
    /// The digest of everything that the content was built from.
    inputs: [u8; 32],
    class: String,
    outcome: WriteOutcome,
}

/// A write that the API server rejected for its content: repeating it would change nothing.
#[derive(Debug, Clone)]
struct Rejected {
    /// The Secret's version at that time; `None` if it did not exist.
    version: Option<SecretVersion>,
    /// See [`DesiredSecret::digest`].
    digest: [u8; 32],
    class: String,
    at: Instant,
    error: SecretError,
}

/// Why an attempt failed.
enum AttemptError {
    Refused(Refusal),
    Request(SecretError),
}

impl AttemptError {
    fn with_secret(self, secret: &SecretRef) -> Error {
        let secret = secret.clone();
        match self {
            AttemptError::Refused(refusal) => Error::Refused { secret, refusal },
            AttemptError::Request(source) => Error::Request { secret, source },
        }
    }
}

impl From<SecretError> for AttemptError {
    fn from(error: SecretError) -> AttemptError {
        AttemptError::Request(error)
    }
}

impl Writer {
    pub(crate) fn new(secrets: Secrets) -> Writer {
        Writer { secrets, cache: Arc::default(), rejected: Arc::default() }
    }

    /// Whether the Secret is up to date with these inputs, so that its content need not be built.
    ///
    /// # Errors
    /// The API server does not let us read the metadata.
    pub(crate) async fn up_to_date(
        &self,
        secret: &SecretRef,
        freshness: Freshness,
        inputs: [u8; 32],
    ) -> Result<Option<WriteOutcome>, Error> {
        let found = self.unchanged(secret, freshness, |cached| cached.inputs == inputs).await;
        found.map_err(|error| AttemptError::from(error).with_secret(secret))
    }

    /// Brings the Secret to the desired state, which was built from `inputs`. `abandoned` answers
    /// whether a class of this name no longer asks for the Secret.
    ///
    /// # Errors
    /// The Secret must not be changed, or the API server does not let us.
    pub(crate) async fn ensure<F: Future<Output = bool>>(
        &self,
        desired: &DesiredSecret,
        inputs: [u8; 32],
        freshness: Freshness,
        abandoned: impl Fn(String) -> F,
    ) -> Result<WriteOutcome, Error> {
        let outcome = self.reconcile(desired, inputs, freshness, abandoned).await;
        outcome.map_err(|error| error.with_secret(&desired.reference))
    }

    async fn reconcile<F: Future<Output = bool>>(
        &self,
        desired: &DesiredSecret,
        inputs: [u8; 32],
        freshness: Freshness,
        abandoned: impl Fn(String) -> F,
    ) -> Result<WriteOutcome, AttemptError> {
        let (secret, digest) = (&desired.reference, desired.digest());
        if let Some(outcome) = self.unchanged(secret, freshness, |cached| cached.digest == digest).await? {
            if let Some(cached) = self.cache().get_mut(secret).filter(|cached| cached.digest == digest) {
                cached.inputs = inputs;
            }
            return Ok(outcome);
        }
        let (mut class_abandoned, mut added_owners) = (false, false);
        let mut conflict = SecretError::Changed;
        for _ in 0..ATTEMPTS {
            match self.attempt(desired, digest, class_abandoned).await {
                // Adding an owner does not check the resourceVersion: compare again.
                Ok((_, WriteOutcome::AddedOwners)) => added_owners = true,
                Ok((version, outcome)) => {
                    let cached =
                        if outcome == WriteOutcome::Newer { WriteOutcome::Newer } else { WriteOutcome::Unchanged };
                    let class = desired.class.clone();
                    self.rejected().remove(secret);
                    self.cache().insert(secret.clone(), Cached { version, digest, inputs, class, outcome: cached });
                    let unchanged = outcome == WriteOutcome::Unchanged;
                    return Ok(if added_owners && unchanged { WriteOutcome::AddedOwners } else { outcome });
                }
                Err(AttemptError::Refused(Refusal::OtherClass(class)))
                    if !class_abandoned && abandoned(class.clone()).await =>
                {
                    class_abandoned = true;
                }
                Err(AttemptError::Request(
                    error @ (SecretError::Exists | SecretError::Changed | SecretError::Gone),
                )) => {
                    debug!(%secret, err = %error, "the Secret changed between read and write");
                    conflict = error;
                }
                Err(error) => {
                    if matches!(error, AttemptError::Refused(_)) {
                        self.cache().remove(secret);
                    }
                    return Err(error);
                }
            }
        }
        Err(conflict.into())
    }

    /// Reads the Secret, plans, and writes.
    async fn attempt(
        &self,
        desired: &DesiredSecret,
        digest: [u8; 32],
        class_abandoned: bool,
    ) -> Result<(SecretVersion, WriteOutcome), AttemptError> {
        let Some(stored) = self.secrets.get(&desired.reference).await? else {
            self.check_rejected(desired, None, digest)?;
            let created = self.create(desired).await;
            return created.map_err(|error| self.record_rejected(desired, None, digest, error).into());
        };
        let manager = self.secrets.manager();
        let plan = plan::plan(manager, desired, &stored, class_abandoned, Timestamp::now());
        let plan = plan.map_err(AttemptError::Refused)?;
        if plan.writes() {
            self.check_rejected(desired, Some(&stored.version), digest)?;
        }
        let before = stored.version.clone();
        let written = self.carry_out(desired, stored.version, plan).await;
        written.map_err(|error| self.record_rejected(desired, Some(before), digest, error).into())
    }

    /// Drops the cached states of a class.
    pub(crate) fn forget_class(&self, class: &ClassRef) {
        let is_other = |at: &SecretRef, name: &str| at.namespace != class.namespace || name != class.name.as_str();
        self.cache().retain(|at, cached| is_other(at, &cached.class));
        self.rejected().retain(|at, rejected| is_other(at, &rejected.class));
    }

    /// Fails as before if the API server rejected this write to this version a short time ago.
    fn check_rejected(
        &self,
        desired: &DesiredSecret,
        version: Option<&SecretVersion>,
        digest: [u8; 32],
    ) -> Result<(), SecretError> {
        let rejected = self.rejected();
        let Some(rejected) = rejected.get(&desired.reference) else { return Ok(()) };
        let same = rejected.digest == digest && rejected.version.as_ref() == version;
        if same && rejected.at.elapsed() < REJECTED { Err(rejected.error.clone()) } else { Ok(()) }
    }

    /// Remembers the error if repeating the write is useless; returns the error.
    fn record_rejected(
        &self,
        desired: &DesiredSecret,
        version: Option<SecretVersion>,
        digest: [u8; 32],
        error: SecretError,
    ) -> SecretError {
        if error.is_final() {
            let (class, at) = (desired.class.clone(), Instant::now());
            let mut rejected = self.rejected();
            rejected.retain(|_, rejected| rejected.at.elapsed() < REJECTED);
            let entry = Rejected { version, digest, class, at, error: error.clone() };
            rejected.insert(desired.reference.clone(), entry);
        }
        error
    }

    /// The cached outcome, if `is_desired` accepts the cached state and the Secret still has it.
    async fn unchanged(
        &self,
        secret: &SecretRef,
        freshness: Freshness,
        is_desired: impl Fn(&Cached) -> bool,
    ) -> Result<Option<WriteOutcome>, SecretError> {
        let cached = self.cache().get(secret).filter(|cached| is_desired(cached)).cloned();
        match (cached, freshness) {
            (None, _) => Ok(None),
            (Some(cached), Freshness::Cached) => Ok(Some(cached.outcome)),
            (Some(cached), Freshness::Verified) => {
                let version = self.secrets.version(secret).await?;
                Ok((version.as_ref() == Some(&cached.version)).then_some(cached.outcome))
            }
        }
    }

    async fn create(&self, desired: &DesiredSecret) -> Result<(SecretVersion, WriteOutcome), SecretError> {
        let owners: &[Owner] = match &desired.owners {
            Owners::Shared(owners) => owners,
            Owners::None => &[],
        };
        let labels = desired.labels(self.secrets.manager());
        let annotations = desired.annotations(desired.content_time);
        let content = content(desired, &labels, &annotations);
        Ok((self.secrets.create(&desired.reference, &content, owners).await?, WriteOutcome::Created))
    }

    async fn carry_out(
        &self,
        desired: &DesiredSecret,
        mut version: SecretVersion,
        plan: Plan,
    ) -> Result<(SecretVersion, WriteOutcome), SecretError> {
        let secret = &desired.reference;
        let mut outcome = if plan.newer { WriteOutcome::Newer } else { WriteOutcome::Unchanged };
        if let Some(fields) = &plan.take_over {
            version = self.secrets.set_managed_fields(secret, &version, fields).await?;
        }
        if let Some(content_time) = plan.content {
            let labels = desired.labels(self.secrets.manager());
            let annotations = desired.annotations(content_time);
            version = self.secrets.apply(secret, &version, &content(desired, &labels, &annotations)).await?;
            outcome = WriteOutcome::Updated;
        }
        match &plan.owners {
            OwnerChange::Keep => {}
            OwnerChange::Add(owners) => {
                for owner in owners {
                    version = self.secrets.add_owner(secret, &version.uid, owner).await?;
                }
                outcome = WriteOutcome::AddedOwners;
            }
            OwnerChange::Replace(owners) => {
                version = self.secrets.set_owners(secret, &version, owners).await?;
                outcome = WriteOutcome::Updated;
            }
        }
        Ok((version, outcome))
    }

    fn rejected(&self) -> MutexGuard<'_, HashMap<SecretRef, Rejected>> {
        // Every change is one insertion or removal, so that a panic leaves no half-made entry.
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<SecretRef, Cached>> {
        // Every change is one insertion, removal or assignment.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn content<'a>(
    desired: &'a DesiredSecret,
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
) -> SecretContent<'a> {
    SecretContent { r#type: &desired.content.r#type, labels, annotations, data: &desired.content.data }
}
