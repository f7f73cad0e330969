//! A frozen model that adapters are trained on: its files, and its weights as they are stored there.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use flate2::Crc;
use minke_kernels::{Cpu, Dtype};
use minke_model::dequantize::DataType;
use minke_model::packed::Plan;
use minke_model::safetensors::{self, SafeTensors};
use minke_model::{
    Activations, Checkpoint, Config, Error, Lora, Parameter, Parameters, Precision, Result, Source, Transformer,
    huggingface,
};
use serde_json::json;

use crate::files::{make_directory, write_whole};
use crate::format::Format;
use crate::learner::{Learner, initial_adapters};
use crate::recipe;

/// Files of adapters, as PEFT names them, and what it puts before each tensor's name.
const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
const PREFIX: &str = "base_model.model.";

/// A model that stays as it is, and which adapters it is to have.
pub struct Base {
    reference: String,
    files: Checkpoint,
    model: Transformer,
    lora: Arc<Lora>,
    asked: recipe::Lora,
    crc32: u32,
}

/// The adapters that a recipe asks for.
///
/// # Errors
/// A target that the model does not have.
pub fn adapters(config: &Config, asked: &recipe::Lora, dtype: Dtype) -> Result<Lora> {
    let targets = asked.targets.as_deref();
    Lora::new(config, asked.rank as usize, asked.scale(), dtype, targets).map_err(|error| error.at("lora"))
}

/// Bytes that a model takes as it is stored, packed for products.
///
/// # Errors
/// Those of the files.
pub fn stored_bytes(cpu: &Cpu, files: &Checkpoint) -> Result<u64> {
    Ok(Plan::new(cpu, files, Precision::Stored)?.bytes())
}

impl Base {
    /// Reads the model in `files`, which goes by `reference`.
    ///
    /// # Errors
    /// Those of the files.
    pub fn new(cpu: &Cpu, reference: &str, files: Checkpoint, asked: &recipe::Lora, dtype: Dtype) -> Result<Base> {
        let lora = Arc::new(adapters(files.config(), asked, dtype)?);
        let model = Transformer::new(cpu, files.config(), Precision::Stored, Source::Checkpoint(&files))?;
        let mut crc = Crc::new();
        files.show_bytes(|bytes| crc.update(bytes))?;
        Ok(Base { reference: reference.to_string(), files, model, lora, asked: asked.clone(), crc32: crc.sum() })
    }

    /// What a run's numbers depend on besides its adapters: which weights, and the type of the adapters' products.
    pub fn domain(&self) -> String {
        format!("adapters in {} on stored weights {:08x}", self.lora.dtype().name(), self.crc32)
    }

    /// The adapters that training starts from: they change nothing yet.
    pub fn beginning(&self, seed: u32) -> Vec<f32> {
        initial_adapters(&self.lora, u64::from(seed))
    }

    /// A learner of adapters with these values.
    pub fn learner<'a>(&self, cpu: &'a Cpu, activations: Activations, values: Vec<f32>) -> Learner<'a> {
        Learner::adapting(cpu, &self.model, &self.lora, activations, values)
    }

    /// A learner of new adapters on the first blocks of the model, one of each kind, in f32: all of it would take the memory
    /// that adapters are there to save.
    ///
    /// # Errors
    /// Those of the files.
    pub fn sample<'a>(&self, cpu: &'a Cpu, seed: u32) -> Result<Learner<'a>> {
        let whole = self.files.config();
        let dense = whole.experts.as_ref().map_or(1, |experts| experts.first_dense);
        let config = Config { layers: whole.layers.min(dense + 1), ..whole.clone() };
        let base = Transformer::new(cpu, &config, Precision::In(Dtype::F32), Source::Checkpoint(&self.files))?;
        let lora = Arc::new(adapters(&config, &self.asked, Dtype::F32)?);
        let values = initial_adapters(&lora, u64::from(seed));
        Ok(Learner::adapting(cpu, &base, &lora, Activations::within(0), values))
    }

    /// Writes the model with its adapters merged into its weights, in f32, for transformers and for `minke chat`; one tensor
    /// is in memory at a time.
    ///
    /// # Errors
    /// What the file system says.
    pub fn export(&self, cpu: &Cpu, directory: &Path, values: &[f32], format: &Format) -> Result<()> {
        let config = self.files.config();
        let parameters = Parameters::of(config);
        let shapes: Vec<_> = parameters.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        let merged = |i: usize| {
            let (name, shape) = &shapes[i];
            let mut tensor = self.files.tensor(name, shape)?;
            self.lora.merge(cpu, values, name, shape, &mut tensor);
            Ok(Cow::Owned(tensor))
        };
        let (tokenizer, template) = (format.tokenizer(), format.template());
        huggingface::write_each(directory, config, &shapes, merged, DataType::F32, tokenizer, template)
    }

    /// Writes the adapters alone, as PEFT reads them.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_adapters(&self, directory: &Path, values: &[f32]) -> Result<()> {
        make_directory(directory)?;
        let tensor =
            |tensor: &Parameter| (format!("{PREFIX}{}", tensor.name), tensor.shape.clone(), &values[tensor.range()]);
        let tensors: Vec<_> = self.lora.parameters().iter().map(tensor).collect();
        let mut bytes = Vec::new();
        safetensors::write(&mut bytes, DataType::F32, &tensors)
            .map_err(|error| Error::new(format!("the adapters can't be written ({error})")))?;
        write_whole(&directory.join(WEIGHTS), &bytes)?;
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.reference,
            "r": self.lora.rank(),
            "lora_alpha": self.lora.scale() * self.lora.rank() as f32,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "target_modules": self.lora.targets(),
        });
        write_whole(&directory.join(CONFIG), format!("{config:#}\n").as_bytes())
    }

    /// Reads what [`Base::write_adapters`] wrote.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read_adapters(&self, directory: &Path) -> Result<Vec<f32>> {
        let path = directory.join(WEIGHTS);
        let at = |error: Error| error.at(path.display());
        let file = SafeTensors::open(&path).map_err(at)?;
        let mut values = Vec::with_capacity(self.lora.parameters().len());
        for tensor in self.lora.parameters() {
            let stored = file.get(&format!("{PREFIX}{}", tensor.name)).filter(|stored| stored.shape == tensor.shape);
            let stored = stored.and_then(|stored| Some((stored.dtype.ok()?, stored.bytes)));
            let (dtype, bytes) =
                stored.ok_or_else(|| at(Error::new(format!("{} is not as the recipe has it", tensor.name))))?;
            values.append(&mut dtype.to_f32(bytes));
        }
        Ok(values)
    }
}
