//! Whose work begins next, where several tenants share what is limited. Two rules, which know neither clocks nor what the work is:
//!
//! - [`has_share`]: a tenant may begin only while what it has is less than four times what is free. So one that takes all it can
//!   get leaves a fifth, two leave a ninth, and what each may have adapts to how many there are.
//! - [`Turns`]: a tenant begins at most [`TURNS`] times in a round. Within a round the earliest deadline goes first, so that no
//!   crowd of one tenant takes another's turn, whatever its deadlines are. Where one tenant is alone, its order is that of the
//!   deadlines, and nothing waits.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// How often a tenant begins in one round.
pub const TURNS: u32 = 8;
/// A tenant may have so many times what is free.
const SHARE: usize = 4;
/// Tenants that are known and wait for nothing, above which those without a meaning are forgotten.
const MAX_IDLE: usize = 64;

/// Whether a tenant that `has` so much may begin, where so much is `free`.
#[must_use]
pub fn has_share(has: usize, free: usize) -> bool {
    has < free.saturating_mul(SHARE)
}

/// How much a tenant may have where it and all others together have at most `all`, and the others have `others` now.
#[must_use]
pub fn share(all: usize, others: usize) -> usize {
    all.saturating_sub(others).saturating_mul(SHARE) / (SHARE + 1)
}

/// The tenants that wait, each with the deadline `D` of its first piece of work. Each step costs the logarithm of their number.
#[derive(Debug)]
pub struct Turns<T, D> {
    /// Those that wait: by round, then by deadline.
    order: BTreeSet<(u64, D, T)>,
    tenants: HashMap<T, Place<D>>,
    /// The round of the last one that began.
    round: u64,
    clean_above: usize,
}

#[derive(Debug)]
struct Place<D> {
    round: u64,
    /// How often it has begun in this round.
    taken: u32,
    first: Option<D>,
}

impl<T, D> Default for Turns<T, D> {
    fn default() -> Self {
        Turns { order: BTreeSet::new(), tenants: HashMap::new(), round: 0, clean_above: MAX_IDLE }
    }
}

impl<T: Clone + Eq + Hash + Ord, D: Copy + Ord> Turns<T, D> {
    /// The first work of a tenant has this deadline; `None`: it waits no more.
    pub fn set(&mut self, tenant: &T, first: Option<D>) {
        let round = self.round;
        let Some(place) = self.tenants.get_mut(tenant) else {
            if let Some(first) = first {
                self.clean();
                self.tenants.insert(tenant.clone(), Place { round, taken: 0, first: Some(first) });
                self.order.insert((round, first, tenant.clone()));
            }
            return;
        };
        if place.first == first {
            return;
        }
        if let Some(before) = place.first {
            self.order.remove(&(place.round, before, tenant.clone()));
        } else if place.round < round {
            // What it did not use of earlier rounds is gone.
            (place.round, place.taken) = (round, 0);
        }
        place.first = first;
        if let Some(first) = first {
            self.order.insert((place.round, first, tenant.clone()));
        }
    }

    /// The tenant that begins next, of those that `may`, and the deadline of its first work.
    pub fn next(&self, mut may: impl FnMut(&T) -> bool) -> Option<(D, &T)> {
        self.order.iter().find(|(_, _, tenant)| may(tenant)).map(|(_, first, tenant)| (*first, tenant))
    }

    /// A tenant that waits has begun.
    pub fn took(&mut self, tenant: &T) {
        let Some(place) = self.tenants.get_mut(tenant) else { return };
        let before = place.round;
        self.round = self.round.max(before);
        // One that could not begin for some rounds does not make up for them.
        if before < self.round {
            (place.round, place.taken) = (self.round, 0);
        }
        place.taken += 1;
        if place.taken >= TURNS {
            (place.round, place.taken) = (place.round + 1, 0);
        }
        if let Some(first) = place.first.filter(|_| place.round != before) {
            self.order.remove(&(before, first, tenant.clone()));
            self.order.insert((place.round, first, tenant.clone()));
        }
    }

    /// Forgets a tenant that is gone.
    pub fn forget(&mut self, tenant: &T) {
        self.set(tenant, None);
        self.tenants.remove(tenant);
    }

