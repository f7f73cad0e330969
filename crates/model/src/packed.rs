//! Packed weights in a file: written when a model is first started, read or mapped the next time.
//!
//! The header is text, padded to a page: the layout's version, what was packed and how, and a line for each matrix in the
//! order of [`Transformer::new`]. Behind it lie the matrices' streams ([`Matrix::streams`]), each from the next page on.
//!
//! No number in such a file is believed. What the header has to be follows from the model's own files; a file whose header
//! or length differs in any byte is not used. Behind the header any bytes are a model's, if hardly a good one's.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use minke_kernels::{Buffer, Cpu, Matrix, Packing, Shared};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::mmap::Map;
use crate::stored::Precision;
use crate::transformer::Transformer;
use crate::weight::Source;

/// Bytes that streams are aligned to: what a system reads and drops at a time.
const PAGE: u64 = 4096;
/// Bytes that a thread reads at a time.
const CHUNK: usize = 4 << 20;
/// What half-written files end with, and how old one is that nobody writes to any more.
const PARTIAL: &str = "partial";
const ABANDONED: Duration = Duration::from_secs(3600);

/// Bytes that are left free on a disk.
const SPARED: u64 = 1 << 30;

/// A matrix to be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    packing: Packing,
    outputs: usize,
    inputs: usize,
}

/// The matrices that a model is packed into, in their order.
#[derive(Debug)]
pub struct Plan {
    slots: Vec<Slot>,
    header: Vec<u8>,
}

impl Plan {
    /// What a model comes to in `precision`; nothing is packed yet.
    ///
    /// # Errors
    /// Those of the model.
    pub fn new(cpu: &Cpu, checkpoint: &Checkpoint, precision: Precision) -> Result<Plan> {
        let shelf = Shelf(State::Plan(RefCell::default()));
        Transformer::new(cpu, checkpoint.config(), precision, Source::Packed(checkpoint, &shelf))?;
        let State::Plan(slots) = shelf.0 else { unreachable!("made above") };
        let slots = slots.into_inner();
        // Instruction sets round some numbers differently.
        let mut header = format!(
            "minke packed weights, layout {}\n{}weights as {}, packed by {}\n",
            Packing::LAYOUT,
            checkpoint.stamp().unwrap_or_default(),
            precision.name(),
            cpu.isa().name()
        );
        for Slot { packing, outputs, inputs } in &slots {
            header.push_str(&format!("{} {outputs} {inputs}\n", packing.name()));
        }
        let mut header = header.into_bytes();
        header.resize(header.len().next_multiple_of(PAGE as usize), 0);
        Ok(Plan { slots, header })
    }

    /// Bytes of memory that the matrices take.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().flat_map(|slot| slot.lengths()).sum()
    }

    /// Bytes of a file of them.
    pub fn file_bytes(&self) -> u64 {
        let pages = |slot: &Slot| slot.lengths().map(|len| len.next_multiple_of(PAGE)).iter().sum::<u64>();
        self.header.len() as u64 + self.slots.iter().map(pages).sum::<u64>()
    }
}

impl Slot {
    fn lengths(&self) -> [u64; 3] {
        self.packing.lengths(self.outputs, self.inputs).map(|len| len as u64)
    }

    /// Where each stream begins in a file, from byte `at` on, and where the next matrix may.
    fn place(&self, mut at: u64) -> ([u64; 3], u64) {
        let starts = self.lengths().map(|len| {
            let start = at;
            at += len.next_multiple_of(PAGE);
            start
        });
        (starts, at)
    }
}

/// Opens the file at `path` if it holds what `plan` asks for; up to `most` bytes are read into memory, more are mapped.
pub fn open(cpu: &Cpu, path: &Path, plan: &Plan, most: u64) -> Option<Shared> {
    // A pipe would block, so look before opening.
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.len() != plan.file_bytes() {
        return None;
    }
    let file = File::open(path).ok()?;
    let mut header = vec![0; plan.header.len()];
    file.read_exact_at(&mut header, 0).ok()?;
    if header != plan.header {
        return None;
    }
    if about.len() > most {
        return Some(Arc::new(Map::open(path).ok().filter(|map| map.len() as u64 == about.len())?));
    }
    let mut bytes = Buffer::<u8>::lasting(about.len() as usize);
    let failed = AtomicBool::new(false);
    cpu.pool().chunks_mut(&mut bytes, CHUNK, |i, chunk| {
        if file.read_exact_at(chunk, (i * CHUNK) as u64).is_err() {
            failed.store(true, Ordering::Relaxed);
        }
    });
    (!failed.into_inner()).then(|| Arc::new(bytes) as Shared)
}

