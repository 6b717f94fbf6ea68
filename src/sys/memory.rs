//! The allocator, which outlives a shortage of memory where it can, and gives what is free back to the kernel.
//! Decides nothing about what could be done without: who listens to the [`Bell`] does.

#![expect(unsafe_code, reason = "allocators and malloc_trim are in no safe crate")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Address space that is kept for the moment in which there is no more: enough to say so, and to make do with less.
const RESERVE: usize = 4 << 20;

/// How often, and how many times, a refused allocation is tried again once the reserve is used up. Then the program ends, as
/// every Rust program does without memory; the journal keeps what is pending.
const PAUSE_MS: i64 = 50;
const TRIES: u32 = 1_200;

/// One for the first thread, one for all others. Many small pieces of a scan or a walk are freed by another thread than
/// asked for them; in each of some twelve arenas they would keep a hundred kilobytes or more from being returned.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

#[global_allocator]
static ALLOCATOR: Patient = Patient;

static RESERVED: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static SHORT: AtomicBool = AtomicBool::new(false);
/// What rings when memory is short. It is never closed: a thread that has just run out of memory may be about to write to it.
static BELL: OnceLock<OwnedFd> = OnceLock::new();

/// The C library's allocator. A thread that gets nothing from it takes the reserve, and waits for better times after that.
struct Patient;

// SAFETY: every pointer comes from `System` and goes back to it with the layout that it was made with.
unsafe impl GlobalAlloc for Patient {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about `layout` are handed on.
        let found = unsafe { System.alloc(layout) };
        // SAFETY: as above.
        if found.is_null() { patiently(|| unsafe { System.alloc(layout) }) } else { found }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about `layout` are handed on.
        let found = unsafe { System.alloc_zeroed(layout) };
        // SAFETY: as above.
        if found.is_null() { patiently(|| unsafe { System.alloc_zeroed(layout) }) } else { found }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        let found = unsafe { System.realloc(pointer, layout, size) };
        // SAFETY: as above; a realloc that fails leaves what was there as it is.
        if found.is_null() {
            patiently(|| unsafe { System.realloc(pointer, layout, size) })
        } else {
            found
        }
    }
}

fn reserve_layout() -> Layout {
    Layout::new::<[u8; RESERVE]>()
}

/// The memory that was refused, after all; null when it is refused for a minute.
#[cold]
fn patiently(try_again: impl Fn() -> *mut u8) -> *mut u8 {
    let bell = BELL.get().map(AsRawFd::as_raw_fd);
    for _ in 0..TRIES {
        SHORT.store(true, Ordering::Release);
        let reserved = RESERVED.swap(null_mut(), Ordering::AcqRel);
        if !reserved.is_null() {
            // SAFETY: only who takes the reserve out of its place gives it back, and it was made with this layout.
            unsafe { System.dealloc(reserved, reserve_layout()) };
        }
        if let Some(bell) = bell {
            // SAFETY: writes eight bytes that outlive the call to a descriptor that stays open; allocates nothing.
            unsafe { libc::write(bell, (&raw const ONE).cast(), 8) };
        }
        let found = try_again();
        // Nobody listens: this is no daemon.
        if !found.is_null() || bell.is_none() {
            return found;
        }
        let pause = libc::timespec { tv_sec: 0, tv_nsec: PAUSE_MS * 1_000_000 };
        // SAFETY: reads `pause`, which outlives the call; allocates nothing.
        unsafe { libc::nanosleep(&raw const pause, null_mut()) };
    }
    null_mut()
}

static ONE: u64 = 1;

/// Where a shortage is announced; there is one.
#[derive(Debug, Clone, Copy)]
pub struct Bell(&'static OwnedFd);

impl Bell {
    /// From now on a shortage is waited out, and announced here. The reserve is put by.
    ///
    /// # Errors
    /// When the system refuses a descriptor.
    pub fn hang() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC)?;
        let bell = BELL.get_or_init(|| bell);
        put_by_reserve();
        Ok(Self(bell))
    }

    /// Ends the wait of [`Bell::wait`].
    pub fn ring(&self) {
        // Fails only when it rings already.
        _ = rustix::io::write(self.0, &ONE.to_ne_bytes());
    }

    /// Blocks until memory is short, or [`Bell::ring`] is called.
    pub fn wait(&self) {
        _ = rustix::io::read(self.0, &mut [0; 8]);
    }
}

/// True once after memory was short.
pub fn take_shortage() -> bool {
    SHORT.load(Ordering::Relaxed) && SHORT.swap(false, Ordering::AcqRel)
}

/// Puts a reserve by again, if there is none and room for it. Nothing touches it, so that it costs addresses only.
pub fn put_by_reserve() {
    if !RESERVED.load(Ordering::Acquire).is_null() {
        return;
    }
    // SAFETY: the layout is not of size zero.
    let reserve = unsafe { System.alloc(reserve_layout()) };
    let other = RESERVED.swap(reserve, Ordering::AcqRel);
    if !other.is_null() {
        // SAFETY: somebody else has put one by meanwhile, with the same layout.
        unsafe { System.dealloc(other, reserve_layout()) };
    }
}

/// The standard library gives each thread a stack for the signal that says "stack overflow", and ends the program when there
/// is no memory for one. It does neither when the signal is taken already: so it is taken before `main`. A thread without
/// memory is then an error of its start, and an overflow ends the program by the signal, as it would anyway.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = take_fault_signals;

extern "C" fn take_fault_signals() {
    extern "C" fn again(_: libc::c_int) {}
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: `again` does nothing. It is called once; then the access is repeated, and the signal ends the program.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = again as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESETHAND;
            libc::sigaction(signal, &raw const action, null_mut());
        }
    }
}

/// Takes the stack of the first thread from the kernel now: it grows when it is needed, and ends the program when it cannot.
#[inline(never)]
pub fn take_stack() {
    let mut stack = [0_u8; 256 << 10];
    stack.iter_mut().step_by(4096).for_each(|byte| *byte = std::hint::black_box(1));
    std::hint::black_box(&stack);
}

/// Call before there are threads: what they free is used by others, and does not stay with each of them. Does nothing where
/// the C library cannot.
pub fn share_between_threads() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator, which is asked for when a thread allocates for the first time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Returns what the allocator holds unused to the kernel; does nothing where the C library cannot.
pub fn release_unused() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes any number, touches only free memory, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_needs_no_memory_for_a_signal_stack() {
        let thread = std::thread::Builder::new().spawn(|| {
            // SAFETY: an empty value that the call fills in; nothing is set.
            unsafe {
                let mut stack: libc::stack_t = std::mem::zeroed();
                assert_eq!(libc::sigaltstack(std::ptr::null(), &raw mut stack), 0);
                stack.ss_flags
            }
        });
        assert_eq!(thread.unwrap().join().unwrap(), libc::SS_DISABLE);
    }
}
