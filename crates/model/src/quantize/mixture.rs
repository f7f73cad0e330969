//! Types of files, and the type that each tensor gets in one: some are given more bits than the rest, and rows that a
//! block doesn't divide go to smaller blocks. The rules are llama.cpp's, so that a file's name means the same.

use crate::dequantize::DataType;

/// What a file is called by: the type of most of its tensors, and for some how much more the others get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileType {
    name: &'static str,
    /// In `general.file_type` (`enum llama_ftype` in `llama.h`).
    pub number: u32,
    /// The type of most tensors.
    pub main: DataType,
    size: Size,
}

/// How much the tensors that matter more get above the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// There is one mixture with this main type.
    Only,
    Small,
    Medium,
    Large,
}

const FILE_TYPES: [FileType; 18] = {
    const fn row(name: &'static str, number: u32, main: DataType, size: Size) -> FileType {
        FileType { name, number, main, size }
    }
    [
        row("F32", 0, DataType::F32, Size::Only),
        row("F16", 1, DataType::F16, Size::Only),
        row("BF16", 32, DataType::Bf16, Size::Only),
        row("Q8_0", 7, DataType::Q8_0, Size::Only),
        row("Q4_0", 2, DataType::Q4_0, Size::Only),
        row("Q4_1", 3, DataType::Q4_1, Size::Only),
        row("Q5_0", 8, DataType::Q5_0, Size::Only),
        row("Q5_1", 9, DataType::Q5_1, Size::Only),
        row("IQ4_NL", 25, DataType::Iq4Nl, Size::Only),
        row("Q2_K", 10, DataType::Q2K, Size::Only),
        row("Q3_K_S", 11, DataType::Q3K, Size::Small),
        row("Q3_K_M", 12, DataType::Q3K, Size::Medium),
        row("Q3_K_L", 13, DataType::Q3K, Size::Large),
        row("Q4_K_S", 14, DataType::Q4K, Size::Small),
        row("Q4_K_M", 15, DataType::Q4K, Size::Medium),
        row("Q5_K_S", 16, DataType::Q5K, Size::Small),
        row("Q5_K_M", 17, DataType::Q5K, Size::Medium),
        row("Q6_K", 18, DataType::Q6K, Size::Only),
    ]
};

impl FileType {
    /// The type called `name`, in any case; `Q4_K` alone means `Q4_K_M`, as `Q3_K` and `Q5_K` do.
    pub fn from_name(name: &str) -> Option<Self> {
        let find = |name: &str| FILE_TYPES.into_iter().find(|row| row.name.eq_ignore_ascii_case(name));
        find(name).or_else(|| find(&format!("{name}_M")))
    }

    /// The name that people use.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The names of all, for a sentence.
    pub fn names() -> String {
        let names = FILE_TYPES.map(|row| row.name);
        format!("{} and {}", names[..names.len() - 1].join(", "), names[names.len() - 1])
    }
}

/// What the rules ask of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub layers: usize,
    /// Query heads for each key and value head.
    pub heads_per_kv: usize,
    pub experts: usize,
    /// Llama 2's and 3's largest, whose values are an eighth as wide as its queries.
    pub is_llama_70b: bool,
}

/// A tensor whose type is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// As GGUF has it.
    pub name: &'a str,
    /// Row-major.
    pub shape: &'a [usize],
    pub dtype: DataType,
}

const OUTPUT: &str = "output.weight";

/// Parts of names of matrices that are small, or no matrices at all, and stay as they are.
const KEPT: [&str; 12] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "position_embd",
    "token_types",
    "ssm_conv1d",
    "shortconv.conv",
    "attn_rel_b",
    "time_mix_",
    "indexer.",
];

/// The type of each of `tensors` in a file of type `file`; `weighed` if there is an importance matrix.
pub(super) fn types(file: FileType, facts: &Facts, weighed: bool, tensors: &[Asked<'_>]) -> Vec<DataType> {
    // Where there is no projection of its own, the embedding table makes the logits.
    let output = if tensors.iter().any(|t| t.name == OUTPUT) { OUTPUT } else { "token_embd.weight" };
    let role = |tensor: &Asked<'_>| if tensor.name == output { Role::Output } else { Role::of(tensor.name) };
    let is_value = |tensor: &Asked<'_>| role(tensor) == Role::Values;
    let layer = |tensor: &Asked<'_>| layer(tensor.name);
    // Values are counted rather than placed by their layer: hybrids have layers without.
    let mut values: Vec<usize> = tensors.iter().filter(|t| is_value(t)).map(layer).collect();
    values.sort_unstable();
    tensors
        .iter()
        .map(|tensor| {
            if !is_converted(tensor) {
                return tensor.dtype;
            }
            if matches!(file.main, DataType::F32 | DataType::F16 | DataType::Bf16) {
                return file.main;
            }
            let (at, of) = if is_value(tensor) {
                (values.partition_point(|&l| l < layer(tensor)), values.len())
            } else {
                (layer(tensor), facts.layers)
            };
            let chosen = Mixture { file, facts, weighed, at, of }.choose(role(tensor));
            fitting(chosen, tensor.shape.last().copied().unwrap_or(1))
        })
        .collect()
}

/// Whether a tensor is a matrix of weights, and of a size that matters.
fn is_converted(tensor: &Asked<'_>) -> bool {
    let rows: usize = tensor.shape.iter().rev().skip(1).product();
    rows > 1 && tensor.name.ends_with("weight") && !KEPT.iter().any(|part| tensor.name.contains(part))
}

/// The number in `blk.N.`, or 0.
pub(super) fn layer(name: &str) -> usize {
    name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok()).unwrap_or(0)
}

