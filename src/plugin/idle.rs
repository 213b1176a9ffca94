//! What waits to be used again, kept by the thread that used it last: its memory is in that core's cache.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More threads than these share places.
const MAX_PLACES: usize = 64;

/// A bounded set with a stack for each of some threads.
#[derive(Debug)]
pub(super) struct Idle<T> {
    /// A power of two, so that finding the place of a thread takes no division.
    stacks: Box<[Stack<T>]>,
    /// At most as many as there are on the stacks: what was counted off will be found there.
    len: AtomicUsize,
    max: usize,
}

/// Apart from the others in memory: two in one line would go back and forth between the cores of their threads.
#[derive(Debug)]
#[repr(align(128))]
struct Stack<T>(Mutex<Vec<T>>);

impl<T> Idle<T> {
    /// An empty one for so many, at least one.
    pub(super) fn new(max: usize) -> Self {
        let places = max.clamp(1, MAX_PLACES).next_power_of_two();
        let stacks = (0..places).map(|_| Stack(Mutex::default())).collect();
        Self { stacks, len: AtomicUsize::new(0), max }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The one that this thread has used last if it is there, or another; none unless there are more than `spared`.
    pub(super) fn pop(&self, spared: usize) -> Option<T> {
        let less = |len: usize| (len > spared).then(|| len - 1);
        self.len.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).ok()?;
        let own = own_place();
        // Others take and give meanwhile, so one look may miss what is there.
        (own..).find_map(|place| self.stack(place).pop())
    }

    /// Keeps it, if there is room.
    pub(super) fn push(&self, item: T) {
        if self.len() < self.max {
            self.stack(own_place()).push(item);
            self.len.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// That of a place, counted round.
    fn stack(&self, place: usize) -> MutexGuard<'_, Vec<T>> {
        self.stacks[place & (self.stacks.len() - 1)].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number for this thread.
fn own_place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % MAX_PLACES;
    }
    PLACE.with(|place| *place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn each_thread_gets_its_own_back_and_any_other_if_it_has_none() {
        let idle = Idle::new(8);
        thread::scope(|scope| scope.spawn(|| idle.push("theirs")).join().unwrap());
        idle.push("ours");
        assert_eq!((idle.pop(2), idle.pop(1)), (None, Some("ours")));
        assert_eq!((idle.pop(1), idle.pop(0), idle.pop(0)), (None, Some("theirs"), None));
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let idle = Idle::new(2);
        (0..5).for_each(|n| idle.push(n));
        assert_eq!((idle.len(), idle.pop(0), idle.pop(0), idle.pop(0)), (2, Some(1), Some(0), None));
    }

    /// Whoever is told that there is one gets one, and nothing is lost or given twice.
    #[test]
    fn threads_that_take_and_give_at_once() {
        let idle = Idle::new(3);
        (0..3).for_each(|n| idle.push(n));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(item) = idle.pop(0) {
                            idle.push(item);
                        }
                    }
                });
            }
        });
        let mut left: Vec<_> = std::iter::from_fn(|| idle.pop(0)).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 1, 2]);
    }
}
