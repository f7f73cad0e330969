//! Packed weights in files: the bits that packing gives, and files that are damaged, stale or written by several at once.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::{Cpu, Dtype, Isa};
use minke_model::dequantize::DataType;
use minke_model::gguf_writer::{Metadata, Row, header};
use minke_model::packed::{self, Draft, Plan, Shelf};
use minke_model::quantize::quantize_row;
use minke_model::{Activations, Batch, Checkpoint, Precision, Source, Transformer};

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)
}

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("packed-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// A Llama's sizes.
#[derive(Clone, Copy)]
struct Sizes {
    hidden: usize,
    wide: usize,
    layers: usize,
    vocabulary: usize,
}

const SMALL: Sizes = Sizes { hidden: 256, wide: 512, layers: 2, vocabulary: 96 };

/// A Llama in a GGUF file with random numbers, its matrices in `dtype` but for some in `other`.
fn llama(directory: &Path, sizes: Sizes, dtype: DataType, other: DataType) -> PathBuf {
    let Sizes { hidden, wide, layers, vocabulary } = sizes;
    let mut metadata = Metadata::default();
    metadata.set_text("general.architecture", "llama");
    for (key, value) in [
        ("block_count", layers),
        ("context_length", 128),
        ("embedding_length", hidden),
        ("feed_forward_length", wide),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("vocab_size", vocabulary),
    ] {
        metadata.set_u32(&format!("llama.{key}"), value as u32);
    }
    metadata.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    let mut tensors = vec![("token_embd.weight".to_string(), vec![vocabulary, hidden], dtype)];
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[usize], dtype| {
            tensors.push((format!("blk.{layer}.{name}.weight"), shape.to_vec(), dtype));
        };
        add("attn_norm", &[hidden], DataType::F32);
        add("attn_q", &[hidden, hidden], dtype);
        add("attn_k", &[hidden / 2, hidden], dtype);
        add("attn_v", &[hidden / 2, hidden], other);
        add("attn_output", &[hidden, hidden], dtype);
        add("ffn_norm", &[hidden], DataType::F32);
        add("ffn_gate", &[wide, hidden], dtype);
        add("ffn_up", &[wide, hidden], dtype);
        add("ffn_down", &[hidden, wide], other);
    }
    tensors.push(("output_norm.weight".to_string(), vec![hidden], DataType::F32));
    let rows: Vec<Row<'_>> = tensors.iter().map(|(name, shape, dtype)| Row { name, shape, dtype: *dtype }).collect();
    let path = directory.join(format!("{}.gguf", dtype.name()));
    let mut file = BufWriter::new(File::create(&path).unwrap());
    file.write_all(&header(&metadata, &rows)).unwrap();
    let mut state = 1_u64;
    for (_, shape, dtype) in &tensors {
        let width = *shape.last().unwrap();
        // Rows of their own, as far as a large model does not have too many.
        let mut made = Vec::new();
        let count = shape.iter().product::<usize>() / width;
        for _ in 0..count.min(512) {
            let random = |_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.2
            };
            let values: Vec<f32> = (0..width).map(random).collect();
            let mut row = vec![0; dtype.bytes(width).unwrap()];
            quantize_row(*dtype, &values, None, &mut row);
            made.push(row);
        }
        (0..count).for_each(|row| file.write_all(&made[row % made.len()]).unwrap());
        let written = count * made[0].len();
        file.write_all(&vec![0; written.next_multiple_of(32) - written]).unwrap();
    }
    file.flush().unwrap();
    path
}

/// The bits of all logits of a short text.
fn logits(cpu: &Cpu, model: &Transformer) -> Vec<u32> {
    let tokens: Vec<u32> = (0..40).map(|i| i * 7 % 48).collect();
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_POSITIONS) as u32).collect();
    let mut kv = KvPages::new(model.kv_layout(), pages.len());
    let mut batch = Batch::default();
    batch.push(&tokens, 0, pages);
    let mut a = Activations::inference();
    model.forward(cpu, &batch, &mut kv, &mut a);
    let mut out = vec![0.0; tokens.len() * model.config().vocab_size];
    model.logits(cpu, a.hidden(model.config()), &mut out);
    out.into_iter().map(f32::to_bits).collect()
}

fn transformer(cpu: &Cpu, checkpoint: &Checkpoint, precision: Precision, shelf: Option<&Shelf<'_>>) -> Transformer {
    let source = match shelf {
        Some(shelf) => Source::Packed(checkpoint, shelf),
        None => Source::Checkpoint(checkpoint),
    };
    Transformer::new(cpu, checkpoint.config(), precision, source).unwrap()
}

/// Writes the file of a model.
fn write(cpu: &Cpu, checkpoint: &Checkpoint, precision: Precision, plan: &Plan, path: &Path) {
    let draft = Draft::create(path, plan).unwrap();
    transformer(cpu, checkpoint, precision, Some(&Shelf::writing(plan, &draft, false)));
    draft.finish().unwrap();
}

