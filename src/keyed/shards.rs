//! A bounded map of shared things, by hash.
//!
//! It is split into shards, each with a lock that is held for a lookup, a link and no more. No user code runs under one:
//! a key is hashed before and compared after, so what is under the lock are hashes and places. Where room is needed, a
//! few members are looked at and the one that was unused for longest goes; which ones may go, the owner says.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::sync::{AtomicU32, AtomicUsize, Mutex, Ordering, processors};

/// How many members are looked at for one that may go.
const LOOKS: usize = 64;
/// Of so many that may go, the one that was unused for longest does.
const SAMPLE: usize = 8;
/// Shards for each processor: two threads seldom meet at one of so many.
const SHARDS_EACH: usize = 8;
const MOST_SHARDS: usize = 128;

#[derive(Debug)]
pub(super) struct Shards<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    /// Members and reservations.
    len: AtomicUsize,
    most: usize,
    /// Counts members that came: the time by which they age.
    age: AtomicU32,
    /// Where room is looked for next.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Shard<T> {
    /// The first member of each hash.
    firsts: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    members: Vec<Member<T>>,
    hand: usize,
}

#[derive(Debug)]
struct Member<T> {
    item: Arc<T>,
    hash: u64,
    /// When it was last found.
    used: u32,
    /// The next one of the same hash.
    next: u32,
}

const NONE: u32 = u32::MAX;

/// A member that may go: by its address, as a handle would keep it.
struct Found<T> {
    unused_for: i32,
    shard: usize,
    hash: u64,
    item: *const T,
}

/// Room for one more member. Dropped unused, it is given back.
#[derive(Debug)]
pub(super) struct Room<'s, T>(&'s Shards<T>);

impl<T> Shards<T> {
    /// For `most` members at most.
    pub(super) fn new(most: usize) -> Self {
        let count = (processors() * SHARDS_EACH).next_power_of_two().min(MOST_SHARDS);
        let shard = |_| Mutex::new(Shard { firsts: HashMap::default(), members: Vec::new(), hand: 0 });
        Self {
            shards: (0..count).map(shard).collect(),
            len: AtomicUsize::new(0),
            most,
            age: AtomicU32::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    /// The bits that no map below it goes by first.
    fn shard(&self, hash: u64) -> &Mutex<Shard<T>> {
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }

    /// Members, those that are being made included.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// All members.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        let items = |shard: &Mutex<Shard<T>>| -> Vec<_> {
            shard.lock().members.iter().map(|member| Arc::clone(&member.item)).collect()
        };
        self.shards.iter().flat_map(items).collect()
    }

    /// The member of this hash that `is_it` knows.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let age = self.age.load(Ordering::Relaxed);
        let first = self.shard(hash).lock().touch_first(hash, age)?;
        if is_it(&first) {
            return Some(first);
        }
        self.find_among(hash, is_it, &mut vec![first])
    }

    /// As [`Shards::find`], for those that are not in `known`; adds the others to it.
    #[cold]
    fn find_among(&self, hash: u64, is_it: impl Fn(&T) -> bool, known: &mut Vec<Arc<T>>) -> Option<Arc<T>> {
        let candidates = self.shard(hash).lock().strangers(hash, known);
        let found = candidates.iter().find(|item| is_it(item)).cloned();
        known.extend(candidates);
        found
    }

    /// Puts in a member, unless there is one that `is_it` knows: then that one is returned.
    pub(super) fn put(
        &self,
        room: Room<'_, T>,
        hash: u64,
        item: &Arc<T>,
        is_it: impl Fn(&T) -> bool,
    ) -> Option<Arc<T>> {
        let mut known = Vec::new();
        loop {
            if let Some(found) = self.find_among(hash, &is_it, &mut known) {
                return Some(found);
            }
            let mut shard = self.shard(hash).lock();
            // Only if nobody came meanwhile.
            if shard.strangers(hash, &known).is_empty() {
                shard.push(Arc::clone(item), hash, self.age.fetch_add(1, Ordering::Relaxed));
                std::mem::forget(room);
                return None;
            }
        }
    }

    /// Room for one more: there is some, or a member that `may_go` goes, and is returned.
    pub(super) fn make_room(&self, may_go: impl Fn(&mut Arc<T>) -> bool) -> Option<(Room<'_, T>, Option<Arc<T>>)> {
        let grow = |len: usize| (len < self.most).then_some(len + 1);
        if self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).is_ok() {
            return Some((Room(self), None));
        }
        let gone = self.evict(may_go)?;
        Some((Room(self), Some(gone)))
    }

    /// Takes out a member that may go, if there is one among those that are looked at. Its room is the caller's.
    fn evict(&self, may_go: impl Fn(&mut Arc<T>) -> bool) -> Option<Arc<T>> {
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            let Found { shard, hash, item, .. } = self.longest_unused(&may_go)?;
            // Its shard was left meanwhile, and somebody may hold it by now.
            let gone = self.shards[shard].lock().take(hash, item, &may_go);
            if gone.is_some() {
                return gone;
            }
        }
        None
    }

    fn longest_unused(&self, may_go: &impl Fn(&mut Arc<T>) -> bool) -> Option<Found<T>> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let (mut looks, mut candidates) = (LOOKS, 0);
        let mut best: Option<Found<T>> = None;
        for offset in 0..self.shards.len() {
            let index = start.wrapping_add(offset) & (self.shards.len() - 1);
            let mut shard = self.shards[index].lock();
            for _ in 0..shard.members.len().min(looks) {
                looks -= 1;
                let Some(member) = shard.next(may_go) else { continue };
                candidates += 1;
                // One that was found just now is from after this moment.
                let unused_for = self.age.load(Ordering::Relaxed).wrapping_sub(member.used) as i32;
                if best.as_ref().is_none_or(|best| unused_for > best.unused_for) {
                    best = Some(Found { unused_for, shard: index, hash: member.hash, item: Arc::as_ptr(&member.item) });
                }
                if candidates == SAMPLE {
                    return best;
                }
            }
        }
        best
    }

    /// Takes out this member, if it is one.
    pub(super) fn remove(&self, hash: u64, item: &Arc<T>) -> bool {
        let mut shard = self.shard(hash).lock();
        let place = shard.places(hash).find(|&place| Arc::ptr_eq(&shard.members[place as usize].item, item));
        let Some(place) = place else { return false };
        let removed = shard.remove(place as usize);
        drop(shard);
        drop((removed, Room(self)));
        true
    }
}

