//! The places of a server: how many connections it has at once, and who gives way when all of them are taken.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// See the module. Bounded by its limit.
pub(super) struct Places {
    limit: usize,
    /// Whether the oldest connection that has not asked anything gives way to a newcomer.
    idle_give_way: bool,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// Connections by age: whether one has asked for something, and what cuts it off.
    connections: BTreeMap<u64, (bool, CancellationToken)>,
}

/// A connection's place; free again when this is dropped.
pub(crate) struct Place {
    number: u64,
    places: Arc<Places>,
    cut: CancellationToken,
}

impl Places {
    pub(super) fn new(limit: usize, idle_give_way: bool) -> Arc<Self> {
        Arc::new(Self { limit, idle_give_way, taken: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.connections.len() >= self.limit {
            let idle = taken.connections.iter().find(|(_, (asked, _))| !asked).map(|(number, _)| *number);
            let (_, cut) = taken.connections.remove(&idle.filter(|_| self.idle_give_way)?)?;
            cut.cancel();
        }
        let (number, cut) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.connections.insert(number, (false, cut.clone()));
        Some(Place { number, places: Arc::clone(self), cut })
    }
}

impl Place {
    /// What is called when the connection asks for something: from then on it gives way to nobody.
    pub(super) fn asked(&self) -> impl Fn() + Send + use<> {
        let (places, number) = (Arc::clone(&self.places), self.number);
        move || {
            if let Some((asked, _)) = places.lock().connections.get_mut(&number) {
                *asked = true;
            }
        }
    }

    /// Ends when the place is another one's.
    pub(super) async fn given_away(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_has_not_asked_gives_way_and_who_has_asked_stays() {
        let places = Places::new(2, true);
        let [asking, idle] = [places.take(), places.take()].map(|place| place.expect("there is room"));
        asking.asked()();
        let newcomer = places.take().expect("the idle one gives way");
        assert_eq!([&asking, &idle, &newcomer].map(|place| place.cut.is_cancelled()), [false, true, false]);
        newcomer.asked()();
        assert!(places.take().is_none(), "both are at work");
        drop(idle);
        assert!(places.take().is_none(), "its place was taken already");
        drop(asking);
        assert!(places.take().is_some());
        assert_eq!(places.lock().connections.len(), 1, "what was taken and dropped is gone");
    }

    #[test]
    fn without_giving_way_newcomers_are_turned_away() {
        let places = Places::new(1, false);
        let first = places.take().expect("there is room");
        assert!(places.take().is_none());
        assert!(!first.cut.is_cancelled());
        drop(first);
        assert!(places.take().is_some());
    }
}
