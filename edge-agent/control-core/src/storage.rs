//! Memory that is handed in. How large a floor is, the one who starts the core knows; the core itself never asks for memory.

/// Hands out tables that live as long as the core that works on them. Asked at start only.
pub trait Storage<'m> {
    /// A table of so many equal entries.
    fn slice<T: Copy>(&self, length: usize, entry: T) -> &'m mut [T];
}

/// An entry of a table, or the default beyond its end.
pub(crate) fn at<T: Copy + Default>(table: &[T], index: usize) -> T {
    table.get(index).copied().unwrap_or_default()
}

/// Sets an entry; beyond the end nothing happens.
pub(crate) fn put<T>(table: &mut [T], index: usize, value: T) {
    if let Some(slot) = table.get_mut(index) {
        *slot = value;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;

    /// Memory for tests.
    pub(crate) struct Leak;

    impl super::Storage<'static> for Leak {
        fn slice<T: Copy>(&self, length: usize, entry: T) -> &'static mut [T] {
            std::vec![entry; length].leak()
        }
    }
}