impl<T> Drop for Room<'_, T> {
    fn drop(&mut self) {
        self.0.len.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T> Shard<T> {
    /// The places of the members of a hash.
    fn places(&self, hash: u64) -> impl Iterator<Item = u32> {
        let first = self.firsts.get(&hash).copied();
        std::iter::successors(first, |&place| Some(self.members[place as usize].next).filter(|&next| next != NONE))
    }

    fn touch_first(&mut self, hash: u64, age: u32) -> Option<Arc<T>> {
        let member = &mut self.members[*self.firsts.get(&hash)? as usize];
        member.used = age;
        Some(Arc::clone(&member.item))
    }

    /// The members of a hash that are not `known`.
    fn strangers(&self, hash: u64, known: &[Arc<T>]) -> Vec<Arc<T>> {
        let items = self.places(hash).map(|place| &self.members[place as usize].item);
        items.filter(|item| !known.iter().any(|known| Arc::ptr_eq(known, item))).cloned().collect()
    }

    fn push(&mut self, item: Arc<T>, hash: u64, used: u32) {
        let place = self.members.len() as u32;
        let next = self.firsts.insert(hash, place).unwrap_or(NONE);
        if self.members.len() == self.members.capacity() {
            // By an eighth, not by half: what is reserved and not used is there once for each shard.
            self.members.reserve_exact(self.members.len() / 8 + 4);
        }
        self.members.push(Member { item, hash, used, next });
    }

    /// The next member, if it may go.
    fn next(&mut self, may_go: impl Fn(&mut Arc<T>) -> bool) -> Option<&Member<T>> {
        self.hand = (self.hand + 1) % self.members.len();
        let member = &mut self.members[self.hand];
        may_go(&mut member.item).then_some(&*member)
    }

    /// Takes out a member, if it is still there and may go.
    fn take(&mut self, hash: u64, item: *const T, may_go: impl Fn(&mut Arc<T>) -> bool) -> Option<Arc<T>> {
        let place = self.places(hash).find(|&place| Arc::as_ptr(&self.members[place as usize].item) == item)? as usize;
        may_go(&mut self.members[place].item).then(|| self.remove(place))
    }

    fn remove(&mut self, place: usize) -> Arc<T> {
        let Member { hash, next, .. } = self.members[place];
        match (next, self.link_to(hash, place as u32)) {
            (NONE, Link::First) => drop(self.firsts.remove(&hash)),
            (next, link) => self.set(hash, link, next),
        }
        let last = self.members.len() - 1;
        if place != last {
            let hash = self.members[last].hash;
            let link = self.link_to(hash, last as u32);
            self.set(hash, link, place as u32);
        }
        self.members.swap_remove(place).item
    }

    /// What points to a place.
    fn link_to(&self, hash: u64, place: u32) -> Link {
        let before = self.places(hash).find(|&before| self.members[before as usize].next == place);
        before.map_or(Link::First, |before| Link::After(before as usize))
    }

    fn set(&mut self, hash: u64, link: Link, place: u32) {
        match link {
            Link::First => drop(self.firsts.insert(hash, place)),
            Link::After(before) => self.members[before].next = place,
        }
    }
}

enum Link {
    First,
    After(usize),
}

/// What is hashed already is not hashed again.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are keys here");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key and which of its items it is.
    type Item = (u8, u32);

    fn is(key: u8) -> impl Fn(&Item) -> bool {
        move |item| item.0 == key
    }

    /// Puts in an item if there is room, by that of another if `may_go`; returns the item that the key has then, and the
    /// one that went.
    fn put(shards: &Shards<Item>, hash: u64, item: Item, may_go: bool) -> Option<(Arc<Item>, Option<Arc<Item>>)> {
        let (room, gone) = shards.make_room(|item| may_go && Arc::get_mut(item).is_some())?;
        let item = Arc::new(item);
        let found = shards.put(room, hash, &item, is(item.0));
        Some((found.unwrap_or(item), gone))
    }

    /// Against a list, with hashes of which there are so few that every kind of chain comes up.
    #[test]
    fn it_does_what_a_list_does_whatever_the_hashes_are() {
        for hashes in [1, 2, 3, 256] {
            let mut random = fastrand::Rng::with_seed(7);
            let (shards, mut list) = (Shards::new(12), Vec::<Arc<Item>>::new());
            for step in 0..6_000 {
                let key = random.u8(..24);
                let hash = (u64::from(key) % hashes) << 32;
                let known = list.iter().position(|item| item.0 == key);
                let found = shards.find(hash, is(key));
                assert_eq!(found.as_deref().copied(), known.map(|place| *list[place]), "step {step}");
                drop(found);
                match random.u8(..3) {
                    0 => {
                        let Some(place) = known else { continue };
                        assert!(shards.remove(hash, &list[place]));
                        assert!(!shards.remove(hash, &list.swap_remove(place)));
                    }
                    _ => {
                        // The list holds a handle of each, so nothing may go.
                        let put = put(&shards, hash, (key, step), true);
                        assert_eq!(put.is_none(), list.len() == 12, "step {step}");
                        let Some((item, gone)) = put else { continue };
                        assert_eq!(gone, None);
                        assert_eq!(item.1 == step, known.is_none(), "a key has one item");
                        if known.is_none() {
                            list.push(item);
                        }
                    }
                }
                assert_eq!((shards.len(), shards.all().len()), (list.len(), list.len()));
            }
            let mut all: Vec<_> = shards.all().iter().map(|item| **item).collect();
            let mut expected: Vec<_> = list.iter().map(|item| **item).collect();
            all.sort_unstable();
            expected.sort_unstable();
            assert_eq!(all, expected);
        }
    }

    #[test]
    fn of_those_that_may_go_the_one_that_was_unused_for_longest_goes() {
        // All in one shard, and as many as are looked at.
        let shards = Shards::new(SAMPLE);
        for key in 0..SAMPLE as u8 {
            put(&shards, u64::from(key), (key, 0), true).expect("there is room");
        }
        for (used, gone) in [(0, 1), (2, 3), (4, 0)] {
            drop(shards.find(used, is(used as u8)).expect("it is in"));
            let newcomer = 100 + used as u8;
            let (_, went) = put(&shards, u64::from(newcomer), (newcomer, 0), true).expect("one may go");
            // 0 was used before 1, which had gone when 2 was.
            assert_eq!(went.expect("there was no room").0, gone);
            drop(shards.find(u64::from(newcomer), is(newcomer)));
            if used == 2 {
                for key in [2, 4, 5, 6, 7, 100, 102] {
                    drop(shards.find(key, is(key as u8)));
                }
            }
        }
    }

    #[test]
    fn room_that_is_not_used_is_given_back() {
        let shards = Shards::<Item>::new(1);
        drop(shards.make_room(|_| false).expect("there is room"));
        assert!(put(&shards, 1, (1, 1), false).is_some());
        assert!(shards.make_room(|_| false).is_none());
        assert!(shards.remove(1, &shards.find(1, is(1)).expect("it is in")));
        assert!(shards.make_room(|_| false).is_some());
    }
}