/// The type itself, or where its blocks don't divide rows of `width`, one of smaller blocks and no fewer bits.
fn fitting(dtype: DataType, width: usize) -> DataType {
    let divides = |dtype: DataType| width.is_multiple_of(dtype.block().0);
    let smaller = match dtype {
        _ if divides(dtype) => return dtype,
        DataType::Q2K | DataType::Q3K => DataType::Q4_0,
        DataType::Q4K => DataType::Q5_0,
        DataType::Q5K => DataType::Q5_1,
        DataType::Q6K => DataType::Q8_0,
        other => other,
    };
    if divides(smaller) { smaller } else { DataType::F16 }
}

/// What a matrix does, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Makes logits.
    Output,
    /// Makes values, alone or with keys and queries.
    Values,
    Keys,
    AttentionOutput,
    Down,
    Other,
}

impl Role {
    fn of(name: &str) -> Self {
        let is = |part: &str| name.contains(part);
        match name {
            _ if is("attn_v.weight") || is("attn_qkv.weight") || is("attn_kv_b.weight") => Self::Values,
            _ if is("attn_k.weight") => Self::Keys,
            _ if is("attn_output.weight") => Self::AttentionOutput,
            _ if is("ffn_down") => Self::Down,
            _ => Self::Other,
        }
    }
}

/// One tensor's place in one file.
struct Mixture<'a> {
    file: FileType,
    facts: &'a Facts,
    weighed: bool,
    /// The tensor is the `at`-th of `of` of its kind.
    at: usize,
    of: usize,
}

