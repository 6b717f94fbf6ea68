//! Lists whose places are numbers that mean something elsewhere, and are used again.
//! Does not know what the numbers mean.

/// Sets what belongs to a number, which is the next one or one that is taken.
pub fn put<T>(list: &mut Vec<T>, number: usize, value: T) {
    match list.get_mut(number) {
        Some(taken) => *taken = value,
        None => list.push(value),
    }
}
