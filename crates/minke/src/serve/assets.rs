//! `/static/`: the files of the web app, which are part of the binary.

use axum::extract::Path;
use axum::http::header;
use axum::response::IntoResponse;

use super::error::Failure;

/// Name, type and bytes of each file.
const FILES: [(&str, &str, &[u8]); 4] = [
    ("app.css", "text/css; charset=utf-8", include_bytes!("../ui/app.css")),
    ("chat.js", "text/javascript; charset=utf-8", include_bytes!("../ui/chat.js")),
    ("markdown.js", "text/javascript; charset=utf-8", include_bytes!("../ui/markdown.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../ui/icon.svg")),
];

pub async fn asset(Path(name): Path<String>) -> Result<impl IntoResponse, Failure> {
    let file = FILES.iter().find(|(file, _, _)| *file == name);
    let (_, kind, bytes) = file.ok_or_else(|| Failure::not_found("there is no such file"))?;
    Ok(([(header::CONTENT_TYPE, *kind)], *bytes))
}
