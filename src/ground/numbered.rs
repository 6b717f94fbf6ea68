//! Lists whose indexes are ids that other parts use, and that may be reused.
//! Does not know what the ids mean.

/// Stores `value` at `number`, which is in use already or the next free one.
pub fn put<T>(list: &mut Vec<T>, number: usize, value: T) {
    match list.get_mut(number) {
        Some(taken) => *taken = value,
        None => list.push(value),
    }
}
