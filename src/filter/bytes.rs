//! A set of byte values, for the translation of expressions.
//! Knows nothing of their meaning.

/// A set of bytes. The zero byte is always in it, because no path contains that byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub [u64; 4]);

impl Bytes {
    /// Every byte.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// The bytes of these ranges, both ends included.
    pub fn of(ranges: impl Iterator<Item = (u8, u8)>) -> Self {
        let mut set = Self([1, 0, 0, 0]);
        for (start, end) in ranges {
            (start..=end).for_each(|byte| set.0[usize::from(byte / 64)] |= 1 << (byte % 64));
        }
        set
    }

    /// True when `byte` is in the set.
    pub fn has(self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] >> (byte % 64) & 1 == 1
    }

    /// The set without the slash.
    pub fn without_slash(mut self) -> Self {
        self.0[0] &= !(1 << b'/');
        self
    }

    /// All bytes of the set except zero.
    pub fn members(self) -> impl Iterator<Item = u8> {
        (1..=255).filter(move |&byte| self.has(byte))
    }

    /// The only byte of the set; `None` if there are more or none.
    pub fn single(self) -> Option<u8> {
        let mut members = self.members();
        members.next().filter(|_| members.next().is_none())
    }
}
