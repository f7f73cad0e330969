//! `/health`: whether requests can be served now.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::Shared;

pub async fn health(State(shared): State<Shared>) -> impl IntoResponse {
    let (status, body) = match shared.loaded.is_loading() {
        true => (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"loading"}"#),
        false => (StatusCode::OK, r#"{"status":"ok"}"#),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}
