//! The lab as those see it who depend on it: people, launchers, and whoever reads its decisions afterwards.

mod consent;
mod histories;
mod place;
mod policy;
mod preemption;
mod random;
mod simulate;
mod world;
mod worth;