#[test]
fn a_model_from_a_file_has_the_same_bits() {
    let directory = scratch("same");
    let mut models = vec![
        llama(&directory, SMALL, DataType::Q4_0, DataType::Q6K),
        llama(&directory, SMALL, DataType::Q8_0, DataType::Q8_0),
        llama(&directory, SMALL, DataType::Q4K, DataType::Q5_1),
        llama(&directory, SMALL, DataType::Bf16, DataType::F32),
        golden("fp8"),
    ];
    models.extend(fs::read_dir(golden("models")).unwrap().map(|entry| entry.unwrap().path()));
    models.extend(["deepseek_v2", "deepseek_v3", "qwen3_moe"].map(|name| golden(&format!("gguf/{name}.gguf"))));
    let path = directory.join("kept/model.packed");
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let cpu = Cpu::new(isa, 2);
        for model in &models {
            let checkpoint = Checkpoint::open(model).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
            for precision in [Precision::Stored, Dtype::Bf16.into(), Dtype::F32.into()] {
                let name = format!("{} {} {}", isa.name(), model.display(), precision.name());
                let plan = Plan::new(&cpu, &checkpoint, precision).unwrap();
                // The one of another model or precision is of no use, and gives way.
                assert!(packed::open(&cpu, &path, &plan, u64::MAX).is_none(), "{name}");
                let expected = logits(&cpu, &transformer(&cpu, &checkpoint, precision, None));
                let draft = Draft::create(&path, &plan).unwrap();
                let kept = transformer(&cpu, &checkpoint, precision, Some(&Shelf::writing(&plan, &draft, true)));
                assert_eq!(logits(&cpu, &kept), expected, "{name}: written");
                let unfinished = Shelf::reading(&plan, draft.map().unwrap());
                let mapped = transformer(&cpu, &checkpoint, precision, Some(&unfinished));
                assert_eq!(logits(&cpu, &mapped), expected, "{name}: before it is finished");
                draft.finish().unwrap();
                assert_eq!(fs::metadata(&path).unwrap().len(), plan.file_bytes(), "{name}");
                for most in [0, u64::MAX] {
                    let memory = packed::open(&cpu, &path, &plan, most).unwrap_or_else(|| panic!("{name}: refused"));
                    let read = transformer(&cpu, &checkpoint, precision, Some(&Shelf::reading(&plan, memory)));
                    assert_eq!(logits(&cpu, &read), expected, "{name}: at most {most} bytes read");
                }
            }
        }
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_file_that_is_damaged_or_of_another_model_is_not_used() {
    let directory = scratch("damaged");
    let model = llama(&directory, SMALL, DataType::Q4_0, DataType::Q6K);
    let (cpu, path) = (Cpu::new(Isa::Portable, 2), directory.join("model.packed"));
    let open = |plan: &Plan| {
        let opened = [0, u64::MAX].map(|most| packed::open(&cpu, &path, plan, most).is_some());
        assert_eq!(opened[0], opened[1], "mapped or read");
        opened[0]
    };
    let checkpoint = Checkpoint::open(&model).unwrap();
    let plan = Plan::new(&cpu, &checkpoint, Precision::Stored).unwrap();
    assert!(!open(&plan), "there is none yet");
    write(&cpu, &checkpoint, Precision::Stored, &plan, &path);
    assert!(open(&plan));

    let whole = fs::read(&path).unwrap();
    let header = whole.iter().position(|&byte| byte == 0).unwrap();
    assert!(whole[..header].is_ascii() && header > 200, "a header of text");
    for at in (0..header + 8).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(!open(&plan), "byte {at} of the header changed");
    }
    for len in [0, 1, header, 4096, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(!open(&plan), "cut to {len} bytes");
    }
    fs::write(&path, [&whole[..], &b"more"[..]].concat()).unwrap();
    assert!(!open(&plan), "longer");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(!open(&plan), "a directory");
    fs::remove_dir(&path).unwrap();

    // Other numbers behind the header are other weights, and nothing worse.
    let mut bytes = whole.clone();
    bytes[header.next_multiple_of(4096)..].iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 31 % 251) as u8);
    fs::write(&path, bytes).unwrap();
    let memory = packed::open(&cpu, &path, &plan, 0).unwrap();
    logits(&cpu, &transformer(&cpu, &checkpoint, Precision::Stored, Some(&Shelf::reading(&plan, memory))));

    // A model that was written anew has other bytes, whatever its length.
    fs::write(&path, &whole).unwrap();
    assert!(open(&plan));
    let again = fs::read(&model).unwrap();
    fs::remove_file(&model).unwrap();
    fs::write(&model, again).unwrap();
    let anew = Checkpoint::open(&model).unwrap();
    assert!(!open(&Plan::new(&cpu, &anew, Precision::Stored).unwrap()), "the model was replaced");
    assert!(!open(&Plan::new(&cpu, &checkpoint, Dtype::Bf16.into()).unwrap()), "other bits");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn several_may_write_the_same_file() {
    let directory = scratch("writers");
    let model = llama(&directory, SMALL, DataType::Q4_0, DataType::Q6K);
    let path = directory.join("kept/model.packed");
    let expected = {
        let cpu = Cpu::new(Isa::Portable, 1);
        logits(&cpu, &transformer(&cpu, &Checkpoint::open(&model).unwrap(), Precision::Stored, None))
    };
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let (cpu, checkpoint) = (Cpu::new(Isa::Portable, 1), Checkpoint::open(&model).unwrap());
                let plan = Plan::new(&cpu, &checkpoint, Precision::Stored).unwrap();
                for _ in 0..4 {
                    write(&cpu, &checkpoint, Precision::Stored, &plan, &path);
                    let memory = packed::open(&cpu, &path, &plan, 0).expect("one of the writers'");
                    let shelf = Shelf::reading(&plan, memory);
                    let read = transformer(&cpu, &checkpoint, Precision::Stored, Some(&shelf));
                    assert_eq!(logits(&cpu, &read), expected);
                }
            });
        }
    });
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["model.packed"], "nothing half-written is left");
    // A draft that is given up leaves nothing either.
    let (cpu, checkpoint) = (Cpu::new(Isa::Portable, 1), Checkpoint::open(&model).unwrap());
    let plan = Plan::new(&cpu, &checkpoint, Precision::Stored).unwrap();
    drop(Draft::create(&directory.join("other/model.packed"), &plan).unwrap());
    assert_eq!(fs::read_dir(directory.join("other")).unwrap().count(), 0);
    fs::remove_dir_all(directory).unwrap();
}