/// A file being written beside its place; it goes away unless it is finished.
#[derive(Debug)]
pub struct Draft {
    file: File,
    partial: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Begins the file at `path`; its directory is made where it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(path: &Path, plan: &Plan) -> io::Result<Draft> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        sweep(directory);
        let disk = rustix::fs::statvfs(directory)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < plan.file_bytes().saturating_add(SPARED) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let partial = directory.join(format!(".{name}.{process}-{count}.{PARTIAL}"));
        let file = OpenOptions::new().write(true).create_new(true).open(&partial)?;
        let draft = Draft { file, partial, path: path.to_path_buf() };
        draft.file.set_len(plan.file_bytes())?;
        draft.file.write_all_at(&plan.header, 0)?;
        Ok(draft)
    }

    /// Maps what was written, which needs not be finished for that.
    ///
    /// # Errors
    /// What the file system says.
    pub fn map(&self) -> Result<Shared> {
        Ok(Arc::new(Map::open(&self.partial)?))
    }

    /// Puts the file in its place, once a crash can't leave it with holes there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Where it was finished there is no such file any more.
        let _ = fs::remove_file(&self.partial);
    }
}

/// Removes what processes that ended too early have left half-written.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|about| about.modified()).ok().and_then(|time| time.elapsed().ok());
        if entry.path().extension().is_some_and(|e| e == PARTIAL) && age.is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What stands between a model's files and its packed matrices.
pub struct Shelf<'a>(State<'a>);

enum State<'a> {
    /// Says what matrices there will be; all are empty.
    Plan(RefCell<Vec<Slot>>),
    /// Hands them out from a file.
    Read { memory: Shared, next: Cursor<'a> },
    /// Puts each into a file when it was packed, and forgets it there unless it is to be kept in memory too.
    Write { draft: &'a Draft, keep: bool, next: Cursor<'a> },
}

/// The next matrix of a plan, and where it lies in the file.
struct Cursor<'a> {
    plan: &'a Plan,
    index: Cell<usize>,
    at: Cell<u64>,
}

impl Cursor<'_> {
    fn new(plan: &Plan) -> Cursor<'_> {
        Cursor { plan, index: Cell::new(0), at: Cell::new(plan.header.len() as u64) }
    }

    /// Where the streams of the next matrix are, which must be this one.
    fn next(&self, slot: Slot) -> Result<[u64; 3]> {
        if self.plan.slots.get(self.index.get()) != Some(&slot) {
            return Err(Error::new("the model's files changed while they were read; start again"));
        }
        let (starts, end) = slot.place(self.at.get());
        self.index.set(self.index.get() + 1);
        self.at.set(end);
        Ok(starts)
    }
}

impl<'a> Shelf<'a> {
    /// Takes matrices from what [`open`] or [`Draft::map`] gave.
    pub fn reading(plan: &'a Plan, memory: Shared) -> Shelf<'a> {
        Shelf(State::Read { memory, next: Cursor::new(plan) })
    }

    /// Writes matrices to `draft`; the model is only of use if they are kept in memory as well.
    pub fn writing(plan: &'a Plan, draft: &'a Draft, keep: bool) -> Shelf<'a> {
        Shelf(State::Write { draft, keep, next: Cursor::new(plan) })
    }

    /// Whether matrices are packed here, so that their numbers are needed.
    pub(crate) fn packs(&self) -> bool {
        matches!(self.0, State::Write { .. })
    }

    /// Whether no number is needed.
    pub(crate) fn plans(&self) -> bool {
        matches!(self.0, State::Plan(_))
    }

    /// The next matrix; `pack` makes it, where that is not done.
    pub(crate) fn matrix(
        &self,
        packing: Packing,
        outputs: usize,
        inputs: usize,
        pack: impl FnOnce() -> Matrix,
    ) -> Result<Matrix> {
        let slot = Slot { packing, outputs, inputs };
        match &self.0 {
            State::Plan(slots) => {
                slots.borrow_mut().push(slot);
                Ok(Matrix::empty(packing))
            }
            State::Read { memory, next } => {
                let starts = next.next(slot)?.map(|start| start as usize);
                let matrix = Matrix::shared(packing, outputs, inputs, memory, starts);
                matrix.ok_or_else(|| Error::new("the packed weights are cut short; start again"))
            }
            State::Write { draft, keep, next } => {
                let matrix = pack();
                for (start, bytes) in next.next(slot)?.into_iter().zip(matrix.streams()) {
                    let written = draft.file.write_all_at(bytes, start);
                    written.map_err(|e| Error::new(format!("the packed weights can't be written ({e})")))?;
                }
                Ok(if *keep { matrix } else { Matrix::empty(packing) })
            }
        }
    }
}