    /// Forgets tenants that wait for nothing, and have begun in no round that goes on.
    fn clean(&mut self) {
        if self.tenants.len() < self.clean_above {
            return;
        }
        let round = self.round;
        self.tenants.retain(|_, place| place.first.is_some() || place.round >= round);
        self.clean_above = self.tenants.len().saturating_mul(2).max(MAX_IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who begins, if each tenant has so many pieces of work with the same deadline.
    fn order(tenants: &[(&'static str, u32, usize)], count: usize) -> Vec<&'static str> {
        let mut turns = Turns::default();
        let mut left: HashMap<_, _> = tenants.iter().map(|(name, _, left)| (*name, *left)).collect();
        for (name, deadline, _) in tenants {
            turns.set(name, Some(*deadline));
        }
        let mut begun = vec![];
        while begun.len() < count
            && let Some((_, name)) = turns.next(|_| true).map(|(at, name)| (at, *name))
        {
            turns.took(&name);
            let left = left.get_mut(name).unwrap();
            *left -= 1;
            if *left == 0 {
                turns.set(&name, None);
            }
            begun.push(name);
        }
        begun
    }

    #[test]
    fn turns_earliest_deadline_goes_first_and_no_crowd_takes_anothers_turn() {
        let begun = order(&[("crowd", 0, 1000), ("late", 9, 3), ("early", 5, 3)], 40);
        let turns = usize::try_from(TURNS).unwrap();
        assert!(begun[..turns].iter().all(|name| *name == "crowd"), "{begun:?}");
        assert_eq!(begun[turns..turns + 6], ["early", "early", "early", "late", "late", "late"]);
        assert!(begun[turns + 6..].iter().all(|name| *name == "crowd"), "alone, it waits for nothing");
    }

    #[test]
    fn turns_of_two_crowds_are_equal_whatever_their_deadlines_are() {
        let begun = order(&[("passed", 0, 10_000), ("later", 60, 10_000)], 1600);
        assert_eq!(begun.iter().filter(|name| **name == "later").count(), 800);
    }

    #[test]
    fn turns_that_were_not_used_are_gone() {
        let mut turns = Turns::default();
        turns.set(&"held", Some(0));
        turns.set(&"other", Some(1));
        for _ in 0..100 {
            assert_eq!(turns.next(|name| *name != "held"), Some((1, &"other")));
            turns.took(&"other");
        }
        let mut begun = vec![];
        for _ in 0..40 {
            let name = *turns.next(|_| true).unwrap().1;
            turns.took(&name);
            begun.push(name);
        }
        let held = begun.iter().filter(|name| **name == "held").count();
        assert!((16..=24).contains(&held), "{begun:?}");
    }

    #[test]
    fn turns_a_tenant_that_comes_and_goes_gets_no_more_than_one_that_stays() {
        let mut turns = Turns::default();
        turns.set(&"stays", Some(9));
        let mut stays = 0;
        for _ in 0..100 {
            turns.set(&"comes and goes", Some(0));
            let name = *turns.next(|_| true).unwrap().1;
            turns.took(&name);
            stays += usize::from(name == "stays");
            turns.set(&"comes and goes", None);
        }
        assert!(stays >= 40, "{stays}");
    }

    #[test]
    fn turns_forget_tenants_that_are_gone() {
        let mut turns = Turns::default();
        turns.set(&0, Some(9));
        for tenant in 1..10_000 {
            turns.set(&tenant, Some(0));
            while let Some(next) = turns.next(|_| true).map(|(_, next)| *next) {
                turns.took(&next);
                if next == tenant {
                    break;
                }
            }
            turns.set(&tenant, None);
            turns.took(&0);
        }
        assert!(turns.tenants.len() <= 2 * MAX_IDLE + 2, "{}", turns.tenants.len());
        turns.forget(&0);
        assert_eq!(turns.next(|_| true), None);
    }

    #[test]
    fn share_of_some_tenants_leaves_room_for_one_more() {
        for (tenants, each) in [(1, 52), (2, 28), (7, 8), (12, 5)] {
            let mut has = vec![0; tenants];
            let mut free: usize = 64;
            while let Some(next) = has.iter_mut().min().filter(|has| has_share(**has, free)) {
                *next += 1;
                free -= 1;
            }
            assert!(free > 0 && has.iter().all(|has| *has >= each), "{has:?}");
        }
        assert_eq!((share(100, 0), share(100, 90), share(100, 200)), (80, 8, 0));
    }
}
