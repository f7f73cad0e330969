//! The models in memory: loaded when first asked for, dropped when another needs the room and nobody uses them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use minke_engine::Limits;
use minke_kernels::Cpu;
use minke_kernels::kv::{KvDtype, PAGE_POSITIONS};
use minke_model::{Checkpoint, Precision};

use super::engine_thread::EngineThread;
use super::error::Failure;
use crate::speculate::Speculation;
use crate::store::Store;
use crate::talker::Talker;
use crate::units;

/// Requests of one model that run at the same time.
const SEQUENCES: usize = 16;
/// Rows of a batch: a prompt is read in pieces of at most this, between which requests can be cancelled.
const BATCH_TOKENS: usize = 512;
/// Contexts' worth of keys and values that a model may keep, where memory allows.
const CONTEXTS: usize = 8;

/// The models in memory, and where to find others.
pub struct Loaded {
    store: Store,
    precision: Precision,
    kv: KvDtype,
    cpu: Arc<Cpu>,
    /// What guesses for those models that it can guess for; look-up guesses for the others.
    speculation: Speculation,
    /// Bytes that all of them together may take.
    bound: u64,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Held by whoever loads a model, so that two do not take the same room.
    turn: Arc<tokio::sync::Mutex<()>>,
    loading: AtomicUsize,
}

struct Entry {
    thread: Arc<EngineThread>,
    file: File,
    bytes: u64,
    used: SystemTime,
}

/// A model's place, and when it was written there.
#[derive(Clone, PartialEq, Eq)]
struct File {
    path: PathBuf,
    modified: Option<SystemTime>,
}

impl Loaded {
    /// No models yet.
    pub fn new(store: Store, precision: Precision, cpu: Arc<Cpu>, speculation: Speculation, bound: u64) -> Loaded {
        let bound = bound.saturating_sub(speculation.bytes());
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        let (kv, entries, loading) = (KvDtype::F32, Mutex::default(), AtomicUsize::new(0));
        Loaded { store, precision, kv, cpu, speculation, bound, entries, turn, loading }
    }

    /// The same, with keys and values kept otherwise than in f32.
    pub fn with_kv(self, kv: KvDtype) -> Loaded {
        Loaded { kv, ..self }
    }

