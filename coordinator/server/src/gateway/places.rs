//! Places for what a gateway does so much of at once: batches that run, files that are downloaded.
//!
//! Owns the places: so many of all, and so many of one tenant. Refuses to let a tenant wait for a place of all before it has one of its
//! own, so that the line before those of all is as short as there are tenants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use registry::Tenant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Clone)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_tenant: usize,
    /// Of each tenant that has one or waits.
    of_tenants: Arc<Mutex<BTreeMap<Tenant, Weak<Semaphore>>>>,
}

/// Free again when it is dropped.
pub(super) struct Place {
    _of_tenant: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new(of_all: usize, per_tenant: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(of_all)), per_tenant, of_tenants: Arc::default() }
    }

    /// Neither is ever closed.
    pub(super) async fn take(&self, tenant: Tenant) -> Place {
        let of_tenant = self.of(tenant).acquire_owned().await.ok();
        let of_all = self.all.clone().acquire_owned().await.ok();
        Place { _of_tenant: of_tenant, _of_all: of_all }
    }

    /// `None`: one would have to wait.
    pub(super) fn try_take(&self, tenant: Tenant) -> Option<Place> {
        let of_tenant = self.of(tenant).try_acquire_owned().ok()?;
        let of_all = self.all.clone().try_acquire_owned().ok()?;
        Some(Place { _of_tenant: Some(of_tenant), _of_all: Some(of_all) })
    }

    /// Those that have a place or wait for one hold it.
    fn of(&self, tenant: Tenant) -> Arc<Semaphore> {
        let mut of_tenants = self.of_tenants.lock().unwrap_or_else(PoisonError::into_inner);
        of_tenants.retain(|_, places| places.strong_count() > 0);
        if let Some(places) = of_tenants.get(&tenant).and_then(Weak::upgrade) {
            return places;
        }
        let places = Arc::new(Semaphore::new(self.per_tenant));
        of_tenants.insert(tenant, Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn waits(places: &Places, tenant: Tenant) -> bool {
        tokio::time::timeout(Duration::from_secs(1), places.take(tenant)).await.is_err()
    }

    const OF_ALL: usize = 6;
    const PER_TENANT: usize = 2;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_has_so_many_places_and_all_together_so_many() {
        let places = Places::new(OF_ALL, PER_TENANT);
        let tenants = OF_ALL / PER_TENANT;
        let mut taken = Vec::new();
        for tenant in (0..tenants as u64).map(Tenant) {
            for _ in 0..PER_TENANT {
                assert!(!waits(&places, tenant).await && places.try_take(tenant).is_some());
                taken.push(places.take(tenant).await);
            }
            assert!(waits(&places, tenant).await && places.try_take(tenant).is_none(), "it has its share");
        }
        assert!(waits(&places, Tenant(99)).await && places.try_take(Tenant(99)).is_none(), "all are taken");
        taken.truncate(1);
        assert!(!waits(&places, Tenant(99)).await && places.try_take(Tenant(99)).is_some());
        assert_eq!(places.of_tenants.lock().unwrap().len(), 2, "others are forgotten");
    }
}
