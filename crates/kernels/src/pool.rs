//! Threads that wait close by: a job starts within a microsecond when they spin, and they sleep when nothing comes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Turns of the waiting loop before a worker sleeps: some fifty microseconds, longer than the gaps inside a forward pass.
const SPINS: usize = 4_000;
/// Turns before a waiting thread offers its core to others, which matters when there are more threads than cores.
const POLITE: usize = 400;

/// A fixed set of threads that run the tasks of one job at a time; the caller is one of them.
///
/// Who runs which task is left to chance, so a task's result must not depend on it.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<()>,
}

struct Shared {
    /// The current job's number, whether it takes workers, and how many are in it: see [`Gate`].
    gate: AtomicU64,
    job: AtomicPtr<Job<'static>>,
    stop: AtomicBool,
    sleepers: Mutex<usize>,
    wake: Condvar,
}

/// What `Shared::gate` holds: job number in the high half, then one bit "open", then the workers inside.
///
/// A job waits only for workers that have come in: one that the system keeps off its core is not missed.
#[derive(Clone, Copy, PartialEq)]
struct Gate(u64);

impl Gate {
    const OPEN: u64 = 1 << 31;
    fn number(self) -> u64 {
        self.0 >> 32
    }
    fn next_open(self) -> Gate {
        Gate((self.number() + 1) << 32 | Gate::OPEN)
    }
    fn is_open(self) -> bool {
        self.0 & Gate::OPEN != 0
    }
    fn inside(self) -> u64 {
        self.0 & (Gate::OPEN - 1)
    }
}

struct Job<'a> {
    run: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    fn work(&self) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Relaxed);
                if task >= self.tasks {
                    break;
                }
                (self.run)(task);
            }
        }));
        if let Err(panic) = result {
            self.next.store(self.tasks, Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

/// A lock whose holder panicked is still a lock: what it guards is a counter or an option.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// `threads` in all, the caller of [`Pool::run`] included.
    pub fn new(threads: usize) -> Pool {
        assert!(threads > 0, "a pool needs a thread");
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            stop: AtomicBool::new(false),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
        });
        let workers = (1..threads)
            .filter_map(|i| {
                let shared = Arc::clone(&shared);
                // Where the system refuses another thread, the pool is smaller; results do not depend on it.
                std::thread::Builder::new().name(format!("minke-{i}")).spawn(move || shared.worker()).ok()
            })
            .collect();
        Pool { shared, workers, caller: Mutex::new(()) }
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `run` once for each of `0..tasks`, and returns when all are done. Panics if one of them did.
    ///
    /// One job runs at a time: a second caller waits; a task must not call `run` on its own pool.
    pub fn run(&self, tasks: usize, run: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(run);
            return;
        }
        let _one_at_a_time = lock(&self.caller);
        let job = Job { run, tasks, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        let shared = &*self.shared;
        shared.job.store((&raw const job).cast_mut().cast(), Relaxed);
        let open = Gate(shared.gate.load(Relaxed)).next_open();
        shared.gate.store(open.0, SeqCst);
        if *lock(&shared.sleepers) > 0 {
            shared.wake.notify_all();
        }
        job.work();
        shared.gate.fetch_and(!Gate::OPEN, AcqRel);
        let mut turns = 0_usize;
        while Gate(shared.gate.load(Acquire)).inside() > 0 {
            pause(&mut turns);
        }
        if let Some(panic) = lock(&job.panic).take() {
            resume_unwind(panic);
        }
    }

    /// Cuts `data` into chunks of `len` (the last may be shorter) and calls `run(i, chunk)` for each.
    pub fn chunks_mut<T: Send>(&self, data: &mut [T], len: usize, run: impl Fn(usize, &mut [T]) + Sync) {
        let (total, start) = (data.len(), Shareable(data.as_mut_ptr()));
        self.run(total.div_ceil(len), &|i| {
            let from = i * len;
            // SAFETY: chunk i is from..min(from + len, total), inside `data` and apart from every other chunk,
            // and `run` returns before the borrow of `data` ends.
            let chunk = unsafe { std::slice::from_raw_parts_mut(start.get().add(from), len.min(total - from)) };
            run(i, chunk);
        });
    }
}

/// A pointer that tasks share; each use says why its part is its own.
pub(crate) struct Shareable<T>(pub *mut T);
// SAFETY: the pointer itself is only a number; every dereference has its own SAFETY line.
unsafe impl<T> Send for Shareable<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shareable<T> {}
impl<T> Shareable<T> {
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

fn pause(turns: &mut usize) {
    *turns += 1;
    if *turns > POLITE && turns.is_multiple_of(16) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

impl Shared {
    fn worker(&self) {
        let mut seen = 0;
        loop {
            let gate = self.await_job(seen);
            if self.stop.load(Relaxed) {
                return;
            }
            seen = gate.number();
            if gate.is_open() && self.gate.compare_exchange(gate.0, gate.0 + 1, AcqRel, Relaxed).is_ok() {
                // SAFETY: the exchange succeeded, so the job that was stored before this gate opened is still open,
                // and its owner waits in `run` until `inside` is zero, after this worker's last use of it.
                unsafe { &*self.job.load(Relaxed) }.work();
                self.gate.fetch_sub(1, Release);
            } else if gate.is_open() {
                // Another worker came in, or the gate closed, in between: look again.
                seen -= 1;
            }
        }
    }

    /// Waits until the job's number differs from `seen`: close by at first, asleep later.
    fn await_job(&self, seen: u64) -> Gate {
        let mut turns = 0;
        while turns < SPINS {
            let gate = Gate(self.gate.load(Acquire));
            if gate.number() != seen {
                return gate;
            }
            pause(&mut turns);
        }
        let mut sleepers = lock(&self.sleepers);
        *sleepers += 1;
        while Gate(self.gate.load(SeqCst)).number() == seen {
            sleepers = self.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        }
        *sleepers -= 1;
        Gate(self.gate.load(SeqCst))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.shared.gate.fetch_add(1 << 32, SeqCst);
        drop(lock(&self.shared.sleepers));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so there is nothing to hear from it.
            let _ = worker.join();
        }
    }
}

/// Cores that this process may use: its affinity, and on Linux the quota of its control group, whichever is less.
pub fn available_threads() -> usize {
    // The standard library reads both on Linux (sched_getaffinity, cgroup v1 and v2 quotas).
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 3, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::new(3);
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let sum = AtomicUsize::new(0);
            pool.run(100, &|i| {
                sum.fetch_add(i, Relaxed);
            });
            assert_eq!(sum.load(Relaxed), 4950);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(10, &|i| assert!(i != 7, "seven"))));
        assert!(caught.is_err());
        pool.run(10, &|_| {});
    }

    #[test]
    fn chunks_cover_the_slice() {
        let pool = Pool::new(2);
        let mut data = vec![0; 10];
        pool.chunks_mut(&mut data, 4, |i, chunk| chunk.fill(i + 1));
        assert_eq!(data, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
    }
}
