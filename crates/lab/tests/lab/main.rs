//! The lab as those see it who depend on it: people, launchers, and whoever reads its decisions afterwards.

mod consent;
mod histories;
mod place;
mod preemption;
mod world;
mod worth;
