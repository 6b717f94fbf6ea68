//! The allocator: it survives a shortage of memory if possible, and returns free memory to the kernel.
//! The listener of the [`ShortageSignal`] decides what to release.

#![expect(unsafe_code, reason = "allocators and malloc_trim are in no safe crate")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

/// Address space reserved for a shortage: enough to report it and to reduce the use of memory.
const RESERVE: usize = 4 << 20;

/// The pause between retries of a refused allocation after the reserve is used up, and the number of retries. After them the program
/// aborts, as every Rust program does without memory. The journal keeps what is pending.
const PAUSE_MS: i64 = 50;
const TRIES: u32 = 1_200;

/// The pause between two calls of [`release_unused_sometimes`] that do something.
const RELEASE_PAUSE: Duration = Duration::from_millis(250);

/// The number of arenas: one for the first thread, one for all others. One thread often frees what another allocated in a scan or
/// walk. With a dozen arenas, remaining pieces would keep a hundred kilobytes or more in each.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

#[global_allocator]
static ALLOCATOR: Patient = Patient;

static RESERVED: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static SHORT: AtomicBool = AtomicBool::new(false);
/// The descriptor that signals a shortage. It is never closed: a thread that has run out of memory may be about to write to it.
static SIGNAL: OnceLock<OwnedFd> = OnceLock::new();

/// The C library's allocator. If it refuses memory, the thread releases the reserve; if that is gone, it waits and retries.
struct Patient;

// SAFETY: every pointer comes from `System` and returns to it with the layout of its allocation.
unsafe impl GlobalAlloc for Patient {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees what `System` requires of `layout`.
        let found = unsafe { System.alloc(layout) };
        // SAFETY: as above.
        if found.is_null() { patiently(|| unsafe { System.alloc(layout) }) } else { found }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees what `System` requires.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees what `System` requires of `layout`.
        let found = unsafe { System.alloc_zeroed(layout) };
        // SAFETY: as above.
        if found.is_null() { patiently(|| unsafe { System.alloc_zeroed(layout) }) } else { found }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees what `System` requires.
        let found = unsafe { System.realloc(pointer, layout, size) };
        // SAFETY: as above; a failed realloc leaves the old block unchanged.
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

/// Retries a refused allocation; null when it stays refused for a minute.
#[cold]
fn patiently(try_again: impl Fn() -> *mut u8) -> *mut u8 {
    let signal = SIGNAL.get().map(AsRawFd::as_raw_fd);
    for _ in 0..TRIES {
        SHORT.store(true, Ordering::Release);
        let reserved = RESERVED.swap(null_mut(), Ordering::AcqRel);
        if !reserved.is_null() {
            // SAFETY: only the thread that took the pointer out frees it, and the block was allocated with this layout.
            unsafe { System.dealloc(reserved, reserve_layout()) };
        }
        if let Some(signal) = signal {
            // SAFETY: writes eight bytes that outlive the call to a descriptor that stays open; allocates nothing.
            unsafe { libc::write(signal, (&raw const ONE).cast(), 8) };
        }
        let found = try_again();
        // Without a listener nothing would release memory.
        if !found.is_null() || signal.is_none() {
            return found;
        }
        let pause = libc::timespec { tv_sec: 0, tv_nsec: PAUSE_MS * 1_000_000 };
        // SAFETY: reads `pause`, which outlives the call; allocates nothing.
        unsafe { libc::nanosleep(&raw const pause, null_mut()) };
    }
    null_mut()
}

static ONE: u64 = 1;

/// Signals a shortage of memory. The program has only one.
#[derive(Debug, Clone, Copy)]
pub struct ShortageSignal(&'static OwnedFd);

impl ShortageSignal {
    /// From now on a shortage is signalled and waited out. Allocates the reserve.
    ///
    /// # Errors
    /// When the system refuses a descriptor.
    pub fn listen() -> io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC)?;
        let signal = SIGNAL.get_or_init(|| signal);
        refill_reserve();
        Ok(Self(signal))
    }

    /// Ends [`ShortageSignal::wait`].
    pub fn send(&self) {
        // Fails only when a signal is already waiting.
        _ = rustix::io::write(self.0, &ONE.to_ne_bytes());
    }

    /// Blocks until memory is short, or [`ShortageSignal::send`] is called.
    pub fn wait(&self) {
        _ = rustix::io::read(self.0, &mut [0; 8]);
    }
}

/// True once after memory was short.
pub fn take_shortage() -> bool {
    SHORT.load(Ordering::Relaxed) && SHORT.swap(false, Ordering::AcqRel)
}

/// Allocates the reserve again, if it is gone and there is room. It is never written to, so it takes only address space.
pub fn refill_reserve() {
    if !RESERVED.load(Ordering::Acquire).is_null() {
        return;
    }
    // SAFETY: the layout is not of size zero.
    let reserve = unsafe { System.alloc(reserve_layout()) };
    let other = RESERVED.swap(reserve, Ordering::AcqRel);
    if !other.is_null() {
        // SAFETY: another thread has stored a reserve with the same layout; this one is not used.
        unsafe { System.dealloc(other, reserve_layout()) };
    }
}

/// Takes over the handler for stack overflows before `main`. Otherwise the standard library gives each thread a signal stack, and
/// aborts the program when there is no memory for one. With this handler, a shortage is only an error of that thread's start.
/// A stack overflow still ends the program by its signal.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = take_fault_signals;

extern "C" fn take_fault_signals() {
    extern "C" fn do_nothing(_: libc::c_int) {}
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: `do_nothing` runs once. Then the access is repeated, and the signal ends the program.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = do_nothing as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESETHAND;
            libc::sigaction(signal, &raw const action, null_mut());
        }
    }
}

/// Makes the kernel allocate the first thread's stack now. It would grow on demand, and end the program when it cannot.
#[inline(never)]
pub fn take_stack() {
    let mut stack = [0_u8; 256 << 10];
    stack.iter_mut().step_by(4096).for_each(|byte| *byte = std::hint::black_box(1));
    std::hint::black_box(&stack);
}

/// Limits the number of arenas, so that threads reuse each other's freed memory. Call it before there are threads. Does nothing if the
/// C library does not support it.
pub fn share_between_threads() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator, which is read when a thread allocates for the first time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Returns the allocator's unused memory to the kernel; does nothing if the C library does not support it.
pub fn release_unused() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes any number, touches only free memory, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// As [`release_unused`], but at most a few times a second: many threads may call it at the end of their work.
#[expect(
    clippy::disallowed_methods,
    reason = "how often it is called is a matter of the wall clock"
)]
pub fn release_unused_sometimes() {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let Ok(mut last) = LAST.try_lock() else { return };
    if last.is_none_or(|last| last.elapsed() >= RELEASE_PAUSE) {
        release_unused();
        *last = Some(Instant::now());
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
