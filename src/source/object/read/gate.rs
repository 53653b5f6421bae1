//! How much at once: memory for all readers, and requests for each bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of a unit of memory.
const UNIT: u64 = 4 << 10;
/// Whoever needs memory to go on waits for it no longer than this, so that readers that wait for each other go on.
const LONGEST: Duration = Duration::from_millis(500);
/// Requests at once for one bucket, where it does not ask for fewer, and the fewest.
const MOST: usize = 64;
const FEWEST: usize = 4;

/// Memory that is shared.
#[derive(Debug)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    total: u64,
    held: Arc<AtomicU64>,
}

/// Some of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Grant {
    units: Arc<Semaphore>,
    permits: usize,
    bytes: u64,
    held: Arc<AtomicU64>,
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.units.add_permits(self.permits);
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), total: units as u64 * UNIT, held: Arc::default() }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn in_use(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn grant(&self, permits: usize, bytes: u64) -> Grant {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Grant { units: Arc::clone(&self.units), permits, bytes, held: Arc::clone(&self.held) }
    }

    fn units_of(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.min(self.total).div_ceil(UNIT)).unwrap_or(u32::MAX)
    }

    /// So much of it, if it is free.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Grant> {
        let units = self.units_of(bytes);
        self.units.try_acquire_many(units).ok()?.forget();
        Some(self.grant(units as usize, bytes))
    }

    /// So much of it, when it is free, or soon in any case.
    pub(super) async fn take(&self, bytes: u64) -> Grant {
        let units = self.units_of(bytes);
        match tokio::time::timeout(LONGEST, self.units.acquire_many(units)).await {
            Ok(Ok(permits)) => {
                permits.forget();
                self.grant(units as usize, bytes)
            }
            _ => self.grant(0, bytes),
        }
    }
}

/// How many requests a bucket gets at once: half as many when it asks for fewer, and one more after as many that went well.
#[derive(Debug)]
pub(super) struct Gate {
    free: Semaphore,
    limit: AtomicUsize,
    /// Permits that are to be dropped when they come back.
    surplus: AtomicUsize,
    well: AtomicUsize,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            free: Semaphore::new(MOST),
            limit: AtomicUsize::new(MOST),
            surplus: AtomicUsize::new(0),
            well: AtomicUsize::new(0),
        }
    }
}

/// Leave to make a request, until it is dropped.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    permit: Option<SemaphorePermit<'a>>,
}

impl Gate {
    pub(super) async fn pass(&self) -> Pass<'_> {
        // It is never closed.
        Pass { gate: self, permit: self.free.acquire().await.ok() }
    }

    /// The bucket asks for fewer.
    pub(super) fn throttled(&self) {
        let halved = self.limit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |limit| {
            let less = (limit / 2).max(FEWEST);
            (less < limit).then_some(less)
        });
        if let Ok(before) = halved {
            self.surplus.fetch_add(before - (before / 2).max(FEWEST), Ordering::Relaxed);
        }
        self.well.store(0, Ordering::Relaxed);
    }

    /// One went well.
    pub(super) fn went_well(&self) {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit >= MOST || self.well.fetch_add(1, Ordering::Relaxed) + 1 < limit {
            return;
        }
        self.well.store(0, Ordering::Relaxed);
        let more =
            self.limit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |limit| (limit < MOST).then_some(limit + 1));
        if more.is_ok() && !self.take_surplus() {
            self.free.add_permits(1);
        }
    }

    fn take_surplus(&self) -> bool {
        self.surplus.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |surplus| surplus.checked_sub(1)).is_ok()
    }

    #[cfg(test)]
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.gate.take_surplus()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::object::connect::runtime;

    #[test]
    fn memory_is_given_back() {
        let budget = Budget::new(1 << 20);
        let half = budget.try_take(1 << 19).expect("there is enough");
        assert!(budget.try_take((1 << 19) + 1).is_none());
        assert_eq!(budget.in_use(), 1 << 19);
        let other = budget.try_take(1 << 19).expect("there is enough");
        // Whoever has to goes on all the same.
        let over = runtime().block_on(budget.take(1 << 30));
        drop((half, other));
        drop(over);
        assert_eq!(budget.in_use(), 0);
        assert!(budget.try_take(1 << 20).is_some());
    }

    #[test]
    fn a_bucket_that_asks_for_fewer_gets_fewer() {
        runtime().block_on(async {
            let gate = Gate::default();
            gate.throttled();
            assert_eq!(gate.limit(), MOST / 2);
            // As many permits come back as are too many.
            for _ in 0..MOST {
                drop(gate.pass().await);
            }
            assert_eq!(gate.free.available_permits(), MOST / 2);
            (0..20).for_each(|_| gate.throttled());
            assert_eq!(gate.limit(), FEWEST);
            for _ in 0..MOST {
                drop(gate.pass().await);
            }
            assert_eq!(gate.free.available_permits(), FEWEST);
            (0..100_000).for_each(|_| gate.went_well());
            assert_eq!((gate.limit(), gate.free.available_permits()), (MOST, MOST));
        });
    }
}
