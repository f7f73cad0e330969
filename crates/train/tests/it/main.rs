//! Whole runs as those see them who carry them out, and the losses against TRL's.

mod carry_out;
mod exactness;
mod learning_curve;
mod lora;
mod moments;
mod pretrain;
mod trl;