impl Mixture<'_> {
    fn choose(&self, role: Role) -> DataType {
        let main = self.file.main;
        match role {
            Role::Output if main == DataType::Q8_0 => main,
            Role::Output => DataType::Q6K,
            Role::Values if self.facts.experts == 8 => DataType::Q8_0,
            Role::Values => match self.values() {
                DataType::Q3K | DataType::Q4K if self.facts.is_llama_70b => DataType::Q5K,
                chosen => chosen,
            },
            Role::Keys if self.facts.experts == 8 => DataType::Q8_0,
            Role::AttentionOutput => self.attention_output(),
            Role::Down => self.down(),
            Role::Keys | Role::Other => main,
        }
    }

    fn values(&self) -> DataType {
        let shared = self.facts.heads_per_kv >= 4;
        match (self.file.main, self.file.size) {
            (DataType::Q2K, _) if shared => DataType::Q4K,
            (DataType::Q2K, _) => DataType::Q3K,
            (DataType::Q3K, Size::Medium) if self.at >= 2 => DataType::Q4K,
            (DataType::Q3K, Size::Medium | Size::Large) => DataType::Q5K,
            (DataType::Q4K | DataType::Q5K, Size::Medium) if self.matters() => DataType::Q6K,
            (DataType::Q4K, Size::Small) if self.at < 4 => DataType::Q5K,
            (DataType::Iq4Nl, _) if shared => DataType::Q5K,
            (main, _) => main,
        }
    }

    fn down(&self) -> DataType {
        let first = self.at < self.of / 8;
        match (self.file.main, self.file.size) {
            (DataType::Q2K, _) => DataType::Q3K,
            (DataType::Q3K, Size::Medium) if self.at >= self.of / 16 => DataType::Q4K,
            (DataType::Q3K, Size::Medium | Size::Large) => DataType::Q5K,
            (DataType::Q4K | DataType::Q5K, Size::Medium) if self.matters() => DataType::Q6K,
            (DataType::Q4K, Size::Small) if first => DataType::Q5K,
            (DataType::Iq4Nl, _) if first && !self.weighed => DataType::Q5K,
            (DataType::Q4_0, _) if first && self.weighed => DataType::Q4_1,
            (DataType::Q5_0, _) if first && self.weighed => DataType::Q5_1,
            (main, _) => main,
        }
    }

    fn attention_output(&self) -> DataType {
        match (self.file.main, self.file.size) {
            (DataType::Q2K | DataType::Q4K | DataType::Iq4Nl, _) if self.facts.experts == 8 => DataType::Q5K,
            (DataType::Q3K, Size::Small | Size::Medium) if self.facts.experts == 8 => DataType::Q5K,
            (main, _) if self.facts.experts == 8 => main,
            (DataType::Q2K, _) => DataType::Q3K,
            (DataType::Q3K, Size::Medium) => DataType::Q4K,
            (DataType::Q3K, Size::Large) => DataType::Q5K,
            (main, _) => main,
        }
    }

    /// The first and last eighth, and every third between.
    fn matters(&self) -> bool {
        let eighth = self.of / 8;
        self.at < eighth || self.at >= 7 * self.of / 8 || (self.at - eighth) % 3 == 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts { layers: 30, heads_per_kv: 3, experts: 0, is_llama_70b: false };

    fn one(file: &str, facts: Facts, weighed: bool, name: &str, width: usize) -> &'static str {
        let asked = Asked { name, shape: &[64, width], dtype: DataType::F32 };
        // With one value matrix in each block.
        let names: Vec<String> = (0..facts.layers).map(|i| format!("blk.{i}.attn_v.weight")).collect();
        let others = names.iter().filter(|other| *other != name);
        let others = others.map(|name| Asked { name, shape: &[64, 576], dtype: DataType::F32 });
        let all: Vec<Asked<'_>> = [asked].into_iter().chain(others).collect();
        types(FileType::from_name(file).unwrap(), &facts, weighed, &all)[0].name()
    }

    #[test]
    fn what_llama_cpp_gives_more_bits_gets_them_here() {
        for (file, name, width, expected) in [
            ("q4_k", "token_embd.weight", 576, "Q8_0"),
            ("q4_k", "token_embd.weight", 512, "Q6_K"),
            ("q8_0", "token_embd.weight", 512, "Q8_0"),
            ("f16", "token_embd.weight", 512, "F16"),
            ("q4_k_m", "blk.0.ffn_down.weight", 1536, "Q6_K"),
            ("q4_k_m", "blk.3.ffn_down.weight", 1536, "Q4_K"),
            ("q4_k_m", "blk.5.ffn_down.weight", 1536, "Q6_K"),
            ("q4_k_s", "blk.2.ffn_down.weight", 1536, "Q5_K"),
            ("q3_k_m", "blk.0.ffn_down.weight", 1536, "Q5_K"),
            ("q3_k_m", "blk.1.ffn_down.weight", 1536, "Q4_K"),
            ("q3_k_l", "blk.9.attn_output.weight", 576, "Q5_1"),
            ("q2_k", "blk.9.attn_v.weight", 512, "Q3_K"),
            ("q2_k", "blk.9.attn_q.weight", 576, "Q4_0"),
            ("q6_k", "blk.9.attn_q.weight", 40, "F16"),
            ("q4_0", "blk.9.attn_q.weight", 40, "F16"),
            ("iq4_nl", "blk.0.ffn_down.weight", 1536, "Q5_K"),
            ("q4_0", "blk.0.attn_norm.weight", 512, "F32"),
            ("q4_0", "blk.0.attn_q.bias", 512, "F32"),
            ("q4_0", "blk.0.ffn_gate_inp.weight", 512, "F32"),
        ] {
            assert_eq!(one(file, FACTS, false, name, width), expected, "{file} {name} {width}");
        }
        assert_eq!(one("q4_0", FACTS, true, "blk.0.ffn_down.weight", 512), "Q4_1");
        assert_eq!(one("iq4_nl", FACTS, true, "blk.0.ffn_down.weight", 512), "IQ4_NL");
        let shared = Facts { heads_per_kv: 4, ..FACTS };
        assert_eq!(one("q2_k", shared, false, "blk.9.attn_v.weight", 512), "Q4_K");
        let large = Facts { is_llama_70b: true, ..FACTS };
        assert_eq!(one("q4_k_m", large, false, "blk.3.attn_v.weight", 512), "Q5_K");
        assert_eq!(one("q3_k_s", large, false, "blk.3.attn_v.weight", 512), "Q5_K");
        let eight = Facts { experts: 8, ..FACTS };
        assert_eq!(one("q3_k_s", eight, false, "blk.3.attn_k.weight", 512), "Q8_0");
        assert_eq!(one("q4_k_s", eight, false, "blk.3.attn_output.weight", 512), "Q5_K");
    }

    #[test]
    fn vectors_stay_as_they_are() {
        let asked = Asked { name: "rope_freqs.weight", shape: &[32], dtype: DataType::F32 };
        assert_eq!(types(FileType::from_name("Q4_0").unwrap(), &FACTS, false, &[asked]), [DataType::F32]);
        assert_eq!(FileType::from_name("q9"), None);
        assert_eq!(FileType::from_name("Q5_K").map(FileType::name), Some("Q5_K_M"));
    }
}