    /// How keys and values are kept.
    pub fn kv(&self) -> KvDtype {
        self.kv
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How weights are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The machine.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Whether the first model is only being loaded.
    pub fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Relaxed) > 0 && self.entries().is_empty()
    }

    /// Requests that wait, requests that run, models in memory.
    pub fn usage(&self) -> (usize, usize, usize) {
        let entries = self.entries();
        let loads = entries.values().map(|entry| entry.thread.load());
        let (waiting, running) = loads.fold((0, 0), |sum, (waiting, running)| (sum.0 + waiting, sum.1 + running));
        (waiting, running, entries.len())
    }

    /// Whether the model of this name is in memory.
    pub fn has(&self, name: &str) -> bool {
        self.entries().contains_key(name)
    }

    /// The model of this name in the store, loaded if it is not yet.
    pub async fn get(self: &Arc<Self>, name: &str) -> Result<Arc<EngineThread>, Failure> {
        let this = Arc::clone(self);
        let wanted = name.to_string();
        let found = blocking(move || Ok(this.store.named(&wanted)?.map(|entry| File::new(entry.path)))).await?;
        let file = found.ok_or_else(|| Failure::no_model(name))?;
        if let Some(thread) = self.find(name, &file) {
            return Ok(thread);
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if let Some(thread) = self.find(name, &file) {
            return Ok(thread);
        }
        let (this, name) = (Arc::clone(self), name.to_string());
        // The turn goes along: the load goes on also where whoever asked has gone away.
        let loaded = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            this.loading.fetch_add(1, Ordering::Relaxed);
            let loaded = this.load(&name, file);
            this.loading.fetch_sub(1, Ordering::Relaxed);
            loaded
        });
        loaded.await.map_err(|error| Failure::internal(&error.into()))?
    }

    /// Forgets a model whose thread is gone.
    pub fn forget(&self, thread: &Arc<EngineThread>) {
        self.entries().retain(|_, entry| !Arc::ptr_eq(&entry.thread, thread));
    }

    /// The model in memory that was read from this file.
    fn find(&self, name: &str, file: &File) -> Option<Arc<EngineThread>> {
        let mut entries = self.entries();
        let entry = entries.get_mut(name).filter(|entry| entry.file == *file)?;
        entry.used = SystemTime::now();
        Some(Arc::clone(&entry.thread))
    }

    fn load(&self, name: &str, file: File) -> Result<Arc<EngineThread>, Failure> {
        // What was written anew since is of no use any more.
        self.entries().remove(name);
        let broken = |error| Failure::model(&error);
        let checkpoint = open(&file.path).map_err(broken)?;
        let weights = checkpoint.describe().map_err(|error| broken(error.into()))?.bytes_in(self.precision);
        let weights = weights + self.speculation.bytes_for(&checkpoint, self.precision);
        self.make_room(weights)?;
        let model = Talker::load(&checkpoint, self.precision, || Ok(Arc::clone(&self.cpu)));
        let mut model = model.map_err(broken)?.with_kv(self.kv);
        if model.guess(&checkpoint, self.precision, &self.speculation).is_err() {
            model.guess(&checkpoint, self.precision, &Speculation::Lookup).map_err(broken)?;
        }
        let page = model.page_bytes().max(1) as u64;
        let wanted = CONTEXTS * model.transformer().context().div_ceil(PAGE_POSITIONS);
        let pages = wanted.min(usize::try_from(self.bound / 4 / page).unwrap_or(usize::MAX)).max(1);
        let limits = Limits { sequences: SEQUENCES, batch_tokens: BATCH_TOKENS, pages, queue: SEQUENCES };
        let thread = Arc::new(EngineThread::start(Arc::new(model), limits)?);
        let bytes = weights + page * pages as u64;
        let entry = Entry { thread: Arc::clone(&thread), file, bytes, used: SystemTime::now() };
        self.entries().insert(name.to_string(), entry);
        Ok(thread)
    }

    /// Drops models that nobody uses, the one that was used longest ago first, until `bytes` more may be taken.
    fn make_room(&self, bytes: u64) -> Result<(), Failure> {
        if bytes > self.bound {
            let (needed, bound) = (units::bytes(bytes), units::bytes(self.bound));
            let message = format!(
                "this model needs {needed} of memory and the server may use {bound}; whoever runs it can allow more \
                 with --memory, or make it smaller with minke quantize"
            );
            return Err(Failure::unavailable(message));
        }
        let mut entries = self.entries();
        while entries.values().map(|entry| entry.bytes).sum::<u64>().saturating_add(bytes) > self.bound {
            let unused = entries.iter().filter(|(_, entry)| Arc::strong_count(&entry.thread) == 1);
            let Some(name) = unused.min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone()) else {
                return Err(Failure::unavailable("other models at work take all of the memory; try again in a moment"));
            };
            entries.remove(&name);
        }
        Ok(())
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File {
    fn new(path: PathBuf) -> File {
        // A directory changes when a file in it is put in another's place, as ours are.
        let modified = path.metadata().and_then(|about| about.modified()).ok();
        File { path, modified }
    }
}

/// Opens a model; what is wrong is said with its name, but not with where on the machine it is.
fn open(path: &Path) -> Result<Checkpoint> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if path.is_dir() { Checkpoint::open(path).context(name) } else { Ok(Checkpoint::open(path)?) }
}

