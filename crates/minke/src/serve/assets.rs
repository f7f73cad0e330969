//! `/static/`: the files of the web app, which are part of the binary.

use axum::extract::Path;
use axum::http::header;
use axum::response::IntoResponse;

use super::error::Failure;

/// Name, type and bytes of each file.
const FILES: [(&str, &str, &[u8]); 7] = [
    ("app.css", "text/css; charset=utf-8", include_bytes!("../ui/app.css")),
    ("arena.js", "text/javascript; charset=utf-8", include_bytes!("../ui/arena.js")),
    ("chat.js", "text/javascript; charset=utf-8", include_bytes!("../ui/chat.js")),
    ("live.js", "text/javascript; charset=utf-8", include_bytes!("../ui/live.js")),
    ("markdown.js", "text/javascript; charset=utf-8", include_bytes!("../ui/markdown.js")),
    ("thoughts.js", "text/javascript; charset=utf-8", include_bytes!("../ui/thoughts.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../ui/icon.svg")),
];

pub async fn asset(Path(name): Path<String>) -> Result<impl IntoResponse, Failure> {
    let file = FILES.iter().find(|(file, _, _)| *file == name);
    let (_, kind, bytes) = file.ok_or_else(|| Failure::not_found("there is no such file"))?;
    Ok(([(header::CONTENT_TYPE, *kind)], *bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What models write reaches the page as text nodes; nothing that reads a string as HTML or as a script may slip in.
    #[test]
    fn scripts_make_no_html_of_strings() {
        let scripts: Vec<_> = FILES.iter().filter(|(name, _, _)| name.ends_with(".js")).collect();
        assert_eq!(scripts.len(), 5);
        for (name, _, bytes) in scripts {
            let text = std::str::from_utf8(bytes).unwrap();
            for way in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "srcdoc", "eval(", "Function("]
            {
                assert!(!text.contains(way), "{name} has {way}");
            }
        }
    }
}
