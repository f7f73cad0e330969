//! Rollouts, rewards, better weights: tasks, recipes, the mathematics of the stages, and everything a run keeps.

pub mod advantages;
pub mod audit;
pub mod budget;
pub mod checkpoint;
pub mod corpus;
pub mod curriculum;
mod curves;
pub mod distil;
pub mod distillation;
pub mod evaluation;
mod files;
pub mod format;
pub mod generate;
pub mod gradient;
pub mod grpo;
pub mod intervals;
pub mod learner;
pub mod loss;
pub mod measure;
pub mod metrics;
pub mod progress;
pub mod recipe;
pub mod reference;
pub mod remote;
pub mod report;
pub mod rollouts;
pub mod run;
pub mod sft;
pub mod spent;
mod system;
pub mod tasks;
pub mod timing;
pub mod trial;

pub use minke_model::{Error, Result};
pub use recipe::Recipe;
pub use tasks::Task;
