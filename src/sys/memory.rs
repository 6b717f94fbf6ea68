//! Gives memory that is free but still held by the allocator back to the kernel.
//! Worth a call after a large piece of work, such as the first scan; not in between.

#![expect(unsafe_code, reason = "malloc_trim is in no safe crate")]

/// Returns what the allocator holds unused to the kernel; does nothing where the C library cannot.
pub fn release_unused() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes any number, touches only free memory, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
