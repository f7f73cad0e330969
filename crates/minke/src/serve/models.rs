//! `/v1/models`: the models in the store, and those that runs have made.

use std::time::UNIX_EPOCH;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::Shared;
use super::error::Failure;
use super::loaded::blocking;
use crate::store::Entry;

pub async fn list(State(shared): State<Shared>) -> Result<impl IntoResponse, Failure> {
    let entries = blocking(move || shared.loaded.store().all()).await?;
    Ok(object(&json!({ "object": "list", "data": entries.iter().map(described).collect::<Vec<Value>>() })))
}

pub async fn one(State(shared): State<Shared>, Path(name): Path<String>) -> Result<impl IntoResponse, Failure> {
    let wanted = name.clone();
    let entry = blocking(move || shared.loaded.store().named(&wanted)).await?;
    Ok(object(&described(&entry.ok_or_else(|| Failure::no_model(&name))?)))
}

/// A JSON response.
pub fn object(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

fn described(entry: &Entry) -> Value {
    let modified = entry.path.metadata().and_then(|about| about.modified()).ok();
    let created = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
    json!({ "id": entry.name, "object": "model", "created": created, "owned_by": "minke" })
}
