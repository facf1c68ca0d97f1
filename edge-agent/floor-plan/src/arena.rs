//! The memory a core works on: asked for once, given back when the arena goes.

use control_core::storage::Storage;

/// Memory for one core. It lives as long as this.
#[derive(Debug, Default)]
pub struct Arena(bumpalo::Bump);

impl Arena {
    /// An empty one.
    pub fn new() -> Arena {
        Arena::default()
    }

    /// Bytes handed out so far.
    pub fn bytes(&self) -> usize {
        self.0.allocated_bytes()
    }
}

impl<'m> Storage<'m> for &'m Arena {
    fn slice<T: Copy>(&self, length: usize, entry: T) -> &'m mut [T] {
        self.0.alloc_slice_fill_copy(length, entry)
    }
}