/// Runs what may wait for a disk on a thread that may wait.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Failure::internal(&error)),
        Err(error) => Err(Failure::internal(&error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::Small;

    /// A store with three copies of a small model, and the bytes that one of them takes.
    fn store() -> (tempfile::TempDir, u64) {
        let directory = tempfile::tempdir().unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/gguf/llama-chat.gguf");
        std::fs::create_dir_all(directory.path().join("models")).unwrap();
        for name in ["a", "b", "c"] {
            std::fs::copy(&golden, directory.path().join(format!("models/{name}.gguf"))).unwrap();
        }
        (directory, Checkpoint::open(&golden).unwrap().describe().unwrap().parameters * 4)
    }

    fn loaded(directory: &Path, bound: u64) -> Arc<Loaded> {
        guessing(directory, bound, Speculation::Lookup)
    }

    fn guessing(directory: &Path, bound: u64, speculation: Speculation) -> Arc<Loaded> {
        let cpu = Arc::new(Cpu::new(minke_kernels::Isa::choose(None).unwrap(), 1));
        Arc::new(Loaded::new(Store::at(directory), minke_kernels::Dtype::F32.into(), cpu, speculation, bound))
    }

    #[tokio::test]
    async fn what_guesses_keep_is_counted() {
        let (directory, bytes) = store();
        let checkpoint = Checkpoint::open(&directory.path().join("models/a.gguf")).unwrap();
        let cpu = Cpu::new(minke_kernels::Isa::choose(None).unwrap(), 1);
        let twin = Small::load(&cpu, "a", &checkpoint, minke_kernels::Dtype::F32.into()).unwrap();
        // 256 positions of two layers, keys and values of two heads, each padded from 6 to 16 for values.
        let pages = (CONTEXTS * 256 * 2 * 2 * (6 + 16) * 4) as u64;
        let twin = Speculation::Model(Arc::new(twin));
        for (speculation, kept) in [(Speculation::Lookup, 1), (twin, 2), (Speculation::Mtp(None), 1)] {
            let loaded = guessing(directory.path(), 1 << 30, speculation);
            loaded.get("a").await.unwrap();
            assert_eq!(loaded.entries()["a"].bytes, bytes + kept * pages);
        }
    }

    #[tokio::test]
    async fn the_model_that_was_used_longest_ago_makes_room_unless_it_is_at_work() {
        let (directory, bytes) = store();
        // Two models with their pages, and not three.
        let loaded = loaded(directory.path(), bytes * 5);
        let names = |loaded: &Loaded| loaded.entries().keys().cloned().collect::<String>();
        let a = loaded.get("a").await.unwrap();
        let again = loaded.get("a").await.unwrap();
        assert!(Arc::ptr_eq(&a, &again));
        drop((a, again));
        drop(loaded.get("b").await.unwrap());
        drop(loaded.get("a").await.unwrap());
        drop(loaded.get("c").await.unwrap());
        assert_eq!(names(&loaded), "ac");
        let (a, c) = (loaded.get("a").await.unwrap(), loaded.get("c").await.unwrap());
        let failure = loaded.get("b").await.err().unwrap();
        assert!(failure.status == 503 && failure.object().to_string().contains("at work"), "{failure:?}");
        drop(a);
        loaded.get("b").await.unwrap();
        assert_eq!(names(&loaded), "bc");
        loaded.forget(&c);
        assert_eq!(names(&loaded), "b");
    }

    #[tokio::test]
    async fn what_can_not_be_loaded_says_why() {
        let (directory, bytes) = store();
        let small = loaded(directory.path(), bytes - 1);
        let text = |failure: Failure| failure.object().to_string();
        assert!(text(small.get("a").await.err().unwrap()).contains("with --memory"));
        let loaded = loaded(directory.path(), 1 << 30);
        std::fs::write(directory.path().join("models/d.gguf"), "a web page").unwrap();
        let broken = text(loaded.get("d").await.err().unwrap());
        assert!(broken.contains("not GGUF") && !broken.contains(&*directory.path().to_string_lossy()), "{broken}");
        assert!(text(loaded.get("../models/a").await.err().unwrap()).contains("model_not_found"));
        // A file that was written anew is read anew.
        let before = loaded.get("a").await.unwrap();
        let file = std::fs::File::options().write(true).open(directory.path().join("models/a.gguf")).unwrap();
        file.set_modified(SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
        assert!(!Arc::ptr_eq(&before, &loaded.get("a").await.unwrap()));
    }
}
