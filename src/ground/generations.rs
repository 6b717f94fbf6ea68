//! A bounded map that forgets its older half at once, so it needs neither a clock nor a list of ages.
//! Does not decide what to remember.

use std::collections::HashMap;
use std::hash::Hash;

/// At most `2 * LIMIT` entries in two generations. When the young generation is full, it replaces the old one.
#[derive(Debug)]
pub struct Generations<K, V, const LIMIT: usize> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V, const LIMIT: usize> Default for Generations<K, V, LIMIT> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash, V, const LIMIT: usize> Generations<K, V, LIMIT> {
    /// The value for `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Sets the value for `key`.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= LIMIT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Forgets the old generation, and releases unused memory.
    pub fn forget_old(&mut self) {
        self.old = HashMap::new();
        self.young.shrink_to_fit();
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// True when there are no entries.
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// All keys; a key may come twice.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.young.keys().chain(self.old.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_entries_stay_and_the_bound_holds() {
        let mut memory = Generations::<u32, u32, 10>::default();
        for key in 0..95 {
            memory.insert(key, key + 1);
            assert!(memory.keys().count() <= 20);
        }
        assert!((85..95).all(|key| memory.get(&key) == Some(&(key + 1))));
        assert_eq!(memory.get(&0), None);
    }

    #[test]
    fn only_the_latest_are_left_when_the_old_ones_are_forgotten() {
        let mut memory = Generations::<u32, u32, 10>::default();
        (0..25).for_each(|key| memory.insert(key, key));
        memory.forget_old();
        let mut left: Vec<_> = memory.keys().copied().collect();
        left.sort_unstable();
        assert_eq!(left, [20, 21, 22, 23, 24]);
    }

    #[test]
    fn a_newer_value_hides_an_older_one_and_removal_forgets_both() {
        let mut memory = Generations::<u32, &str, 1>::default();
        memory.insert(1, "old");
        memory.insert(1, "new");
        assert_eq!(memory.get(&1), Some(&"new"));
        memory.remove(&1);
        assert_eq!(memory.get(&1), None);
    }
}
