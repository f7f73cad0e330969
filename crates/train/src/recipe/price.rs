//! `[report]`: what a report reckons with.

use minke_model::Result;
use toml::Table;

use super::section::Section;
use crate::spent::Price;

/// Characters of a currency's name.
const LONGEST: usize = 16;

/// The price of a core, where the recipe has one.
pub fn read(table: Table) -> Result<Option<Price>> {
    let section = Section::new("report", table, ["price_per_core_hour", "currency"])?;
    let currency = section.text("currency")?;
    let fits = |text: &str| text.chars().count() <= LONGEST && !text.chars().any(char::is_control);
    if currency.is_some_and(|text| !fits(text)) {
        return Err(section.error("currency is a name such as EUR, of at most 16 characters"));
    }
    match (section.number("price_per_core_hour", 0.0..=1e6)?, currency) {
        (None, Some(_)) => Err(section.error("currency is of no use without price_per_core_hour")),
        (None, None) => Ok(None),
        (Some(per_core_hour), currency) => {
            Ok(Some(Price { per_core_hour, currency: currency.unwrap_or_default().into() }))
        }
    }
}