/// A line of `/proc/self/status`, in bytes.
#[cfg(target_os = "linux")]
fn status(key: &str) -> u64 {
    let about = fs::read_to_string("/proc/self/status").unwrap();
    let line = about.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<u64>().unwrap() * 1024
}

/// What memory a model takes in a process of its own: no more than its packed weights and a tenth, and what any process of
/// tests takes. `MINKE_MEMORY_LAYERS` has a larger model than one of 4 layers.
#[cfg(target_os = "linux")]
#[test]
fn a_model_takes_the_memory_of_its_weights() {
    const NAME: &str = "packed::a_model_takes_the_memory_of_its_weights";
    /// The first pages of keys and values (16 MiB), each large matrix's last page of 2 MiB, activations, stacks.
    const BASE: u64 = 32 << 20;
    let Some(case) = std::env::var_os("MINKE_MEMORY_CASE") else {
        let directory = scratch("memory");
        let layers = std::env::var("MINKE_MEMORY_LAYERS").map_or(4, |layers| layers.parse().unwrap());
        let sizes = Sizes { hidden: 1024, wide: 4096, layers, vocabulary: 8192 };
        for dtype in [DataType::Q8_0, DataType::Bf16] {
            llama(&directory, sizes, dtype, dtype);
            let model = directory.join(format!("{}.gguf", dtype.name()));
            // The third reads what the second has written.
            for case in ["packed", "written", "read", "mapped"] {
                let mut child = Command::new(std::env::current_exe().unwrap());
                child
                    .args(["--exact", NAME, "--nocapture"])
                    .env("MINKE_MEMORY_CASE", case)
                    .env("MINKE_MEMORY_MODEL", &model);
                let done = child.output().unwrap();
                let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
                assert!(done.status.success(), "{} {case}: {said}", dtype.name());
            }
        }
        fs::remove_dir_all(directory).unwrap();
        return;
    };
    let model = PathBuf::from(std::env::var_os("MINKE_MEMORY_MODEL").unwrap());
    let (cpu, path) = (Cpu::detect().unwrap(), model.with_extension("packed"));
    let checkpoint = Checkpoint::open(&model).unwrap();
    let before = status("VmRSS");
    let plan = Plan::new(&cpu, &checkpoint, Precision::Stored).unwrap();
    let opened = |most| packed::open(&cpu, &path, &plan, most).expect("written by the case before");
    let made = |shelf: Option<&Shelf<'_>>| transformer(&cpu, &checkpoint, Precision::Stored, shelf);
    let transformer = match case.to_str().unwrap() {
        "packed" => made(None),
        "written" => {
            let draft = Draft::create(&path, &plan).unwrap();
            let kept = made(Some(&Shelf::writing(&plan, &draft, true)));
            draft.finish().unwrap();
            kept
        }
        "read" => made(Some(&Shelf::reading(&plan, opened(u64::MAX)))),
        _ => made(Some(&Shelf::reading(&plan, opened(0)))),
    };
    logits(&cpu, &transformer);
    let (taken, limit) = (status("VmHWM") - before, plan.bytes() + plan.bytes() / 10 + BASE);
    assert!(taken <= limit, "{case:?}: {} MB for weights of {} MB", taken >> 20, plan.bytes() >> 20);
    // The test would pass if nothing were measured.
    assert!(taken >= plan.bytes() * 9 / 10, "{case:?}: {} MB for weights of {} MB", taken >> 20, plan.bytes() >> 20);
}
